"""Whatever step a worker or a command dies at, the job is there, whole, in one place, and comes to its end."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import sweeps

if sys.platform == "win32":
    pytest.skip("the stories fork", allow_module_level=True)

import crash_points

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


def tell(story: str, folder: Path) -> list[dict[str, Any]]:
    """Let the story die at each of its steps; what was found after each death."""
    folder.mkdir()
    return sweeps.deaths(crash_points.__file__, story, folder, 170)


def complaints(story: crash_points.Story, report: dict[str, Any]) -> list[str]:
    """What is wrong with what one death left behind."""
    after, end, jobs = report["after"], report["end"], len(story.ids)
    copies = Counter(
        (job_id, place.startswith("processing"))
        for job_id, place in zip(after["ids"], after["places"], strict=True)
    )
    known = sum(after["counts"].values())
    least = jobs if story.must or "queued\n" in report["said"] else 0
    ended = list(zip(end["places"], end["attempts"], strict=False))
    checks = {
        "the story failed by itself": report["code"] in (0, crash_points.DIED),
        "the worker after it failed": report["finish"] == [0, ""],
        "a file is torn": not after["torn"] and not end["torn"],
        "a job is gone": least <= len(set(after["ids"])) and least <= known,
        "a job is in two places": max(copies.values(), default=0) <= 1,
        "a job is counted twice": known <= jobs,
        "the end is not told right": sum(end["counts"].values()) == len(ended)
        and least <= len(ended) <= jobs,
        "it ended in the wrong way": set(ended) <= set(story.ends),
        "it ran too often or not at all": story.runs[0] <= report["ran"] <= story.runs[1],
        "charged for the death": end["interrupted"] <= 1 + (story is crash_points.STORIES["recover"]),
        "made in 1970": end["created"] > "2020",
        "litter is left": not end["litter"],
        "the old job is gone, and no new one there": not story.kept
        or bool({*story.kept}.intersection(after["ids"]) and {*story.kept}.intersection(end["ids"])),
        "logs belong to nobody": not (after["orphans"] or end["orphans"]),
    }
    return [what for what, well in checks.items() if not well]


@pytest.mark.parametrize("name", crash_points.STORIES)
def test_dying_at_any_step_loses_and_doubles_nothing(tmp_path: Path, name: str) -> None:
    """Just before each rename, link, unlink, open, commit and spawn in turn, until the story gets through."""
    reports = tell(name, tmp_path / "told")
    story = crash_points.STORIES[name]
    found = {f"{r['number']}: {r['said'].strip()}": wrong for r in reports if (wrong := complaints(story, r))}
    assert not found, json.dumps(found, indent=1)
    assert [report["code"] for report in reports] == [crash_points.DIED] * (len(reports) - 1) + [0]
    assert len(reports) > 4 // sweeps.STRIDE or sweeps.has_begun_late(story.stride)
