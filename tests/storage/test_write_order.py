"""What reaches the disk in which order: each move, as the list of its syncs, renames and deletions.

A power cut can be tried only where disks can be mounted; this tells everywhere, within milliseconds, which sync is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if sys.platform != "linux":
    pytest.skip("descriptors are named by /proc", allow_module_level=True)

from queuectl import Spool, Worker
from queuectl.config import change
from queuectl.config.settings import Settings
from queuectl.errors import SpoolError
from queuectl.executor.local import LocalRunner
from queuectl.job.outcome import Ending, Outcome
from queuectl.storage import dead_letters, file_pool, job_logs, power_loss, quarantine, recovery
from queuectl.storage.claim import claim_files, note_running
from queuectl.storage.settle import settle, settle_all
from queuectl.system import files

from support import claim_job, drop, drop_bytes, first_ready, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.executor.base import Attempt, Running

_SCRATCH = re.compile(r"\.[a-z2-7]{16}\.tmp")


class Recorder:
    """Writes down what is done to the files of one spool, in words, in order."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.events: list[str] = []

    def short(self, path: str | bytes | os.PathLike[str]) -> str:
        """A path as seen from the spool."""
        name = os.fsdecode(path).removesuffix(" (deleted)")
        inside = os.path.relpath(name, self._root)
        return "elsewhere" if inside.startswith("..") else _SCRATCH.sub("SCRATCH", inside)

    def note(self, event: str) -> None:
        """Add an event, unless it is none of a job's business."""
        # A look at how fine the times of files are is no move.
        if not any(word in event for word in ("elsewhere", "queuectl.db", "SCRATCH2", "delete tmp/SCRATCH")):
            self.events.append(event)

    def take(self) -> list[str]:
        """What happened since the last time."""
        found, self.events = self.events, []
        return found


