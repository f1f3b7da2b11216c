"""What a job waits for, and what waits for it, as lists and as trees of a bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from queuectl import JobNotFound, Spool
from queuectl.api import dependency_tree

import support

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.api.dependency_tree import Node


def told(top: Node) -> list[tuple[int, str]]:
    """The lines of a tree: levels and ids, or how many are left out."""
    return [
        (level, f"+{one}" if isinstance(one, int) else f"{one.id}{'*' if one.again else ''}")
        for level, one in dependency_tree.lines(top)
    ]


def dead(spool_dir: Path, job_id: str, **fields: Any) -> None:
    """Put a dead job into the spool."""
    support.drop(spool_dir, job_id, command="true", **fields)
    with Spool(spool_dir) as spool:
        spool.cancel(job_id)


def test_both_trees_go_all_the_way(spool_dir: Path) -> None:
    """Through batches, dead jobs and missing ones. A job that is reached twice is opened once."""
    spool = Spool(spool_dir)
    for number in range(3):
        spool.enqueue("true", id=f"part{number}", batch="x", hold=True)
    spool.enqueue("true", id="join", after=["batch:x=3"], after_any=["part0"])
    spool.enqueue("true", id="load", after="join")
    spool.enqueue("true", id="tidy", after_any=["load", "join"])
    spool.enqueue("true", id="alarm", after_failure="load")
    dead(spool_dir, "given-up", after=["load"])
    support.drop(spool_dir, "early", command="true", after=["gone", "alarm"])
    above, below = dependency_tree.of(spool, "load")
    assert told(above) == [
        (0, "join"),
        (1, "batch:x"),
        (2, "part0*"),
        (2, "part1"),
        (2, "part2"),
        (1, "part0"),
    ]
    assert told(below) == [(0, "tidy"), (0, "alarm"), (1, "early"), (0, "given-up")]
    assert [(one.want, one.state) for one in below.nodes] == [
        ("after_any", "pending"),
        ("after_failure", "pending"),
        ("after", "dead"),
    ]
    early, _ = dependency_tree.of(spool, "early")
    assert early.blocked
    assert [(one.id, one.state) for one in early.nodes] == [("gone", None), ("alarm", "pending")]
    assert [one.id for one in dependency_tree.of(spool, "part0")[1].nodes] == ["join", "join"]
    assert spool.waited_for_by("load") == ["tidy", "alarm"]
    assert spool.waited_for_by("part1") == ["join"]
    assert [(one.id, one.kind, one.blocked) for one in spool.waits_for("early")] == [
        ("gone", "after", True),
        ("alarm", "after", False),
    ]
    for call in (spool.waits_for, spool.waited_for_by):
        with pytest.raises(JobNotFound):
            call("nobody")


def test_a_tree_of_ten_thousand_parents_fits_on_a_screen(spool_dir: Path) -> None:
    """What keeps the job waiting comes first, and the others are counted."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="done")
    support.drain(spool_dir)
    parents = ["done", *(f"part{number}" for number in range(9_999))]
    support.drop(spool_dir, "join", command="true", after=parents)
    above, _ = dependency_tree.of(spool, "join")
    lines = told(above)
    assert (lines[0], lines[-1], len(lines)) == ((0, "part0"), (0, "+9980"), 21)
    assert len(spool.waits_for("join")) == 9_999


def test_a_chain_is_cut_where_it_gets_too_deep(spool_dir: Path) -> None:
    """A chain of a hundred thousand must not run into the limit of Python, or off the screen."""
    spool = Spool(spool_dir)
    jobs: list[dict[str, Any]] = [{"id": "j0", "command": "true"}]
    jobs += [{"id": f"j{number}", "command": "true", "after": [f"j{number - 1}"]} for number in range(1, 40)]
    spool.enqueue_many(jobs)
    deep = dependency_tree.DEEP
    for top, step in zip(dependency_tree.of(spool, "j20"), (-1, 1), strict=True):
        assert told(top) == [*((level, f"j{20 + step * (level + 1)}") for level in range(deep)), (deep, "+1")]
