"""Folders that grow: done/, dead/ and logs/, while no setting says what may be deleted there."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.layout import Layout

LARGE = 100_000
"""Files in a folder, and"""
LARGE_BYTES = 1 << 30
"""bytes, above which `status` says that nothing deletes them."""

_SOME = 1000


def size_of(number: float) -> str:
    """Return a number of bytes as text."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"


def notes(layout: Layout, index: Index, settings: Settings) -> list[str]:
    """Return notes for `status` about folders that are large and never cleaned. The bytes are an estimate.

    Raises:
        OSError, sqlite3.Error: a folder or the index cannot be read.
    """
    found = []
    counts = index.counts()
    for state, folder, keep in (
        ("completed", "done", settings.keep_done),
        ("dead", "dead", settings.keep_dead),
    ):
        query = "SELECT avg(size) FROM (SELECT size FROM jobs WHERE state = ? ORDER BY seq DESC LIMIT ?)"
        size = (index.db.execute(query, (state, _SOME)).fetchone()[0] or 0) * counts[state]
        if keep is None and (counts[state] > LARGE or size > LARGE_BYTES):
            found.append(_grown(folder, f"{counts[state]:,} jobs, about {size_of(size)}", f"keep_{folder}"))
    if settings.keep_logs is None:
        sizes, number = [], 0
        with suppress(FileNotFoundError), os.scandir(layout.logs) as entries:
            sizes = [entry.stat(follow_symlinks=False).st_size for entry in islice(entries, _SOME)]
            number = len(sizes) + sum(1 for _ in islice(entries, LARGE))
        size = sum(sizes) / max(1, len(sizes)) * number
        if number > LARGE or size > LARGE_BYTES:
            many = f"over {LARGE:,}" if number > LARGE else f"{number:,}"
            found.append(_grown("logs", f"{many} files, about {size_of(size)} or more", "keep_logs"))
    return found


def _grown(folder: str, what: str, key: str) -> str:
    return f"{folder}/ holds {what}, and nothing is ever deleted there: queuectl config set {key} 30d"