@pytest.fixture
def recorder(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(spool_dir)

    def after(call: Callable[..., Any], tell: Callable[..., str]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            event = tell(*arguments)
            answer = call(*arguments, **named)
            if answer in (None, 0):
                made.note(event)
            return answer

        return wrapped

    def opened(fd: int) -> str:
        return made.short(os.readlink(f"/proc/self/fd/{fd}"))

    def moved(source: Any, target: Any) -> str:
        return f"{made.short(source)} -> {made.short(target)}"

    monkeypatch.setattr(os, "fsync", after(os.fsync, lambda fd: f"sync {opened(fd)}"))
    monkeypatch.setattr(os, "rename", after(os.rename, moved))
    monkeypatch.setattr(os, "replace", after(os.replace, moved))
    monkeypatch.setattr(os, "link", after(os.link, moved))
    monkeypatch.setattr(os, "unlink", after(os.unlink, lambda path: f"delete {made.short(path)}"))
    monkeypatch.setattr(files, "_renameat2", after(files._renameat2, lambda *a: moved(a[1], a[3])))
    send = after(files._sync_file_range, lambda fd, *_: f"send ahead {opened(fd)}")
    monkeypatch.setattr(files, "_sync_file_range", send)
    monkeypatch.setattr(files, "_syncfs", after(files._syncfs, lambda fd: f"sync all{opened(fd)[:0]}"))
    return made


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    made = Spool(spool_dir)
    made.refresh()
    return made


def claimed(spool: Spool, job_id: str, *, worker: str = "worker-0") -> Any:
    spool.refresh()
    row = spool._index.get(job_id)
    assert row
    os.makedirs(spool.layout.claims(worker), exist_ok=True)
    claim = claim_job(spool._storage, row, worker)
    assert claim
    claim.job.fill_in(Settings())
    return claim


@pytest.mark.parametrize("first", [True, False], ids=["the first", "a later one"])
def test_enqueue_syncs_the_bytes_before_the_name_and_the_name_before_it_returns(
    first: bool, spool: Spool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is on the disk without its bytes is an empty job; bytes without a name are no job at all."""
    monkeypatch.setattr(files, "_has_synced_data", not first)

    spool.enqueue("true", id="a")

    assert recorder.take() == [
        "sync tmp/SCRATCH" if first else "send ahead tmp/SCRATCH",
        "tmp/SCRATCH -> pending/a.json",
        "sync tmp/SCRATCH",
        "sync pending",
    ]


@pytest.mark.parametrize("at_once", [True, False], ids=["syncfs", "one by one"])
def test_many_are_synced_before_any_of_them_has_a_name(
    at_once: bool, spool: Spool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wait for all the bytes, then the names, then one wait for the names."""
    monkeypatch.setattr(files, "HAS_SYNCFS", at_once)

    spool.enqueue_many([{"id": "a", "command": "true"}, {"id": "b", "command": "true"}])

    synced = ["sync all"] if at_once else ["sync tmp/SCRATCH"] * 2
    names = ["tmp/SCRATCH -> pending/a.json", "tmp/SCRATCH -> pending/b.json"]
    assert recorder.take() == [*synced, *names, "sync pending"]


def test_an_outcome_is_on_the_disk_before_the_claim_goes(spool: Spool, recorder: Recorder) -> None:
    """Without recycled files: bytes, name, folder, and only then the claimed file."""
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a")
    recorder.take()

    settle(spool._storage, claim, "completed")

    assert recorder.take() == [
        "sync tmp/SCRATCH", "tmp/SCRATCH -> done/a.json", "sync done", "delete processing/worker-0/a.json",
    ]  # fmt: skip


def test_an_outcome_that_cannot_wait_is_synced_at_once(spool: Spool, recorder: Recorder) -> None:
    """With recycled files, for a command that must not run twice, and where the disk has no room to hold a copy."""
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a")
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)
    recorder.take()

    settle(spool._storage, claim, "completed", mine, at_once=True)

    assert recorder.take() == [
        "tmp/SCRATCH -> done/a.json", "sync all", "delete processing/worker-0/a.json",
    ]  # fmt: skip
    mine.close()


@pytest.mark.parametrize("at_once", [True, False], ids=["syncfs", "one by one"])
def test_a_claimed_file_is_held_until_its_outcome_is_synced(
    at_once: bool, spool: Spool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held by a rename, then a sync, then free to be written; what somebody else wrote is never written by us."""
    monkeypatch.setattr(files, "HAS_SYNCFS", at_once)
    spool.enqueue("true", id="a")
    drop(spool_dir := spool_of(spool), "b", command="true")
    claims = [claimed(spool, "a"), claimed(spool, "b")]
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)
    recorder.take()

    for claim in claims:
        settle(spool._storage, claim, "completed", mine)
    mine.flush()
    wait_until(lambda: list((spool_dir / "data" / "workers").glob("worker-0.spare.*")))

    batch = f"data/workers/worker-0.held.{power_loss.short('boot')}.1"
    synced = (
        ["sync all"]
        if at_once
        else ["sync done/a.json", "sync done/b.json", "sync done", "sync dead", "sync pending"]
    )
    assert recorder.take() == [
        "tmp/SCRATCH -> done/a.json",
        f"processing/worker-0/a.json -> {batch}/a~0.json",
        "tmp/SCRATCH -> done/b.json",
        f"processing/worker-0/b.json -> {batch}/b~1.json",
        *synced,
        f"delete {batch}/b~1.json",
        f"{batch} -> data/workers/worker-0.spare.1",
    ]
    mine.close()


def test_a_job_that_waits_again_is_not_claimed_in_the_transaction_that_settles_it(
    spool: Spool, recorder: Recorder
) -> None:
    """Its own claimed file would be in the way, so the index would forget the job, and all of pending/ be read again."""
    spool.enqueue("true", id="a")
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)
    claim = claimed(spool, "a")
    claim.state = "pending"

    def claim_next() -> None:
        row = first_ready(spool._index)
        if row is not None:
            claim_files(spool._storage, [row], "worker-0")

    settle_all(spool._storage, [claim], mine, then=claim_next)
    mine.close()
    recorder.take()

    assert where_is(spool_of(spool), "a") == ["pending"]
    known = spool._index.get("a")
    assert known is not None
    assert known.place == "pending"


def spool_of(spool: Spool) -> Path:
    from pathlib import Path

    return Path(spool.layout.root)


def test_the_reserve_for_a_full_disk_has_its_blocks(spool: Spool, recorder: Recorder) -> None:
    """A file without blocks is no reserve: it has them for sure once it was synced."""
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)

    assert recorder.take() == ["sync data/workers/worker-0.reserve"]
    mine.close()


def test_back_from_dead_is_mended_where_it_lies_then_moved_then_synced(
    spool: Spool, recorder: Recorder
) -> None:
    """A retry that was reported has happened, after a power cut too."""
    spool.enqueue("true", id="a")
    spool.cancel("a")
    recorder.take()

    spool.retry("a")

    assert recorder.take() == [
        "sync tmp/SCRATCH", "tmp/SCRATCH -> dead/a.json", "dead/a.json -> pending/a.json", "sync pending", "sync dead",
    ]  # fmt: skip


def test_given_up_is_written_then_moved_then_mended(spool: Spool, recorder: Recorder) -> None:
    """What the disk refuses is refused before anything moves; the reason is replaced as a whole, on the disk."""
    spool.enqueue("true", id="a")
    recorder.take()

    spool.cancel("a")

    assert recorder.take() == [
        "sync tmp/SCRATCH", "pending/a.json -> dead/a.json", "tmp/SCRATCH -> dead/a.json", "sync dead",
    ]  # fmt: skip


def test_what_is_deleted_stays_deleted(spool: Spool, recorder: Recorder) -> None:
    """A waiting job that comes back after a power cut would run."""
    spool.enqueue("true", id="a")
    spool.enqueue("true", id="b")
    recorder.take()

    spool.forget("a")
    one = recorder.take()
    spool.clear()

    assert one == ["delete pending/a.json", "sync pending"]
    assert recorder.take() == ["delete pending/b.json", "sync pending"]


def test_what_another_object_has_deleted_is_synced_wherever_it_was(spool: Spool, recorder: Recorder) -> None:
    """It cannot know where that was."""
    spool.enqueue("true", id="a")
    spool.forget("a", durable=False)
    recorder.take()

    Spool(spool.layout.root).sync_deletions()

    assert recorder.take() == ["sync dead", "sync done", "sync pending"]


class _Started(LocalRunner):
    """Writes down when a command is started, and starts none."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def start(self, attempt: Attempt) -> Running | Outcome:
        self._recorder.note(f"start {attempt.marks['QUEUECTL_JOB_ID']}")
        return Outcome(Ending.SUCCEEDED, 0, None, 0.0)


def test_a_command_that_must_not_run_twice_is_known_to_have_started(spool: Spool, recorder: Recorder) -> None:
    """Its claim is on the disk before its first instruction, in both folders, and its outcome at once."""
    spool.enqueue("true", id="a", on_crash="dead")
    recorder.take()

    Worker(spool.layout.root, drain=True, runner=_Started(recorder)).run()

    events = recorder.take()
    first = events.index("pending/a.json -> processing/worker-0/a.json")
    begun = events.index("start a")
    assert set(events[first:begun]) >= {"sync processing/worker-0", "sync processing", "sync pending"}
    rest = events[begun:]
    assert rest.index("tmp/SCRATCH -> done/a.json") < rest.index("sync all")
    assert rest.index("sync all") < rest.index("delete processing/worker-0/a.json")


def test_a_copy_left_by_a_crash_goes_only_when_the_later_one_is_synced(
    spool: Spool, recorder: Recorder
) -> None:
    """The worker died between outcome and deletion: nobody knows whether the outcome was synced."""
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a", worker="worker-7")
    earlier = claim.job.to_bytes()
    claim.job.history.append({"run": 1, "outcome": "succeeded"})
    settle(spool._storage, claim, "completed")
    (spool_of(spool) / "processing" / "worker-7" / "a.json").write_bytes(earlier)
    recorder.take()

    recovery.recover_claims(spool._storage, Settings(), print)

    events = recorder.take()
    assert events.index("sync all") < events.index("delete processing/worker-7/a.json")


def test_held_files_of_a_dead_worker_go_only_when_all_is_synced(spool: Spool, recorder: Recorder) -> None:
    """They vouch for outcomes that may not be on the disk."""
    folder = spool_of(spool) / "data" / "workers" / f"worker-7.held.{power_loss.short('boot')}.1"
    folder.mkdir()
    (folder / "a~0.json").write_text("{}")
    recorder.take()

    power_loss.sweep(spool.layout, "worker-7", "boot")

    events = recorder.take()
    assert events[0] == "sync all"
    assert not folder.exists()


def test_after_a_power_cut_a_job_is_back_on_the_disk_before_its_held_copies_go(
    spool: Spool, recorder: Recorder
) -> None:
    """The move back and the deletion of the other copies must not be torn apart by the next cut."""
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a")
    folder = spool_of(spool) / "data" / "workers" / "worker-0.held.0badb007.1"
    folder.mkdir()
    os.rename(claim.path, folder / "a~0.json")
    (folder / "a~1.json").write_bytes((folder / "a~0.json").read_bytes())
    recorder.take()

    assert power_loss.restore(spool.layout, "boot") == 1

    events = recorder.take()
    moved = next(number for number, event in enumerate(events) if event.endswith("-> pending/a.json"))
    gone = next(
        number for number, event in enumerate(events) if event.startswith("delete data/workers/worker-0.held")
    )
    assert moved < events.index("sync pending") < gone


def test_a_setting_is_on_the_disk(spool: Spool, recorder: Recorder) -> None:
    """Old or new, never half, also after a power cut."""
    change.set_value(spool.layout, "timeout", "9")

    assert recorder.take() == ["sync SCRATCH", "SCRATCH -> config.yaml", "sync ."]


def test_a_reason_is_there_beside_its_file(spool: Spool, recorder: Recorder) -> None:
    """What can never be a job goes to dead/ as it is. The reason comes first: without it, it may look like a job."""
    path = spool_of(spool) / "pending" / "bad.json"
    path.write_text('{"command": 5}')

    dead_letters.bury_file(spool._storage, str(path), "bad", "no job")

    assert recorder.take() == [
        "sync dead/SCRATCH", "dead/SCRATCH -> dead/bad.json.reason", "sync dead", "pending/bad.json -> dead/bad.json",
        "sync dead",
    ]  # fmt: skip


def test_a_running_job_is_noted_as_a_whole(spool: Spool, recorder: Recorder) -> None:
    """The claimed file may be the only copy: it is replaced, not written over."""
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a")
    recorder.take()

    note_running(spool._storage, [claim])

    place = "processing/worker-0"
    assert recorder.take() == [f"sync {place}/SCRATCH", f"{place}/SCRATCH -> {place}/a.json", f"sync {place}"]
    assert load(spool_of(spool) / place / "a.json")["state"] == "processing"


def test_what_is_put_aside_is_there_before_it_is_gone_here(spool: Spool, recorder: Recorder) -> None:
    """A repair that is cut short leaves the file twice rather than nowhere."""
    path = spool_of(spool) / "pending" / "odd"
    path.touch()

    quarantine.put(spool.layout, str(path), "odd", inode=path.stat().st_ino, now=0)

    assert recorder.take() == ["pending/odd -> data/aside/odd", "sync data/aside", "sync pending"]


def test_a_log_goes_only_when_its_compressed_copy_is_on_the_disk(spool: Spool, recorder: Recorder) -> None:
    """Whoever is killed, or cut off, in between has both."""
    log = spool_of(spool) / "logs" / "a.1.out"
    log.write_bytes(b"x" * 9000)

    assert job_logs.run_steps(job_logs.compress(spool.layout, time.time() + 10), 10)

    assert recorder.take() == [
        "sync tmp/SCRATCH",
        "tmp/SCRATCH -> logs/a.1.out.gz",
        "sync logs",
        "delete logs/a.1.out",
    ]


def test_a_mended_dead_letter_is_on_the_disk(spool: Spool, recorder: Recorder) -> None:
    """The old text or the new one lies in dead/, never half of it."""
    path = drop_bytes(spool_of(spool), "a.json", b"{", "dead")
    spool.refresh()
    recorder.take()

    spool.amend("a", b"{", b'{"command": "true"}')

    assert recorder.take() == ["sync tmp/SCRATCH", "tmp/SCRATCH -> dead/a.json", "sync dead"]
    assert load(path)["command"] == "true"


def test_a_sync_of_all_that_fails_is_an_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be acknowledged, or deleted, on the word of a sync that did not happen."""

    def refuse(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(files, "_syncfs", refuse)

    with pytest.raises(SpoolError, match="input/output error"):
        spool.enqueue_many([{"id": "a", "command": "true"}, {"id": "b", "command": "true"}])
    assert not list((spool_of(spool) / "pending").iterdir())
