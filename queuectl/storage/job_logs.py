"""The output of runs: moved to logs/, repeated in the job's record, read, and compressed when it is old.

A log can be read from its .gz as well. The .gz is complete and synced before the log is deleted. A process killed between
the two steps leaves both files; then the uncompressed log counts.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from queuectl.control import run_lock
from queuectl.layout import COMPRESSED
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from gzip import GzipFile
    from typing import BinaryIO

    from queuectl.job.outcome import Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout

SMALLEST = 4096
"""Bytes. A log that fits into one block of the disk would still need one block when compressed."""

CHUNK = 1 << 18
"""Bytes compressed in one step, which takes some milliseconds."""

_NAMES = (".out", ".err")
_BACKWARDS = 1 << 16
_BINARY = getattr(os, "O_BINARY", 0)


# -- after a run -------------------------------------------------------------------------------------------------------


def keep_output(layout: Layout, job: Job, slot: str, outcome: Outcome | None, *, limit: int) -> None:
    """Move the output files of a run to logs/, and repeat the end of the output in the record.

    Args:
        slot: the name of the slot in which it ran.
        outcome: how the run ended; None: its worker died.
        limit: bytes of each stream that the record repeats.

    Sets `outcome.printed` to the sizes of the two files, or to None if processes may still write to them.

    Raises:
        OSError: a file cannot be moved; the record still has the end of the output.
    """
    # A file that a process of this run may still write to must not be reused for the next run.
    retire = outcome is None or outcome.leftovers > 0
    if outcome is not None and outcome.printed == (0, 0) and not retire:
        job.output = ""
        return
    run = job.next_run
    parts = []
    sizes = []
    refused: OSError | None = None
    for stream in ("out", "err"):
        source, target = layout.worker_file(slot, stream), layout.log_file(job.id or "", run, stream)
        try:
            sizes.append(os.stat(source).st_size)
            if sizes[-1]:
                parts.append(tail(source, limit, whole=f"queuectl logs {job.id}"))
                _move_to_logs(source, target)
            elif retire:
                _move_to_logs(source, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = OSError(error.errno, error.strerror, target)
            with suppress(OSError):
                os.unlink(source)  # else a reader would take it for the output of the worker's next run
    job.output = _joined(parts)
    if outcome is not None:
        outcome.printed = None if retire or len(sizes) < 2 else (sizes[0], sizes[1])
    if refused is not None:
        raise refused


def copy_output(layout: Layout, job: Job, sources: Sequence[str], *, limit: int) -> tuple[int, int]:
    """Copy what a run on another machine has printed to logs/, and repeat its end in the record; return the bytes of both.

    Args:
        sources: the files with stdout and stderr. They may lie on another file system, and are read as a stranger's.
        limit: bytes of each stream that the record repeats.

    Raises:
        OSError: a file cannot be read or written.
    """
    sizes, parts = [], []
    for stream, source in zip(("out", "err"), sources, strict=True):
        target = layout.log_file(job.id or "", job.next_run, stream)
        sizes.append(_copy(layout, source, target))
        parts.append(tail(target, limit, whole=f"queuectl logs {job.id}") if sizes[-1] else "")
    job.output = _joined(parts)
    return sizes[0], sizes[1]


def _copy(layout: Layout, source: str, target: str) -> int:
    """Copy a file if it is one of ours and holds something, and return its bytes. A crash leaves no half of it."""
    try:
        fd = os.open(source, safe_open.SAFE_READ)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return 0
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or safe_open.has_other_owner(status) or not status.st_size:
            return 0
        scratch = os.path.join(layout.tmp, files.temporary_name())
        copied = files.write_new(scratch, os.read(fd, CHUNK), sync=False).st_size
        with open(scratch, "ab") as copy:
            while data := os.read(fd, CHUNK):
                copied += copy.write(data)
        os.makedirs(layout.logs, mode=0o700, exist_ok=True)  # somebody may have deleted it
        files.rename_over(scratch, target)
    finally:
        os.close(fd)
    return copied


def recall_output(layout: Layout, job: Job, *, limit: int) -> None:
    """Repeat in the record the output of a run whose files are in logs/ already; see `keep_output`."""
    logs = [layout.log_file(job.id or "", job.next_run, stream) for stream in ("out", "err")]
    job.output = _joined([tail(path, limit, whole=f"queuectl logs {job.id}") for path in logs])


def _joined(parts: Sequence[str]) -> str:
    """Return the output of both streams, one below the other."""
    texts = [part for part in parts if part]
    if len(texts) == 2 and not texts[0].endswith("\n"):
        texts[0] += "\n"
    return "".join(texts)


def _move_to_logs(source: str, target: str) -> None:
    try:
        _move(source, target)
    except FileExistsError:
        # An old log: of a deleted job with this id, or of this run before a crash.
        os.unlink(target)
        files.move(source, target)


def _move(source: str, target: str) -> None:
    try:
        files.move(source, target)
    except FileNotFoundError:
        if not os.path.lexists(source):
            raise
        with suppress(FileExistsError):  # another worker has just made it
            os.mkdir(os.path.dirname(target), 0o700)  # somebody deleted it
        files.move(source, target)


def job_of(name: str) -> str | None:
    """Return the id of the job whose output a file in logs/ has: ID.RUN.out or ID.RUN.err, with `.gz` or the like.

    None for other files.
    """
    parts = name.split(".")
    if f".{parts[-1]}" not in _NAMES:
        parts.pop()
    if len(parts) < 3 or f".{parts[-1]}" not in _NAMES or not (parts[-2].isascii() and parts[-2].isdecimal()):
        return None
    return ".".join(parts[:-2]) or None


# -- reading -----------------------------------------------------------------------------------------------------------


def output_file(layout: Layout, job: Job, run: int, stream: str) -> str | None:
    """Return the path of the output of a run, or None if there is none.

    All runs in a slot of a worker write into the same two files, which are moved to logs/ after each run. A worker may
    hold several claimed jobs: some run, and others have ended or have not begun. So its run files are asked whose output
    is in the files of a slot at the moment. A reader has to ask again after it has read.

    Args:
        stream: "out" or "err".
    """
    if job.state == "processing" and run == job.next_run and job.worker:
        runs = run_lock.read_for(layout, job.worker, job)
        current = runs.current(job) if runs else None
        if runs is None or not (current or runs.ended_run(job)):
            return None  # claimed, and not started
        if current and os.path.exists(live := layout.worker_file(current.slot, stream)):
            return live
    elif run >= job.next_run or _printed_nothing(job, run, stream):
        return (
            None  # a log of this name is that of an earlier job with this id, whose file was deleted by hand
        )
    path = layout.log_file(job.id or "", run, stream)
    return next((there for there in (path, path + COMPRESSED) if os.path.exists(there)), None)


def _printed_nothing(job: Job, run: int, stream: str) -> bool:
    entry = dict(job.numbered_history()).get(run, {})
    return entry.get(f"std{stream}_bytes") == 0


def tail(path: str, limit: int, *, whole: str = "queuectl logs") -> str:
    """Return the end of a file as text that a job file can hold: undecodable bytes and NULs are replaced.

    Args:
        limit: the most bytes to keep; 0 = none.
        whole: the command that shows everything, named in the note before a cut text.

    Returns:
        the text, or "" when there is no such file.
    """
    try:
        # A FIFO that a job has put there would be waited for.
        fd = os.open(path, os.O_RDONLY | files.O_CLOEXEC | _BINARY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return ""
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - limit)
        if start:
            os.lseek(fd, start, os.SEEK_SET)
        data = os.read(fd, limit) if size and limit else b""
    finally:
        os.close(fd)
    # Skip the rest of a character that the cut has split.
    skip = 0
    while start and skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    text = data[skip:].decode("utf-8", "replace").replace("\0", "\ufffd")
    return f"[… {start + skip} bytes cut; the whole: {whole}]\n{text}" if start and limit else text


def opened(path: str) -> BinaryIO | GzipFile:
    """Open a log, compressed or not, for reading.

    Raises:
        OSError: it cannot be read.
    """
    safe_open.refuse_special(path)
    if not path.endswith(".gz"):
        return open(path, "rb")
    import gzip

    return gzip.open(path, "rb")


def last_lines(file: BinaryIO | GzipFile, count: int) -> int:
    """Return the position where the last `count` lines begin. A last line without a line end counts.

    The file is read backwards from its end, as it may have gigabytes; a compressed one can only be read forwards.
    """
    if not hasattr(file, "fileobj"):
        return _search_backwards(file, count)
    from collections import deque

    starts: deque[int] = deque(maxlen=max(1, count))
    at = 0
    for line in file:
        starts.append(at)
        at += len(line)
    return starts[0] if starts and count > 0 else at


def _search_backwards(file: BinaryIO | GzipFile, count: int) -> int:
    at = file.seek(0, os.SEEK_END)
    if count <= 0:
        return at
    wanted = count + 1
    while at > 0:
        size = min(at, _BACKWARDS)
        file.seek(at - size)
        block = file.read(size)
        if wanted == count + 1 and not block.endswith(b"\n"):
            wanted -= 1  # nothing ends the last line
        at -= size
        found = block.count(b"\n")
        if found < wanted:
            wanted -= found
            continue
        place = len(block)
        for _ in range(wanted):
            place = block.rfind(b"\n", 0, place)
        return at + place + 1
    return 0


# -- compression -------------------------------------------------------------------------------------------------------


def compress(layout: Layout, before: float) -> Iterator[None]:
    """Compress every log last written before this moment, in epoch seconds. Each step of the iterator does a small part.

    Raises:
        OSError: the disk refused; logs not compressed yet are unchanged.
    """
    with os.scandir(layout.logs) as entries:
        for entry in entries:
            if entry.name.endswith(_NAMES):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _is_worth_compressing(entry.path, status, before):
                        yield from _compress(layout, entry.path, status)
            yield


def run_steps(steps: Iterator[None], seconds: float) -> bool:
    """Take steps for this many seconds; return True when all are done."""
    end = time.monotonic() + seconds
    return all(time.monotonic() <= end for _ in steps)


def _is_worth_compressing(path: str, status: os.stat_result, before: float) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size > SMALLEST
        and status.st_mtime < before
        and not safe_open.has_other_owner(status)
        and not safe_open.is_open_for_writing(path)
    )


def _compress(layout: Layout, path: str, status: os.stat_result) -> Iterator[None]:
    import gzip

    scratch = os.path.join(layout.tmp, files.temporary_name())
    try:
        with open(path, "rb") as source, os.fdopen(os.open(scratch, files.CREATE, 0o600), "wb") as target:
            # Closed in any case: since Python 3.14 one that is left open raises when it is collected.
            with gzip.GzipFile("", "wb", 6, target, mtime=int(status.st_mtime)) as made:
                while block := source.read(CHUNK):
                    made.write(block)
                    yield
            target.flush()
            files.sync_file(target.fileno())
        # Give it the log's time. With a new time, retention would delete it too late.
        os.utime(scratch, ns=(status.st_atime_ns, status.st_mtime_ns))
        now = os.lstat(path)
        if files.fingerprint(now) == files.fingerprint(status):
            files.rename_over(scratch, path + COMPRESSED)
            files.sync_folder(layout.logs)
            try:
                os.unlink(path)
            except FileNotFoundError:
                os.unlink(path + COMPRESSED)  # the job and its log were deleted just now
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)
