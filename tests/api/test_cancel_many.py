"""A cancel of many jobs starts none of them, holds for any retry policy, and says what became of each."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import MoveError, Spool
from queuectl.api import listing
from queuectl.control import commands
from queuectl.control.registration import Registration
from queuectl.system import files

from support import claim_job, drop, load, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.layout import Layout

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="commands are for sh, and workers get signals"
)


def queue_behind_one(spool_dir: Path, workers: Cli) -> None:
    """One job runs, three with the same tag wait; each writes its id when it starts."""
    spool = Spool(spool_dir)
    for name in "abcd":
        spool.enqueue(f"echo {name} >>{spool_dir}/started; sleep 60", id=name, tags=["t"], timeout=0)
    workers(1)
    wait_until((spool_dir / "started").exists)


@pytest.mark.parametrize("command", [["cancel"], ["remove", "--cancel", "--yes"]])
def test_no_waiting_job_is_started_because_those_before_it_are_given_up(
    cli: Cli, spool_dir: Path, workers: Cli, command: list[str]
) -> None:
    """A worker takes the next job as soon as its own has ended: the waiting ones must be gone by then."""
    queue_behind_one(spool_dir, workers)

    told = cli(*command, "--tag", "t", expect=0).stdout.splitlines()

    assert (spool_dir / "started").read_text() == "a\n"
    word = "removed" if "remove" in command else "cancelled"
    assert sorted(told) == [f"{name}: {word}" for name in "abcd"]
    places = [where_is(spool_dir, name) for name in "abcd"]
    assert places == [[] if word == "removed" else ["dead"]] * 4


def test_the_last_in_the_line_is_given_up_first(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an index nothing keeps workers away meanwhile, and they claim from the other end."""
    spool = Spool(spool_dir)
    for name, priority in {"b": 5, "a": 9, "c": 2, "d": 9}.items():
        spool.enqueue("true", id=name, priority=priority, hold=name == "d")
    moved: list[str] = []
    move = files.move_to_free_name

    def watched(source: str, folder: str, name: str) -> str:
        moved.append(name[0])
        return move(source, folder, name)

    monkeypatch.setattr(files, "move_to_free_name", watched)
    spool.cancel_many(["a", "b", "c", "d"])

    assert moved == ["d", "c", "b", "a"]


def test_many_are_given_up_and_sent_back_with_one_wait_for_the_disk(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three waits for each job made five hundred a matter of half a minute."""
    spool = Spool(spool_dir)
    ids = list(spool.enqueue_many({"command": "true"} for _ in range(40)))
    waits: list[str] = []

    def counted(name: str) -> Callable[[Any], None]:
        real = getattr(files, name)

        def call(what: Any) -> None:
            waits.append(name)
            real(what)

        return call

    for name in ("sync_file", "sync_folder", "sync_filesystem"):
        monkeypatch.setattr(files, name, counted(name))

    assert set(spool.cancel_many(ids).values()) == {"cancelled"}
    assert all(job for job in spool.retry_many(ids).values())

    assert len(waits) < 10
    assert [row.state for row in spool.list()] == ["pending"] * 40


def test_many_are_held_and_released_at_once(
    cli: Cli, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they were held one by one, workers started those that were still to be held."""
    spool = Spool(spool_dir)
    ids = list(spool.enqueue_many({"command": "true"} for _ in range(40)))
    swapped: list[tuple[str, bool]] = []
    exchange = files.exchange

    def watched(one: str, other: str) -> bool:
        swapped.append((os.path.basename(other), spool._index.in_transaction))
        return exchange(one, other)

    monkeypatch.setattr(files, "exchange", watched)
    assert set(spool.hold_many(ids).values()) == {True}

    assert swapped == [(f"{job_id}.json", True) for job_id in reversed(ids)]
    assert set(spool.hold_many(ids).values()) == {False}
    assert cli("release", *ids[:2], ids[2], "nobody", expect=1).stdout.splitlines() == [
        f"{job_id}: released" for job_id in ids[:3]
    ]
    assert [row.held for row in spool.list()] == [False] * 3 + [True] * 37


@pytest.mark.parametrize("count", [1, 2])
def test_a_cancel_holds_for_a_job_that_fails_and_is_tried_again_at_once(
    spool_dir: Path, workers: Cli, count: int
) -> None:
    """The run that was asked about may be over when its worker reads that, and the next one under way."""
    spool = Spool(spool_dir)
    ids = [f"job{number}" for number in range(6)]
    command = "echo >>$QUEUECTL_SPOOL/$QUEUECTL_JOB_ID.runs; exit 1"
    for job_id in ids:
        spool.enqueue(command, id=job_id, max_retries=100_000, backoff_base=1, max_backoff=0)
    workers(count)
    wait_until(lambda: all((spool_dir / f"{job_id}.runs").exists() for job_id in ids))

    results = [spool.cancel(job_id) for job_id in ids]

    assert results == ["cancelled"] * 6
    assert [where_is(spool_dir, job_id) for job_id in ids] == [["dead"]] * 6
    assert {load(spool_dir / "dead" / f"{job_id}.json")["last_error"] for job_id in ids} == {"Cancelled"}
    assert not spool.counts()["processing"]


def test_the_next_run_is_asked_to_end_if_the_request_came_too_late_for_the_last(spool_dir: Path) -> None:
    """The job has failed before its worker read the note, and the same worker runs it again."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    claim = claim_job(spool._storage, listing.one(spool, "a"), worker.name)
    assert claim is not None
    asked: list[int] = []
    request = commands.request_cancel

    def too_late(layout: Layout, name: str, runs: dict[str, int]) -> None:
        request(layout, name, runs)
        if not asked:
            claim.job.add_run({"run": 1, "outcome": "failed"})
            files.replace(claim.path, claim.job.to_bytes())
        asked.append(runs["a"])

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "request_cancel", too_late)
            assert spool.cancel("a", timeout=1) == "ending"
    finally:
        worker.release()

    assert asked == [1, 2]
    assert commands.is_cancel_requested(spool.layout, worker.name, "a", 2)


def test_a_job_that_ends_by_itself_was_not_cancelled(spool_dir: Path) -> None:
    """Who has asked for its end is told that it succeeded."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    claim = claim_job(spool._storage, listing.one(spool, "a"), worker.name)
    assert claim is not None

    def settle(*_: object) -> None:
        os.rename(claim.path, spool_dir / "done" / "a.json")

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "wake", settle)
            with pytest.raises(MoveError, match="'a' was completed before it could be ended"):
                spool.cancel("a")
    finally:
        worker.release()


