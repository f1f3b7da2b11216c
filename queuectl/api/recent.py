"""What happened lately, from a bounded number of rows: whoever looks again and again must not count a million jobs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from queuectl.api.stats import Times

if TYPE_CHECKING:
    from queuectl.index.row import Row


def times(rows: list[Row]) -> tuple[Times, Times]:
    """Return how long these jobs, which have ended, waited and ran. Only those that needed one attempt count as waiting."""
    waiting, running = Times(), Times()
    waits = [
        row.started_at - max(row.arrived if row.created_at is None else row.created_at, row.run_at or 0)
        for row in rows
        if row.started_at is not None and row.attempts < 2
    ]
    runs = [row.duration for row in rows if row.duration is not None]
    for made, found in ((waiting, waits), (running, runs)):
        made.fill(found)
        # A file that does not say when its job was made may have come after its start.
        made.longest = max(0, *found) / 1e6 if found else None
    return waiting, running


def reasons(errors: list[str | None]) -> list[tuple[str, int]]:
    """Return why jobs are dead, each reason with its number, the most frequent first."""
    counted = Counter(error for error in errors if error)
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))
