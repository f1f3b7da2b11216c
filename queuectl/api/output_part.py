"""Read the output of a run by parts, for whoever shows it while it grows: see `Spool.output_part`."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.api import job_files
from queuectl.errors import QueuectlError, SpoolError
from queuectl.fast_start.dataclass import dataclass
from queuectl.layout import COMPRESSED
from queuectl.system import safe_open

if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase
    from queuectl.job.record import Job

STREAMS = ("out", "err")
LARGEST_UNPACKED = 64 << 20
"""Bytes of a compressed output that are unpacked to show a part of it. That takes half a second."""

_READ_ATTEMPTS = 3
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the output of one run.

    Attributes:
        data: the bytes.
        start, next: where they begin and end, in bytes from the beginning of the output.
        size: bytes of the whole output so far.
        run: the number of the run.
        is_over: whether the run has ended, so that no more is written.
        was_cut: the output is shorter than the place from which it was to be read: it is read from its end.
    """

    data: bytes
    start: int
    next: int
    size: int
    run: int
    is_over: bool
    was_cut: bool = False

    @property
    def text(self) -> str:
        """The bytes as text; those that are not UTF-8 are replaced."""
        return self.data.decode("utf-8", "replace")


def read(spool: SpoolBase, job_id: str, run: int | None, stream: str, start: int, most: int) -> Part:
    """Read a part, see `Spool.output_part`."""
    if stream not in STREAMS:
        raise ValueError(f"no stream is called {stream!r}; there are out and err")
    if (run is not None and run < 1) or most < 1 or start < -1:
        raise ValueError("run and most must be 1 or more, start -1 or more")
    number = run or 1
    for _ in range(_READ_ATTEMPTS):
        job = job_files.current(spool, job_id)
        number = run or job.runs + (job.state == "processing")
        is_over = number <= job.runs
        path = job_files.output(spool.layout, job, number, stream)
        if path is None:
            return Part(b"", 0, 0, 0, number, is_over)
        # The file may be moved to logs/ just now, or be deleted by hand.
        with suppress(FileNotFoundError):
            data, begin, size = _read(path, start, most, job)
            # While a job runs, this is a file of its worker, and the next job will write into the same file. A file in
            # logs/ has the name of its job.
            if (
                path.startswith(spool.layout.logs + os.sep)
                or job_files.output(spool.layout, job_files.current(spool, job_id), number, stream) == path
            ):
                return _whole_characters(
                    Part(data, begin, begin + len(data), size, number, is_over, start > size)
                )
    return Part(b"", 0, 0, 0, number, is_over=False)


def _whole_characters(part: Part) -> Part:
    """Leave a character that is not written whole yet to the next part."""
    for back in range(1, min(4, len(part.data)) + 1):
        byte = part.data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        more_may_come = not part.is_over or part.next < part.size
        if length > back and more_may_come and back < len(part.data):
            return Part(
                part.data[:-back],
                part.start,
                part.next - back,
                part.size,
                part.run,
                part.is_over,
                part.was_cut,
            )
        break
    return part


def open_regular(path: str) -> int:
    """Open an output file that a job may have replaced by a link or a FIFO; return its descriptor.

    Raises:
        FileNotFoundError: it is gone.
        SpoolError: it is no regular file, or cannot be read.
    """
    try:
        fd = os.open(path, safe_open.SAFE_READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SpoolError.from_os("read", path, error) from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise SpoolError(f"cannot read {path}: {safe_open.file_type(mode)}, not a file")
    return fd


def _read(path: str, start: int, most: int, job: Job) -> tuple[bytes, int, int]:
    """Return the bytes, where they begin, and how many there are in all."""
    fd = open_regular(path)
    if path.endswith(COMPRESSED):
        return _part_of(_unpacked(fd, job), start, most)
    try:
        size = os.fstat(fd).st_size
        begin = max(0, size - most) if start < 0 or start > size else start
        data = os.pread(fd, most, begin)
    finally:
        os.close(fd)
    return *_from_line(data, begin, at_end=start < 0 or start > size), max(size, begin + len(data))


def _part_of(whole: bytes, start: int, most: int) -> tuple[bytes, int, int]:
    at_end = start < 0 or start > len(whole)
    begin = max(0, len(whole) - most) if at_end else start
    return *_from_line(whole[begin : begin + most], begin, at_end=at_end), len(whole)


def _from_line(data: bytes, begin: int, *, at_end: bool) -> tuple[bytes, int]:
    """Let the end of an output begin with a line. A line that is longer than half of the part is cut, and not left out."""
    if not at_end or not begin:
        return data, begin
    skipped = data.find(b"\n") + 1
    if not skipped or skipped > len(data) // 2:
        skipped = next((place for place, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    return data[skipped:], begin + skipped


def _unpacked(fd: int, job: Job) -> bytes:
    parts, size = [], 0
    try:
        with os.fdopen(fd, "rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            while block := file.read(_BLOCK):
                parts.append(block)
                size += len(block)
                if size > LARGEST_UNPACKED:
                    raise QueuectlError(
                        f"the output of {job.id} is compressed and too large to show",
                        hint=f"queuectl logs {job.id}",
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SpoolError(f"the compressed output of {job.id} is damaged: {str(error).lower()}") from None
    return b"".join(parts)
