"""A rule of the soak: each of its moments becomes one job, whoever is killed and whenever."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from .world import Violation

if TYPE_CHECKING:
    from .world import World

RULE = "tick"
SPAN = 2
"""Seconds between two moments."""


def add(world: World) -> None:
    """Write the rule. Its jobs need not wait for each other, and none is left out when all workers were dead."""
    command = f"exec sh {world.outside}/job.sh {world.outside} ok 0.05"
    (world.spool / "rules").mkdir(mode=0o700, exist_ok=True)
    (world.spool / "rules" / f"{RULE}.yaml").write_text(
        f"when: {{every: {SPAN}s, missed: all, overlap: allow}}\njob: {{command: '{command}'}}\n"
    )


def end(world: World) -> None:
    """Take the rule away, so that no more jobs come."""
    world.cli("rule", "remove", RULE, may_fail=False)


def check(world: World) -> None:
    """See that no moment between the first and the last was left out. That none was used twice follows from the ids.

    Raises:
        Violation: one was.
    """
    ids = {stamp.job_id for stamp in world.stamps()} | {*world.places()} | world.deleted
    moments = sorted(_moment(job_id) for job_id in ids if job_id.startswith(f"{RULE}."))
    world.counts["moments of a rule"] = len(moments)
    if not moments:
        raise Violation("the rule has never queued a job")
    missing = {*range(moments[0], moments[-1], SPAN)} - {*moments}
    if missing:
        raise Violation(f"the rule has left out {sorted(missing)}")


def _moment(job_id: str) -> int:
    text = f"{job_id.partition('.')[2]}+0000"
    return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ%z").timestamp())
