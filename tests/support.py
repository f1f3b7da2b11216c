"""What tests share: real processes, real files, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from command_server import CommandServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import psutil

    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.storage.transitions import Claim, Storage

T = TypeVar("T")
COMMANDS = CommandServer()
JOB_FOLDERS = ("pending", "processing", "done", "dead")
PLACES = {"pending": "pending", "processing": "processing/worker-0", "completed": "done", "dead": "dead"}
"""Where a job of each state lies."""


def wait_until(
    condition: Callable[[], T], timeout: float = 15, message: str | Callable[[], object] = "the condition"
) -> T:
    """Call condition until it returns something true, and return that.

    Args:
        timeout: seconds after which the test fails.
        message: what was waited for; a callable is asked at the end, for a look at how things stand.
    """
    end = time.monotonic() + timeout
    pause = 0.002
    while not (found := condition()):
        if time.monotonic() > end:
            told = message() if callable(message) else message
            raise AssertionError(f"waited {timeout:g} s in vain for {told}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return found


def first_ready(index: Index) -> Row | None:
    """The job that the index suggests next."""
    return next(iter(index.ready(1)), None)


def claim_job(storage: Storage, row: Row, worker: str) -> Claim | None:
    """Claim one waiting job and read it, as a worker does."""
    from queuectl.storage.claim import claim_files, read_claim

    with storage.index.moving():
        taken = claim_files(storage, [row], worker)
    return read_claim(storage, *taken[0]) if taken else None


def cpu_in(process: psutil.Process, seconds: float) -> float:
    """How many CPU seconds a process uses in so many seconds of clock time.

    Counted, where the system does so: the usual figure is a sample at each tick of a clock, and who sleeps by that same
    clock is seen awake three times as often as it is.
    """
    before = _used_by(process)
    time.sleep(seconds)
    return _used_by(process) - before


def _used_by(process: psutil.Process) -> float:
    threads = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    if threads:
        return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def run_cli(
    *args: str | os.PathLike[str],
    expect: int | None = None,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 40,
) -> subprocess.CompletedProcess[str]:
    """Run `queuectl ARGS` as a process of its own, as a user would; command_server.py says how it is started.

    Args:
        expect: the exit code to insist on; None: whatever comes.
        env: variables on top of the test's own.
        timeout: seconds.
    """
    words = [str(arg) for arg in args]
    environment = {**os.environ, **(env or {})}
    done = COMMANDS.run(words, stdin or "", environment, os.path.abspath(cwd or ""), timeout)
    if done is None:
        done = subprocess.run(
            [sys.executable, "-m", "queuectl", *words],
            input=stdin or "",
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            env=environment,
            cwd=cwd,
            timeout=timeout,
        )
    if expect is not None and done.returncode != expect:
        raise AssertionError(
            f"queuectl {' '.join(words)}: exit {done.returncode}, not {expect}\n"
            f"--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        )
    return done


def drop(spool: Path, name: str, /, **fields: Any) -> Path:
    """Put a job file into pending/ as a careful producer does: written in tmp/, then renamed.

    Args:
        name: the file's name without .json.
    """
    return drop_bytes(spool, f"{name}.json", json.dumps(fields).encode())


def drop_bytes(spool: Path, name: str, data: bytes, folder: str = "pending") -> Path:
    """Put any bytes under any name into a folder of the spool, all at once."""
    (spool / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
    (spool / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    spool.chmod(0o700)
    scratch = spool / "tmp" / f".{name}.{os.getpid()}.tmp"
    scratch.write_bytes(data)
    return scratch.rename(spool / folder / name)


def load(path: Path) -> dict[str, Any]:
    """Read a job file as plain JSON, without any of queuectl's own code."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    return record


def content(folder: Path) -> dict[str, object]:
    """Everything below a folder by its name: mode, owner, inode, times of change, and bytes."""
    found: dict[str, object] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        name = str(path.relative_to(folder))
        found[name] = (
            status.st_mode,
            status.st_uid,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            data,
        )
    return found