def test_two_cancels_reach_one_worker(spool_dir: Path) -> None:
    """The second one must not replace the first: after the death of the worker that job would run again."""
    spool = Spool(spool_dir)
    spool.refresh()
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    for name in ("a", "b"):
        spool.enqueue("true", id=name)
        assert claim_job(spool._storage, listing.one(spool, name), worker.name)
    try:
        assert [spool.cancel(name, timeout=0) for name in ("a", "b")] == ["ending", "ending"]
    finally:
        worker.release()
    Spool(spool_dir).enqueue("true", id="c")
    wanted = [commands.is_cancel_requested(spool.layout, worker.name, name, 1) for name in ("a", "b", "c")]

    assert wanted == [True, True, False]
    assert spool.cancel_many(["a", "b"]) == {"a": "cancelled", "b": "cancelled"}
    assert where_is(spool_dir, "a") == where_is(spool_dir, "b") == ["dead"]


def test_a_note_of_an_older_queuectl_is_obeyed(spool_dir: Path) -> None:
    """It names one job; and a note that is damaged asks for nothing."""
    layout = Spool(spool_dir).layout
    layout.create()
    path = layout.worker_file("worker-0", "cancel")
    for text, wanted in (
        (b'{"job": "a", "run": 2}', True),
        (b'{"runs": {"a": "2"}}', False),
        (b"[2]", False),
    ):
        with open(path, "wb") as file:
            file.write(text)
        assert commands.is_cancel_requested(layout, "worker-0", "a", 2) is wanted


def test_one_that_cannot_be_cancelled_keeps_none_of_the_others(cli: Cli, spool_dir: Path) -> None:
    """Each is reported, and the exit code tells."""
    for name in ("a", "b"):
        drop(spool_dir, name, command="true")

    done = cli("cancel", "a", "nobody", "b", "--json", expect=1)

    results = {entry["id"]: entry.get("done", "refused") for entry in json.loads(done.stdout)}
    assert results == {"a": "cancelled", "nobody": "refused", "b": "cancelled"}
    assert done.stderr == "error: no job 'nobody' in this spool\n"


def test_a_cancel_that_the_disk_refuses_leaves_the_jobs_waiting(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal means that nothing was done."""
    spool = Spool(spool_dir)
    for name in ("a", "b"):
        spool.enqueue("true", id=name, priority=7)

    def refuse(path: str, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_new", refuse)
        results = spool.cancel_many(["a", "b"])

    assert {type(result).__name__ for result in results.values()} == {"SpoolFull"}
    assert [where_is(spool_dir, name) for name in "ab"] == [["pending"]] * 2
    assert [(row.state, row.priority) for row in Spool(spool_dir).list()] == [("pending", 7)] * 2
    assert spool.cancel("a") == "cancelled"


def test_a_cancel_that_the_disk_refuses_in_the_middle_leaves_the_job_waiting(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in dead/ already when its reason cannot be put there; the others are cancelled."""
    spool = Spool(spool_dir)
    for name in "abc":
        spool.enqueue("true", id=name)
    put = files.rename_over

    def refuse(source: str, target: str) -> None:
        if target.endswith("b.json"):
            raise OSError(5, "Input/output error", target)
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "rename_over", refuse)
        results = spool.cancel_many(list("abc"))

    assert [type(results[name]).__name__ for name in "abc"] == ["str", "SpoolError", "str"]
    assert [where_is(spool_dir, name) for name in "abc"] == [["dead"], ["pending"], ["dead"]]
    assert spool.get("b").last_error is None
    assert not list((spool_dir / "tmp").iterdir())


def test_an_edit_just_before_a_cancel_is_kept(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is written before the job moves: what somebody saves meanwhile must not be lost."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    path = spool_dir / "pending" / "a.json"
    move = files.move_to_free_name
    edits = iter([path.read_bytes().replace(b'"true"', b'"echo edited"')])

    def edited(source: str, folder: str, name: str) -> str:
        for text in edits:
            path.write_bytes(text)
        return move(source, folder, name)

    monkeypatch.setattr(files, "move_to_free_name", edited)

    assert spool.cancel("a") == "cancelled"
    assert load(spool_dir / "dead" / "a.json")["command"] == "echo edited"


def test_a_job_that_is_not_ended_in_time_is_not_said_to_be_cancelled(spool_dir: Path) -> None:
    """Its worker does not answer; the request stays with it."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    assert claim_job(spool._storage, listing.one(spool, "a"), worker.name)
    began = time.monotonic()
    try:
        assert spool.cancel("a", timeout=0.2) == "ending"
        assert 0.2 <= time.monotonic() - began < 10
    finally:
        worker.release()
