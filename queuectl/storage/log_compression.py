"""Old logs made small: what runs printed, compressed once nobody has written to it for long.

A log is read from its .gz just as well. The .gz is whole and on the disk before the log goes, so whoever is killed in
between leaves both, and the log itself counts.
"""

from __future__ import annotations

import gzip
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.layout import PACKED
from queuectl.system import files, leases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.layout import Layout

SMALLEST = 4096
"""Bytes: what fits into one block of the disk takes a block when it is compressed, too."""

CHUNK = 1 << 18
"""Bytes that are compressed in one step: some milliseconds."""

_NAMES = (".out", ".err")


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
        and not files.is_strangers(status)
        and not leases.open_for_writing_elsewhere(path)
    )


def _pack_one(layout: Layout, path: str, status: os.stat_result) -> Iterator[None]:
    scratch = os.path.join(layout.tmp, f".{files.token()}.tmp")
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
        if files.mark_of(now) == files.mark_of(status):
            files.set_aside(scratch, path + PACKED)
            files.sync_folder(layout.logs)
            try:
                os.unlink(path)
            except FileNotFoundError:
                os.unlink(path + PACKED)  # the job was deleted this very moment, and its log with it
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)
