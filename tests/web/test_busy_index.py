"""The index may be locked by another process, or be gone: a page tells what it knows, at once, and says so."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from asgi import Browser, shown

from queuectl import Spool
from queuectl.index import database
from queuectl.intake import reconcile
from queuectl.system.locks import Lock
from queuectl.web import bulk, site

from support import drop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEHIND = (
    "the index cannot be brought up to date: another process has the index; this is what was known before"
)


@pytest.fixture
def browser(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """A visitor who has seen the spool, with one waiting job; the index is waited for a moment only."""
    monkeypatch.setattr(database, "WRITE_TIMEOUT", 0.05)
    Spool(spool_dir).enqueue("true", id="a")
    made = Browser(spool_dir).login()
    assert "row-a" in made.get("/jobs").text
    return made


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another one has the lock with which the index is written, as while it is made anew."""
    with closing(sqlite3.connect(folder / "data" / "queuectl.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_while_another_process_has_the_index_the_last_state_is_shown(
    spool_dir: Path, browser: Browser
) -> None:
    """No index is built in memory: of a million jobs that takes a minute, and the object would keep it for ever."""
    with locked(spool_dir):
        drop(spool_dir, "b", command="true")
        for path in ("/", "/jobs", "/line", "/queues", "/batches", "/job/a", "/part/jobs"):
            began = time.monotonic()
            answer = browser.get(path)
            assert answer.status == 200
            assert time.monotonic() - began < 5
            assert BEHIND in shown(answer.text), path
            assert "etag" not in answer.headers  # else the browser would keep it when it is out of date
            assert "row-b" not in answer.text
        assert browser.get("/job/b").status == 404
    wait_until(lambda: "row-b" in browser.get("/jobs").text)
    assert "brought up to date" not in browser.get("/jobs").text


def test_what_cannot_be_changed_now_is_said_and_not_done(spool_dir: Path, browser: Browser) -> None:
    """With the time after which to try again; the page stays."""
    with locked(spool_dir):
        drop(spool_dir, "b", command="true")
        answer = browser.post("/job/a/hold")
        asked = browser.post("/bulk", {"verb": "hold", "list": "/jobs", "which": "all"})

        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert "another process has the index" in answer.text
        assert asked.status == 200
    assert not Spool(spool_dir).row("a").held
    assert browser.post("/job/a/hold").status == 303


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The steps of changes of many jobs that have been tried."""
    made: list[object] = []
    change = bulk._change

    def counted(*args: Any) -> None:
        made.append(args)
        change(*args)

    monkeypatch.setattr(bulk, "_change", counted)
    return made


def test_a_change_of_many_jobs_waits_for_the_index(
    spool_dir: Path, browser: Browser, tries: list[object]
) -> None:
    """Nobody asks again for it."""
    with locked(spool_dir):
        drop(spool_dir, "b", command="true")
        form = {"verb": "hold", "list": "/jobs", "which": "all", "number": "1"}
        assert browser.post("/bulk/go", form).status == 303
        [made] = browser.site.bulk.values()
        wait_until(lambda: len(tries) > 1)
        assert not made.is_over
        assert browser.get("/bulk/1").status == 200
    wait_until(lambda: made.is_over)

    assert (made.done, made.fault, made.refused) == (1, None, [])
    assert Spool(spool_dir).row("a").held


def test_a_change_that_waits_for_the_index_can_be_stopped(
    spool_dir: Path, browser: Browser, tries: list[object]
) -> None:
    with locked(spool_dir):
        drop(spool_dir, "b", command="true")
        browser.post("/bulk/go", {"verb": "hold", "list": "/jobs", "which": "all", "number": "1"})
        wait_until(lambda: tries)
        bulk.end_all(browser.site, 10)
        [made] = browser.site.bulk.values()

        assert (made.is_over, made.done) == (True, 0)
        assert "another process has the index" in (made.fault or "")


def test_an_index_that_is_made_anew_keeps_no_page_waiting(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has deleted it; another process makes it, or this one: all pages say so meanwhile."""
    monkeypatch.setattr(site, "REFRESH_PATIENCE", 0.05)
    browser.site.close()
    turn = Lock.acquire(os.fspath(spool_dir / "data" / "rebuild.lock"))
    assert turn is not None
    os.unlink(spool_dir / "data" / "queuectl.db")
    with monkeypatch.context() as patch:
        patch.setattr(database, "WRITE_TIMEOUT", 60.0)
        for path in ("/jobs", "/", "/part/jobs"):
            answer = browser.get(path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
            assert "the index is being brought up to date" in answer.text
        turn.release()
        wait_until(lambda: browser.get("/jobs").status == 200)

    assert "row-a" in browser.get("/jobs").text
    assert browser.site._refreshing is not None
    browser.site._refreshing.join()


def test_a_disk_that_refuses_the_index_lets_the_last_state_be_shown(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error of SQLite goes to the browser, and when there is room again the page is up to date."""
    begin = database.Database._take_write_lock

    def refuse(_: database.Database) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database.Database, "_take_write_lock", refuse)
    drop(spool_dir, "b", command="true")
    answer = browser.get("/jobs")

    assert answer.status == 200
    assert "brought up to date: database or disk is full" in answer.text
    assert "row-a" in answer.text
    monkeypatch.setattr(database.Database, "_take_write_lock", begin)
    wait_until(lambda: "row-b" in browser.get("/jobs").text)


def test_a_large_folder_is_compared_once_for_all_pages_and_none_waits_for_it(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads that compared half a million files each kept the workers from the index, and no page came."""
    monkeypatch.setattr(reconcile, "LARGE_FOLDER", 0)
    monkeypatch.setattr(site, "REFRESH_PATIENCE", 0.05)
    goes_on, scans = threading.Event(), []
    scan = reconcile.Intake.scan_all

    def slow(self: reconcile.Intake, place: str, **more: Any) -> None:
        scans.append(place)
        assert goes_on.wait(30)
        scan(self, place, **more)

    monkeypatch.setattr(reconcile.Intake, "scan_all", slow)
    drop(spool_dir, "b", command="true")
    for path in ("/jobs", "/", "/line"):
        answer = browser.get(path)
        assert answer.status == 200
        assert "the index is being brought up to date" in answer.text
        assert "row-b" not in answer.text
    assert scans == ["pending"]
    goes_on.set()
    wait_until(lambda: "row-b" in browser.get("/jobs").text)


def test_tabs_do_not_compare_a_large_folder_at_each_question(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers change it all the time: ten tabs took half of their rate. But without an index one is made at once."""
    monkeypatch.setattr(reconcile, "LARGE_FOLDER", 0)
    monkeypatch.setattr(site, "REFRESH_REST", 1e9)
    monkeypatch.setattr(site, "LONGEST_REST", 1e9)
    scans = []
    scan = reconcile.Intake.scan_all

    def counted(self: reconcile.Intake, place: str, **more: Any) -> None:
        scans.append(place)
        scan(self, place, **more)

    monkeypatch.setattr(reconcile.Intake, "scan_all", counted)
    for job_id in ("b", "c", "d"):
        drop(spool_dir, job_id, command="true")
        assert browser.get("/jobs").status == 200
    assert scans == ["pending"]
    assert "row-d" not in browser.get("/jobs").text

    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()
    wait_until(lambda: "row-d" in browser.get("/jobs").text)
