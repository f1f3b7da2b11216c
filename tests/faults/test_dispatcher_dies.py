"""Whatever step a dispatcher dies at, the next one comes to the same end: each attempt ran once, and is recorded once."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sweeps

if sys.platform != "linux":
    pytest.skip("nodes run Linux", allow_module_level=True)

import crash_points
import dispatch_points

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

pytestmark = pytest.mark.timeout(600)


def tell(story: str, folder: Path) -> list[dict[str, Any]]:
    """Let the story die at each of its steps; what was found after each death."""
    return sweeps.deaths(dispatch_points.__file__, story, folder, 590)


def complaints(story: dispatch_points.Story, report: dict[str, Any]) -> list[str]:
    """What is wrong with what one death has led to."""
    if report["code"] not in (0, crash_points.DIED):
        return [f"the story failed by itself: {report['said']}"]
    if report["finish"] != 0:
        return [f"the dispatcher after it failed: {report['told']}"]
    found = json.loads(report["told"])
    ends = {job_id: places for job_id, places in found["ends"].items() if len(places) == 1}
    begun = found["begun"]
    wrong = {job_id: found["ends"].get(job_id) for job_id in story.jobs if job_id not in ends}
    recorded = {job_id: len(past) for job_id, [(_, past)] in ends.items() if past}
    for job_id in found["moved"]:  # of a job that was taken away while it ran no end is recorded
        recorded[job_id] = max(recorded[job_id], begun[job_id])
    told = found["counts"]
    checks = {
        f"not in one place: {wrong}": not wrong and len(ends) == len(story.jobs),
        f"not ended: {ends}": all(place in ("done", "dead") for [(place, _)] in ends.values()),
        f"begun {begun}, and recorded {recorded}": recorded == begun,
        f"ran {begun}": story.runs[0] <= sum(begun.values()) <= story.runs[1],
        f"left on the share: {found['packs']}": not found["packs"],
        f"still claimed: {found['claims']}": not found["claims"],
        f"counted as {told}": told["completed"] + told["dead"] == len(story.jobs) == sum(told.values()),
    }
    return [what for what, well in checks.items() if not well]


@pytest.mark.parametrize("name", dispatch_points.STORIES)
def test_a_dispatcher_that_dies_at_any_step_makes_nothing_run_twice(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Just before each rename, link, unlink, open, write, sync and commit, in the spool and in the shared folder."""
    story = dispatch_points.STORIES[name]
    # In memory: nothing is lost with the power here, and syncs of a busy disk would take most of the time.
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        reports = tell(name, Path(folder, "told"))
    found = {f"{r['number']}: {r['said'].strip()}": wrong for r in reports if (wrong := complaints(story, r))}
    assert not found, json.dumps(found, indent=1)
    assert [r["code"] for r in reports] == [crash_points.DIED] * (len(reports) - 1) + [0]
    assert len(reports) > 1, "it never died"
    record_property("points", len(reports))
    print(f"points: {len(reports)}")
