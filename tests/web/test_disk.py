"""A full disk, a read-only one, a spool that goes or is another one: one line on the page, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import faults
import pytest
from asgi import Browser

from queuectl import Spool

from support import drop_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = (
    "/",
    "/jobs",
    "/dead",
    "/line",
    "/queues",
    "/workers",
    "/rules",
    "/batches",
    "/new",
    "/job/a",
    "/part/jobs",
)
DONE = ("/job/a/hold", "/job/bad/retry", "/job/a/cancel", "/pause", "/new")
"""What writes: each needs room on the disk."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if os.geteuid() != 0:
        faults.must_not_skip("only root can mount a disk")
    at = tmp_path / "disk"
    at.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(at)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        faults.must_not_skip("cannot mount a tmpfs")
    yield at
    subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.fixture
def browser(disk: Path) -> Iterator[Browser]:
    """A visitor of a spool there, with a waiting job `a` and a dead one `bad`."""
    with Spool(disk / "spool") as spool:  # what it has open would give room back later
        spool.enqueue("true", id="a")
    drop_bytes(
        disk / "spool", "bad.json", b'{"command": "x", "attempts": 1, "last_error": "Exit code 1"}', "dead"
    )
    made = Browser(disk / "spool").login()
    assert made.get("/jobs").status == 200
    yield made
    made.site.close()


def ask_for_all(browser: Browser, status: int, words: str, before: Callable[[], None] = lambda: None) -> None:
    """Each page is there, and what would write is refused in one line; `before` is called each time."""
    for path in PAGES:
        before()
        assert browser.get(path).status == 200, path
    for path in DONE:
        before()
        answer = browser.post(
            path, {"command": "x"} if path == "/new" else {"reason": "x"} if path == "/pause" else {}
        )
        assert answer.status == status, path
        assert words in answer.text, path
        assert "Traceback" not in answer.text


def test_on_a_full_disk_the_pages_are_there_and_changes_are_refused(
    disk: Path, browser: Browser, capfd: pytest.CaptureFixture[str]
) -> None:
    """A new visitor can log in, and what could not be noted is printed by the server, a line each."""

    def fill() -> None:
        with suppress(OSError), (disk / "fill").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    ask_for_all(browser, 507, "no space left on device", fill)

    told = capfd.readouterr().err.splitlines()
    assert [line.partition(" - ")[2] for line in told] == [
        "hold a: refused",
        "retry bad: refused",
        "cancel a: refused",
    ]
    assert all("No space left" in line for line in told)
    browser.post("/logout")
    assert Browser(disk / "spool", site=browser.site).login().get("/jobs").status == 200
    assert sorted(os.listdir(disk / "spool/pending")) == ["a.json"]
    assert os.listdir(disk / "spool/dead") == ["bad.json"]
    os.unlink(disk / "fill")
    again = Browser(disk / "spool", site=browser.site).login()
    assert [again.post(path).status for path in ("/job/a/hold", "/job/bad/retry")] == [303, 303]


def test_on_a_read_only_disk_the_pages_are_there_and_changes_are_refused(
    disk: Path, browser: Browser
) -> None:
    """A change of many jobs ends with the reason; later the same server writes again."""
    browser.site.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    ask_for_all(browser, 503, "read-only")

    form = {"verb": "hold", "list": "/jobs", "which": "all", "number": "9"}
    assert browser.post("/bulk/go", form).status == 303
    [made] = browser.site.bulk.values()
    wait_until(lambda: made.is_over)
    assert "read-only" in browser.get("/bulk/1").text
    browser.site.close()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert browser.post("/job/a/hold").status == 303
    assert Spool(disk / "spool").row("a").held


def test_an_index_of_another_version_is_made_anew(spool_dir: Path) -> None:
    """Somebody has updated queuectl, or uses two versions."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir).login()
    assert browser.get("/jobs").status == 200
    with closing(sqlite3.connect(spool_dir / "data/queuectl.db", isolation_level=None)) as other:
        other.execute("UPDATE meta SET value = 999999 WHERE key = 'schema'")

    answer = browser.get("/jobs")

    assert (answer.status, "row-a" in answer.text) == (200, True)
    assert browser.site._refreshing is not None


def test_another_spool_in_the_place_of_the_old_one_is_shown(spool_dir: Path, tmp_path: Path) -> None:
    """With its jobs alone; what is done in it is noted in it."""
    Spool(spool_dir).enqueue("true", id="old")
    browser = Browser(spool_dir).login()
    assert "row-old" in browser.get("/jobs").text
    shutil.move(spool_dir, tmp_path / "away")
    Spool(spool_dir).enqueue("true", id="new")

    page = browser.get("/jobs").text

    assert ("row-new" in page, "row-old" in page) == (True, False)
    assert browser.post("/job/new/hold").status == 303
    assert " - hold new" in (spool_dir / "data/web/actions.log").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "away" / "pending").iterdir()] == ["old.json"]


def test_where_the_spool_was_nothing_is_made(spool_dir: Path) -> None:
    """It was deleted: whatever is asked gets one line, and a job that is typed is not queued into a new spool."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir).login()
    shutil.rmtree(spool_dir)

    answers = [browser.get(path) for path in (*PAGES[:8], "/job/a", "/job/a/log", "/part/jobs")]
    answers += [browser.post(path, {"command": "x"} if path == "/new" else {}) for path in DONE]

    assert {answer.status for answer in answers} == {503}
    assert all(
        "there is no spool at" in answer.text and "retry-after" in answer.headers for answer in answers
    )
    assert not Path(spool_dir).exists()
