"""Rules of the soak: each moment, and each file in a folder, becomes one job, whoever is killed and whenever."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from .world import Violation

if TYPE_CHECKING:
    from pathlib import Path

    from .world import World

RULE = "tick"
SPAN = 2
"""Seconds between two moments."""


FOLDERS = {"kept": "leave", "moved": "move"}
"""The rules that watch a folder, and what becomes of its files."""


def folder(world: World, rule: str) -> Path:
    """The folder that a rule watches."""
    return world.outside / rule


def add(world: World) -> None:
    """Write the rules. The jobs of the one with moments need not wait for each other, and none is left out when all workers were dead."""
    command = f"exec sh {world.outside}/job.sh {world.outside} ok 0.05"
    (world.spool / "rules").mkdir(mode=0o700, exist_ok=True)
    (world.spool / "rules" / f"{RULE}.yaml").write_text(
        f"when: {{every: {SPAN}s, missed: all, overlap: allow}}\njob: {{command: '{command}'}}\n"
    )
    for rule, source in FOLDERS.items():
        folder(world, rule).mkdir()
        (world.spool / "rules" / f"{rule}.yaml").write_text(
            f"when: {{file: {folder(world, rule)}, settle: 0, source: {source}}}\njob: {{command: 'test -s {{}}; {command}'}}\n"
        )


def end(world: World) -> None:
    """Take the rule with moments away, so that no more jobs come."""
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
    for rule in FOLDERS:
        _check_files(world, rule, {job_id for job_id in ids if job_id.startswith(f"{rule}.")})


def _check_files(world: World, rule: str, ids: set[str]) -> None:
    """See that there were as many jobs as files."""
    dropped = world.counts[f"files {rule}"]
    left = [path.name for path in folder(world, rule).iterdir() if path.is_file()]
    if not dropped or len(ids) != dropped or (rule == "moved" and left):
        raise Violation(
            f"rule {rule}: {dropped} files made {len(ids)} jobs, and {left[:5]} lie in its folder"
        )


def _moment(job_id: str) -> int:
    text = f"{job_id.partition('.')[2]}+0000"
    return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ%z").timestamp())
