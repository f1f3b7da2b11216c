"""A disk that refuses: nothing half-visible, one clear line, the right exit code, and going on when it is well again."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import faults
import pytest
import sweeps
from stories import STORIES, finish, set_up

from queuectl import Spool, Worker
from queuectl.errors import QueuedUnsafely, SpoolError
from queuectl.layout import Layout
from queuectl.system import files, safe_open

import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(7200 if sweeps.FULL else 240)

ERRORS = {"ENOSPC": 4, "EDQUOT": 4, "EIO": 3, "EROFS": 3, "EACCES": 3, "EMFILE": 3}
"""What the kernel says, and the exit code that it must become."""
CALLS = ("openat", "write", "pwrite64", "ftruncate", "fsync", "linkat", "unlink", "mkdir")
STRIDES = {"pwrite64": 7, "openat": 2}
WORKER_STRIDES = {"openat": 9, "read": 9, "unlink": 2}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ERRORS)
def test_enqueue_is_refused_cleanly_or_done(
    error: str, call: str, server: faults.Server, spool_dir: Path
) -> None:
    """Whichever call the disk refuses, the job is queued and exit is 0, or nothing is and the exit code says why."""
    spool_dir.parent.joinpath("home").chmod(0o700)
    Layout(spool_dir).create()
    tried = 0
    every = STRIDES.get(call, 1)
    for number in sweeps.points(every):
        out, err = (spool_dir.with_name(f"{name}{number}") for name in ("out", "err"))
        words = ["enqueue", "--id", f"a{number}", "--command", "true", "--cwd", "/"]
        inject = f"{call}:error={error}:when={number}"
        answer = server.faulted(spool_dir, "cli", inject, words=words, stdout=str(out), stderr=str(err))
        assert not answer["killed"], answer
        assert "value" in answer, (call, number, answer)
        told = err.read_text(encoding="utf-8") if err.exists() else ""
        here = f"{call} number {number}: exit {answer['value']}: {told}"
        queued = spool_dir / "pending" / f"a{number}.json"
        if answer["value"] == 0:
            assert support.load(queued)["id"] == f"a{number}", here
        elif "cannot write the output" in told:
            assert queued.exists(), here  # the job is in, only its name could not be printed
        else:
            assert answer["value"] == ERRORS[error], here
            assert told.startswith("error: "), here
            assert told.count("\n") == 1, here
            assert not queued.exists(), here
        if call != "unlink":
            assert not list((spool_dir / "tmp").iterdir()), here
        if not answer["hit"]:
            break
        tried += 1
    print(f"points: {tried}")
    assert tried or call in {"mkdir", "rename", "ftruncate"} or sweeps.has_begun_late(every)
    states = dict(server.do(spool_dir, "look"))
    files = {path.stem for path in (spool_dir / "pending").glob("*.json")}
    assert set(states) == files


BY_HAND = {
    "requeued": (["dlq", "retry", "a"], "dead", "pending"),
    "cancelled": (["cancel", "a"], "pending", "dead"),
    "cleared": (["clear", "--yes"], "dead", ""),
}


@pytest.mark.parametrize("call", ["openat", "write", "fsync", "renameat2", "rename", "unlink"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_refused_command_leaves_the_job_in_one_state(
    name: str, call: str, server: faults.Server, spool_dir: Path
) -> None:
    """A retry, a cancel or a clear that the disk refuses says so in one line, and the job is where it was, or where it goes."""
    words, before, after = BY_HAND[name]
    tried = 0
    errors = list(ERRORS.items())
    for first in range(len(errors) if sweeps.FULL else 1):
        for number in sweeps.points(3 if call == "openat" else 1):
            error, code = errors[(first + number) % len(errors)]
            spool, out, err = (
                spool_dir.with_name(f"{what}{error}{number}") for what in ("spool", "out", "err")
            )
            set_up(STORIES[name], server, spool, spool.with_name(f"{spool.name}.runs"))
            inject = f"{call}:error={error}:when={number}"
            answer = server.faulted(spool, "cli", inject, words=words, stdout=str(out), stderr=str(err))
            told = err.read_text(encoding="utf-8")
            here = f"{call} number {number}, {error}: {answer}: {told}"
            assert answer.get("value") in (0, code), here
            beginning = "note: cannot write the output" if answer["value"] == 0 else "error: "
            assert told.startswith(beginning) or (answer["value"] == 0 and not told), here
            assert told.count("\n") == bool(told), here
            found = faults.places(spool).get("a", [""])
            if answer["value"] == 0:
                assert found == [after], here
            else:
                # A cancel waits for the names when its jobs are moved: if that fails they are given up.
                # The wait is an openat of the folder, and an fsync.
                undone = name == "cancelled" and call not in {"openat", "fsync"}
                assert found in ([[before]] if undone else [[before], [after]]), here
            assert dict(server.do(spool, "look")).get("a", "") == found[0], here
            shutil.rmtree(spool)
            if not answer["hit"]:
                break
            tried += 1
    print(f"points: {tried}")


def test_two_who_send_a_job_back_make_one_of_it(server: faults.Server, spool_dir: Path) -> None:
    """Of two retries of a dead job at the same moment one is refused, and the job runs once."""
    runs = spool_dir.with_name("runs")
    for number in range(8):
        spool = spool_dir.with_name(f"spool{number}")
        set_up(STORIES["requeued"], server, spool, runs)
        pids = [server.fork(spool, "retry", id="a") for _ in range(2)]
        for pid in pids:
            server.go(pid)
        answers = [server.end(pid) for pid in pids]
        assert faults.places(spool) == {"a": ["pending"]}, answers
        assert sum("value" in answer for answer in answers) == 1, answers
        refused = next(answer for answer in answers if "value" not in answer)
        assert refused["exit_code"] == 1, refused


WORKER_STORIES = (
    ("done", "done, on_crash dead", "failed", "buried", "recovered", "dropped", "several in hand")
    if sweeps.FULL
    else ("done, on_crash dead", "failed", "recovered", "several in hand")
)
WORKER_CALLS = (
    "openat",
    "write",
    "ftruncate",
    "fsync",
    "renameat2",
    "rename",
    "unlink",
    "mkdir",
    "syncfs",
    "read",
)


@pytest.mark.parametrize("call", WORKER_CALLS)
@pytest.mark.parametrize("name", WORKER_STORIES)
def test_a_worker_outlives_a_refusal(name: str, call: str, server: faults.Server, spool_dir: Path) -> None:
    """One refused call, whichever, ends no worker that has begun, loses no outcome, and makes no job run twice."""
    story = STORIES[name]
    errors = list(ERRORS) if sweeps.FULL else ["EIO" if call in {"openat", "read", "unlink"} else "ENOSPC"]
    tried = 0
    for error in errors:
        for number in sweeps.points(WORKER_STRIDES.get(call, 1)):
            spool = spool_dir.with_name(f"spool{error}{number}")
            runs = spool.with_name(f"{spool.name}.runs")
            request = set_up(story, server, spool, runs)
            request["how"] = {**request.get("how", {}), "inline": True}
            inject = f"{call}:error={error}:when={number}"
            answer = server.faulted(spool, story.move, inject, **request)
            here = f"{call} number {number}, {error}: {answer}"
            assert not answer["killed"], here
            # A worker that cannot even register says so and exits; see the command's exit codes.
            assert "error" not in answer or answer["exit_code"] in (3, 4), here
            finish(server, spool)
            found = faults.places(spool)
            assert found.get("a") in [[end] for end in story.ends[False]], (here, found)
            expected = {"failed": 2, "recovered, on_crash dead": 0}.get(name, 1)
            noted = runs.exists()
            assert faults.runs(runs)["a"] == expected or not noted, here
            if name == "several in hand":
                assert faults.runs(runs) == dict.fromkeys("abcde", 1) or not noted, here
            shutil.rmtree(spool)
            if not answer["hit"] or (call in {"openat", "read"} and name == "recovered" and number > 150):
                break
            tried += 1
    print(f"points: {tried}")


# -- full disks --------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(kind: str, base: Path) -> Iterator[Path]:
    """A disk that can be filled up: 16 MiB of ext4, or a tmpfs with few inodes."""
    if kind == "ext4":
        with faults.disk(base, "ext4", 16, "-m", "0") as made:
            yield made.at
        return
    at = base / "tmpfs"
    at.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=400", "tmpfs", str(at)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        faults.must_not_skip("cannot mount a tmpfs")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(at: Path, kind: str) -> Callable[[], None]:
    """Leave no byte, or no inode; returns what gives the room back."""
    folder = at / "filler"
    folder.mkdir()
    with suppress(OSError):
        if kind == "ext4":
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError), (folder / f"{size}").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(size))
        for number in range(100_000):
            (folder / f"n{number}").write_bytes(b"x" if kind == "ext4" else b"")
    return lambda: shutil.rmtree(folder)


@contextmanager
def at_work(spool: Path) -> Iterator[list[str]]:
    """A worker in a thread; what it says."""
    said: list[str] = []
    worker = Worker(spool, say=said.append)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield said
    finally:
        worker.stop(force=True)
        thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("on_crash", ["retry", "dead"])
@pytest.mark.parametrize("kind", ["ext4", "inodes"])
def test_work_goes_on_from_a_disk_filled_to_the_last_byte(
    kind: str, on_crash: str, tmp_path: Path, spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """Filled up under a running job: its outcome is recorded, no other starts, enqueue is refused, and room heals all."""
    go = tmp_path / "go"
    with small_disk(kind, tmp_path) as at:
        spool_path = at / "spool"
        spool = Spool(spool_path)
        waiting = f"echo out; while [ ! -e {go} ]; do sleep 0.02; done; echo ran >> {tmp_path}/ran"
        spool.enqueue(waiting, id="first", timeout=60, on_crash=on_crash)
        spool.enqueue(f"echo next >> {tmp_path}/ran", id="next", priority=1)
        with at_work(spool_path) as said:
            support.wait_until(lambda: support.where_is(spool_path, "first") == ["processing/worker-0"])
            support.wait_until(lambda: list((spool_path / "data" / "workers").glob("worker-0.out")))
            empty = fill(at, kind)
            refused = cli("--spool", spool_path, "enqueue", "true", expect=4)
            assert refused.stderr.count("\n") == 1, refused.stderr
            assert refused.stdout == ""
            assert [path.name for path in (spool_path / "pending").iterdir()] == ["next.json"]
            assert not [path for path in (spool_path / "tmp").iterdir() if path.is_file()]
            support.wait_until(lambda: any("pausing" in line for line in said), message=lambda: said)
            go.touch()
            support.wait_until(
                lambda: support.where_is(spool_path, "first") == ["done"], message=lambda: said
            )
            record = support.load(spool_path / "done" / "first.json")
            assert record["exit_code"] == 0
            assert record["state"] == "completed"
            assert support.where_is(spool_path, "next") == ["pending"]
            status = cli("--spool", spool_path, "status", expect=0)
            assert "start nothing" in status.stdout + status.stderr
            empty()
            cli("--spool", spool_path, "enqueue", "--id", "late", "true", expect=0)
            support.wait_until(
                lambda: support.finished(spool_path, "first", "next", "late"), message=lambda: said
            )
        assert (tmp_path / "ran").read_text(encoding="ascii") == "ran\nnext\n"
        assert any("resuming" in line for line in said)


def test_an_outcome_too_long_for_a_full_disk_loses_its_output_only(tmp_path: Path) -> None:
    """If the record does not fit into what is kept for it, the outcome is recorded without the output."""
    go = tmp_path / "go"
    with small_disk("ext4", tmp_path) as at:
        spool_path = at / "spool"
        spool = Spool(spool_path)
        spool.refresh()
        (spool_path / "config.yaml").write_text("output_limit: 65536\n", encoding="utf-8")
        (spool_path / "config.yaml").chmod(0o600)
        flood = "head -c 70000 /dev/zero | tr '\\0' x"
        command = f"{flood}; {flood} >&2; while [ ! -e {go} ]; do sleep 0.02; done; exit 3"
        spool.enqueue(command, id="a", timeout=60, max_retries=1)
        with at_work(spool_path) as said:
            err = spool_path / "data" / "workers" / "worker-0.err"
            support.wait_until(lambda: err.exists() and err.stat().st_size == 70_000)
            fill(at, "ext4")
            go.touch()
            support.wait_until(lambda: support.where_is(spool_path, "a") == ["dead"], message=lambda: said)
        record = support.load(spool_path / "dead" / "a.json")
        assert record["exit_code"] == 3
        assert "left out, as the disk is full" in record["output"]
        assert (spool_path / "logs" / "a.1.out").stat().st_size == 70_000


def test_a_disk_read_only_for_a_moment_stops_nothing_for_good(
    tmp_path: Path, spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """Read-only under a running job: enqueue is refused with exit 3, and the outcome is recorded when that is over."""
    go, began = tmp_path / "go", tmp_path / "began"
    spool = Spool(spool_dir)
    command = f"touch {began}; while [ ! -e {go} ]; do sleep 0.02; done; echo ran >> {tmp_path}/ran"
    spool.enqueue(command, id="a", timeout=60)
    with at_work(spool_dir) as said:
        support.wait_until(began.exists)
        with support.read_only(spool_dir):
            refused = cli("enqueue", "true", expect=3)
            assert refused.stderr.count("\n") == 1, refused.stderr
            cli("purge", "--keep", "1", "--dry-run", expect=0)
            go.touch()
            support.wait_until(lambda: any("cannot record" in line for line in said), message=lambda: said)
            assert cli("list", expect=0).stdout.startswith("a - processing")
        support.wait_until(lambda: support.finished(spool_dir, "a"), message=lambda: said)
        spool.enqueue("true", id="b")
        support.wait_until(lambda: support.finished(spool_dir, "b"), message=lambda: said)
    assert (tmp_path / "ran").read_text(encoding="ascii") == "ran\n"


# -- the index ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["deleted", "zeros", "folder", "random"])
def test_a_broken_index_fails_no_enqueue(trouble: str, spool_dir: Path, cli: Callable[..., Any]) -> None:
    """Whatever became of the index, a job whose file is durable is queued, listed and run."""
    cli("enqueue", "true", "--id", "before", expect=0)
    cli("status", expect=0)
    index = spool_dir / "data" / "queuectl.db"
    for path in index.parent.glob("queuectl.db*"):
        path.unlink()
    if trouble == "zeros":
        index.write_bytes(bytes(20_000))
    elif trouble == "random":
        index.write_bytes(b"SQLite format 3\0" + b"\xa5" * 20_000)
    elif trouble == "folder":
        index.mkdir()
    cli("enqueue", "true", "--id", "after", expect=0)
    listed = cli("list", expect=0).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["before", "after"]
    support.drain(spool_dir)
    assert support.finished(spool_dir, "before", "after")


def test_a_locked_index_fails_no_enqueue(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who holds the index for longer than we wait cannot keep a job out."""
    monkeypatch.setattr("queuectl.index.database.WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr("queuectl.index.database.WORKER_TIMEOUT", 0.2)
    Spool(spool_dir).refresh()
    holder = sqlite3.connect(spool_dir / "data" / "queuectl.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        Spool(spool_dir).enqueue("true", id="a")
        Spool(spool_dir).enqueue("true", id="b")
        assert sorted(path.name for path in (spool_dir / "pending").iterdir()) == ["a.json", "b.json"]
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert [row.id for row in Spool(spool_dir).list()] == ["a", "b"]


def _enqueue(spool: Spool, names: str) -> None:
    if len(names) == 1:
        spool.enqueue("true", id=names)
    else:
        spool.enqueue_many({"id": name, "command": "true"} for name in names)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_what_a_worker_took_before_the_disk_refused_is_not_said_to_be_refused(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """It runs: handed in again, it would run twice. What nobody took is taken back."""
    spool = Spool(spool_dir)
    worker = Worker(spool_dir, drain=True)
    real = files.sync_folder

    def refuse(path: str) -> None:
        if path != spool.layout.pending:
            return real(path)
        with monkeypatch.context() as patch:  # a worker is quicker than the disk
            patch.setattr(files, "sync_folder", real)
            for name in ("b", "c"):
                with suppress(FileNotFoundError):
                    (spool_dir / "pending" / f"{name}.json").rename(spool_dir / "tmp" / f"{name}.json")
            worker.run()
            for name in ("b", "c"):
                with suppress(FileNotFoundError):
                    (spool_dir / "tmp" / f"{name}.json").rename(spool_dir / "pending" / f"{name}.json")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_folder", refuse)
    names = "abc" if many else "a"
    with pytest.raises(QueuedUnsafely) as caught:
        _enqueue(spool, names)
    monkeypatch.undo()
    assert caught.value.job_ids == ["a"]
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("job a is queued and may run, but may not survive a power cut: ")
    assert support.where_is(spool_dir, "a") == ["done"]
    assert [row.id for row in Spool(spool_dir).list()] == ["a"]


def test_what_nobody_took_before_the_disk_refused_is_refused(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plainly, and nothing is queued."""
    spool = Spool(spool_dir)
    spool.refresh()

    def refuse(_path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_folder", refuse)
    with pytest.raises(SpoolError) as caught:
        spool.enqueue("true", id="a")
    assert not isinstance(caught.value, QueuedUnsafely)
    assert support.where_is(spool_dir, "a") == []
    assert Spool(spool_dir).list() == []


def test_a_file_that_could_not_be_read_once_is_not_given_up(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rights allow it, so the refusal was the disk's: the next look reads it."""
    drop = support.drop(spool_dir, "job", command="true")
    real = safe_open.read_regular
    refused: list[str] = []
    is_ill = True

    def refuse(path: str, limit: int) -> tuple[bytes, os.stat_result]:
        if path == str(drop) and is_ill:
            refused.append(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, limit)

    monkeypatch.setattr(safe_open, "read_regular", refuse)
    Spool(spool_dir).list()
    assert refused
    assert support.where_is(spool_dir, "job") == ["pending"]
    is_ill = False
    support.drain(spool_dir)
    assert support.where_is(spool_dir, "job") == ["done"]