def with_fields(one: T, **changes: Any) -> T:
    """Return a copy of an object of plain fields (queuectl.fast_start.dataclass) with some of them changed."""
    names = type(one).__match_args__  # type: ignore[attr-defined] # each of those classes has it
    return type(one)(**{name: getattr(one, name) for name in names} | changes)


def delete_folder(folder: Path) -> None:
    """Delete a folder while others write into it: a file that comes in between keeps it for another try."""

    def is_deleted() -> bool:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            return False
        return True

    wait_until(is_deleted)


def where_is(spool: Path, job_id: str) -> list[str]:
    """Every place in which the job's file lies, as "pending" or "processing/worker-0"; one, if all is well."""
    found = []
    for folder in JOB_FOLDERS:
        # Not rglob: it fails over a folder that a worker moves away while it looks.
        seen = os.walk(spool / folder)
        holders = sorted(at for at, folders, names in seen if f"{job_id}.json" in (*folders, *names))
        found += [Path(at).relative_to(spool).as_posix() for at in holders]
    return found


def finished(spool: Path, *job_ids: str) -> bool:
    """Whether each of these jobs lies in done/ or dead/, and nowhere else."""
    return all(where_is(spool, job_id) in (["done"], ["dead"]) for job_id in job_ids)


def drain(
    spool: Path,
    *,
    now: Callable[[], float] = time.time,
    wait_retries: bool = False,
) -> list[str]:
    """Run a worker in this process until nothing is left to do now; returns the lines it said.

    Args:
        now: its wall clock, in epoch seconds, for what would take too long by a real one.
    """
    from queuectl import Worker

    said: list[str] = []
    Worker(spool, drain=True, wait_retries=wait_retries, say=said.append, now=now).run()
    return said


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every live process, not this one, whose QUEUECTL_SPOOL lies in (or is) this folder."""
    import psutil

    inside = str(folder)
    found = []
    for process in psutil.process_iter():
        try:
            named = process.environ().get("QUEUECTL_SPOOL", "")
            ours = named == inside or named.startswith(inside + os.sep)
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or not ours to look at
    return found


def _forbid_writing(folder: Path, before: dict[Path, int]) -> None:
    """Take write permissions from a folder, then from what is in it; `before` gets the modes as they were."""
    before[folder] = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(before[folder] & ~0o222)
    # Only now: nothing can come or go any more.
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            _forbid_writing(path, before)
        elif path.is_file():
            before[path] = stat.S_IMODE(path.stat().st_mode)
            path.chmod(before[path] & ~0o222)


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Kill them and wait until they are gone."""
    import psutil

    victims = list(processes)
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(victims, timeout=5)


def end_workers(spool: Path) -> None:
    """Leave nothing of this spool running: ask its workers first, then kill what is left."""
    from queuectl.control import registry
    from queuectl.layout import Layout

    # Workers of the default spool were told of it by no variable.
    if not processes_of(spool) and not registry.live_workers(Layout(spool)):
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        run_cli("--spool", spool, "worker", "stop", "--force", timeout=20)
    wait_until(lambda: end_all(left) if (left := processes_of(spool)) else True, message="an empty spool")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write into a folder and what is in it for a while, root included.

    Root gets a mount, or the test is skipped. Everybody else may not mount, and takes all write permissions away.
    """
    import pytest

    if os.geteuid() != 0:
        before: dict[Path, int] = {}
        try:
            _forbid_writing(folder, before)
            yield
        finally:
            for path, mode in before.items():
                path.chmod(mode)
        return
    here = str(folder)
    for command in (["mount", "--bind", here, here], ["mount", "-o", "remount,bind,ro", here]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", here], capture_output=True, check=False)
            pytest.skip("root may write everywhere here, and mount nothing")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", here], check=True)


@contextlib.contextmanager
def no_thread_to_have() -> Iterator[None]:
    """The machine is at its limit of processes: no thread can be started until the end of this block."""
    from unittest import mock

    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        yield
