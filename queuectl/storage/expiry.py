"""Jobs that were not started in time, and are not worth starting any more: to dead/, uncharged, without a run."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob, MoveError
from queuectl.index.row import accept_as_indexed
from queuectl.job import times
from queuectl.job.times import micros
from queuectl.layout import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.mover import Claim, Mover

SLICE = 0.05
"""Seconds given to them at a time: each is a file written anew and synced."""

_PAGE = 200


def give_up(mover: Mover, claim: Claim, say: Callable[[str], None]) -> None:
    """Put a claimed job, which nobody has started, into dead/: back first, as only a run is settled.

    Raises:
        QueuectlError, OSError: the disk refused, or somebody has taken it meanwhile.
    """
    reason = _reason(claim.job.expires_at or 0)
    mover.bury(mover.release(claim), reason)
    say(f"dead {claim.job.id}: {reason}")


def _reason(expires_at: float) -> str:
    return f"Expired (expires_at was {times.iso(expires_at)})"


def sweep(mover: Mover, say: Callable[[str], None]) -> bool:
    """Give up waiting jobs whose time is over, wherever they stand in the order; True when none is left.

    Args:
        mover: whose index and clock count.
        say: takes a line for each.

    Raises:
        SpoolError: the disk refused.
    """
    began = time.monotonic()
    now = mover.now()
    for row in mover.index.expired(micros(now), _PAGE):
        if time.monotonic() - began > SLICE:
            return False
        reason = _reason((row.expires or 0) / 1e6)
        try:
            mover.bury(row, reason, if_still=partial(_is_over, row, now))
        except (MoveError, InvalidJob):
            # Claimed, or edited: left as it is, such a row would have its file moved to and fro for ever.
            with mover.index.write():
                mover.index.drop_if_at(row.id, row.place, row.name)
                mover.index.mark_stale(PENDING)
        else:
            say(f"dead {row.id}: {reason}")
    return True


def _is_over(row: Row, now: float, job: Job) -> bool:
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    return job.expired(now)
