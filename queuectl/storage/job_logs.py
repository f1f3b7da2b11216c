"""The output of runs: moved to logs/, repeated in the job's record, read, and compressed when it is old.

A log can be read from its .gz as well. The .gz is complete and synced before the log is deleted. A process killed between
the two steps leaves both files; then the uncompressed log counts.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.layout import COMPRESSED
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from gzip import GzipFile
    from typing import BinaryIO

    from queuectl.job.outcome import Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout

SMALLEST = 4096
"""Bytes: what fits into one block of the disk takes a block when it is compressed, too."""

CHUNK = 1 << 18
"""Bytes that are compressed in one step: some milliseconds."""

_NAMES = (".out", ".err")
_BACKWARDS = 1 << 16
_BINARY = getattr(os, "O_BINARY", 0)


def pack(layout: Layout, before: float) -> Iterator[None]:
    """Compress every log that was last written before this moment, in epoch seconds; a small step at each turn.

    Raises:
        OSError: the disk refused; what was not compressed is as it was.
    """
    with os.scandir(layout.logs) as entries:
        for entry in entries:
            if entry.name.endswith(_NAMES):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _is_worth_it(entry.path, status, before):
                        yield from _pack_one(layout, entry.path, status)
            yield


def go_on(steps: Iterator[None], seconds: float) -> bool:
    """Take steps for so long; says whether all are done."""
    end = time.monotonic() + seconds
    return all(time.monotonic() <= end for _ in steps)


def _is_worth_it(path: str, status: os.stat_result, before: float) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size > SMALLEST
        and status.st_mtime < before
        and not safe_open.has_other_owner(status)
        and not safe_open.is_open_for_writing(path)
    )


def _pack_one(layout: Layout, path: str, status: os.stat_result) -> Iterator[None]:
    import gzip

    scratch = os.path.join(layout.tmp, files.temporary_name())
    try:
        with open(path, "rb") as source, os.fdopen(os.open(scratch, files.CREATE, 0o600), "wb") as target:
            made = gzip.GzipFile("", "wb", 6, target, mtime=int(status.st_mtime))
            while block := source.read(CHUNK):
                made.write(block)
                yield
            made.close()
            target.flush()
            files.sync_file(target.fileno())
        # As old as the log, or it would be kept for longer.
        os.utime(scratch, ns=(status.st_atime_ns, status.st_mtime_ns))
        now = os.lstat(path)
        if files.fingerprint(now) == files.fingerprint(status):
            files.rename_over(scratch, path + COMPRESSED)
            files.sync_folder(layout.logs)
            try:
                os.unlink(path)
            except FileNotFoundError:
                os.unlink(path + COMPRESSED)  # the job was deleted this very moment, and its log with it
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)


def keep_output(layout: Layout, job: Job, worker: str, outcome: Outcome | None, *, limit: int) -> None:
    """Move what a run printed into logs/, and repeat its end in the record.

    Args:
        outcome: how the run ended; None: its worker died.
        limit: bytes of each stream that the record repeats.

    Raises:
        OSError: a file cannot be moved; the record has the end of it all the same.
    """
    # What a process of the run may still write to must not serve the next run.
    retire = outcome is None or outcome.leftovers > 0
    if outcome is not None and outcome.printed == (0, 0) and not retire:
        job.output = ""
        return
    run = job.next_run
    parts = []
    refused: OSError | None = None
    for stream in ("out", "err"):
        source, target = layout.worker_file(worker, stream), layout.log_file(job.id or "", run, stream)
        try:
            if os.stat(source).st_size:
                parts.append(tail(source, limit, whole=f"queuectl logs {job.id}"))
                _shelve(source, target)
            elif retire:
                _shelve(source, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = OSError(error.errno, error.strerror, target)
    job.output = _joined(parts)
    if refused is not None:
        raise refused


def recall_output(layout: Layout, job: Job, *, limit: int) -> None:
    """Repeat in the record what the next run printed, which is in logs/ already; as `keep_output`."""
    logs = [layout.log_file(job.id or "", job.next_run, stream) for stream in ("out", "err")]
    job.output = _joined([tail(path, limit, whole=f"queuectl logs {job.id}") for path in logs])


def _joined(parts: Sequence[str]) -> str:
    """What was printed on both streams, one below the other."""
    told = [part for part in parts if part]
    if len(told) == 2 and not told[0].endswith("\n"):
        told[0] += "\n"
    return "".join(told)


def _shelve(source: str, target: str) -> None:
    try:
        _move(source, target)
    except FileExistsError:
        # The log of a job of that name that somebody deleted by hand, or of this run before a crash.
        os.unlink(target)
        files.move(source, target)


def _move(source: str, target: str) -> None:
    try:
        files.move(source, target)
    except FileNotFoundError:
        if not os.path.lexists(source):
            raise
        with suppress(FileExistsError):  # another worker was quicker
            os.mkdir(os.path.dirname(target), 0o700)  # somebody deleted it
        files.move(source, target)


def tail(path: str, limit: int, *, whole: str = "queuectl logs") -> str:
    """The end of a file as text that a job file can hold: undecodable bytes and NULs are replaced.

    Args:
        limit: bytes that are kept at most; 0 = nothing.
        whole: what to type to see everything, named in the note that stands before a cut text.

    Returns:
        the text, or "" when there is no such file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | files.O_CLOEXEC | _BINARY)
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
    # A character that the cut went through would show as rubbish at the front.
    skip = 0
    while start and skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    text = data[skip:].decode("utf-8", "replace").replace("\0", "\ufffd")
    return f"[… {start + skip} bytes cut; the whole: {whole}]\n{text}" if start and limit else text


def opened(path: str) -> BinaryIO | GzipFile:
    """Open what a run printed, compressed or not, for reading.

    Raises:
        OSError: it cannot be read.
    """
    if not path.endswith(".gz"):
        return open(path, "rb")
    import gzip

    return gzip.open(path, "rb")


def last_lines(file: BinaryIO | GzipFile, count: int) -> int:
    """Where the last so many lines begin. A last line without a line end counts.

    The end of a file is looked at first, for it may have gigabytes; a compressed one can only be read from its front.
    """
    if not hasattr(file, "fileobj"):
        return _found_from_behind(file, count)
    from collections import deque

    starts: deque[int] = deque(maxlen=max(1, count))
    at = 0
    for line in file:
        starts.append(at)
        at += len(line)
    return starts[0] if starts and count > 0 else at


def _found_from_behind(file: BinaryIO | GzipFile, count: int) -> int:
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
