"""What it costs that jobs wait for jobs: a chain, a large graph from one file, a join, and very many children let go."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from queuectl.job import times

from .place import box
from .tables import Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .place import Box
    from .scale import Scale

PARENTS = 3
"""For how many earlier jobs each job of the graph waits."""


def dependencies(scale: Scale, folder: Path) -> None:
    """(w) The same jobs that wait for others, and that wait for none, by turns. A cost above 1 is a loss."""
    table(
        "(w) jobs that wait for jobs",
        ("", "with", "without", "cost, without = 1", "at most"),
        [_chain(scale, folder), *_graph(scale, folder), *_join(scale, folder), _release(scale, folder)],
    )


def _ids(count: int) -> Iterator[str]:
    return (f"j{at}" for at in range(count))


def _chain(scale: Scale, folder: Path) -> list[str]:
    """A worker can claim several short jobs at once, but of a chain only one."""
    count = scale.drain
    free = [{"id": name, "command": "true"} for name in _ids(count)]
    chain = [{**job, "after": [f"j{at - 1}"]} if at else job for at, job in enumerate(free)]
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(scale.laps):
        for is_chain, jobs in ((False, free), (True, chain)):
            with box(folder) as made:
                made.spool.enqueue_many(jobs)
                taken[is_chain].append(made.work_off(workers=1, jobs=count) / count)
    return _row(f"a chain of {count:,} × `true`, a job", taken[True], taken[False], "us", "1.2")


def _graph(scale: Scale, folder: Path) -> Iterator[list[str]]:
    """Each job waits for some earlier ones, and the lines are in no order."""
    dice = random.Random(5)  # the same graph each time
    names = [*_ids(scale.graph)]
    free: list[dict[str, Any]] = [{"id": name, "command": "true"} for name in names]
    waiting = [
        {**job, "after": sorted(dice.sample(names[:at], min(at, PARENTS)))} if at else job
        for at, job in enumerate(free)
    ]
    dice.shuffle(waiting)
    handed: dict[bool, list[float]] = {True: [], False: []}
    read: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(scale.rounds):
        for has_parents, jobs in ((False, free), (True, waiting)):
            with box(folder) as made:
                path = made.root / "jobs.ndjson"
                path.write_text("".join(f"{json.dumps(job)}\n" for job in jobs), encoding="utf-8")
                handed[has_parents].append(made.call("enqueue", "--file", str(path)) / scale.graph)
                read[has_parents].append(made.call("reindex") / scale.graph)
    title = f"{scale.graph:,} jobs with {PARENTS} parents each"
    yield _row(f"{title} from one file, a job", handed[True], handed[False], "us", "1.3")
    yield _row(f"{title}, `reindex`, a job", read[True], read[False], "us", "1.3")


def _join(scale: Scale, folder: Path) -> Iterator[list[str]]:
    count = scale.siblings
    parts: list[dict[str, Any]] = [{"id": name, "command": "true"} for name in _ids(count)]
    join: dict[str, Any] = {"id": "join", "command": "true", "after": [*_ids(count)]}
    taken: dict[bool, list[float]] = {True: [], False: []}
    delays: list[float] = []
    for _ in range(scale.rounds):
        for has_join, jobs in ((False, parts), (True, [join, *parts])):
            with box(folder) as made:
                made.spool.enqueue_many(jobs)
                made.work_off(workers=1, jobs=len(jobs))
                names = {f"{job['id']}.json" for job in parts}
                taken[has_join].append(made.took(names, count) / count)
                if has_join:
                    last = max(_moment(made, str(job["id"]), "finished_at") for job in parts)
                    delays.append(_moment(made, "join", "started_at") - last)
    title = f"a job for which one job waits, with {count:,} others"
    yield _row(title, taken[True], taken[False], "us", "1.1")
    yield [
        f"the start of that job after the last of the {count:,}",
        Samples(delays).cell("ms"),
        "",
        "",
        "100 ms",
    ]


def _release(scale: Scale, folder: Path) -> list[str]:
    """Amid a drain of other jobs one ends for which very many wait. They come after all others in the order."""
    fill: list[dict[str, Any]] = [{"id": name, "command": "true"} for name in _ids(scale.drain)]
    parent: dict[str, Any] = {"id": "parent", "command": "true"}
    jobs: list[dict[str, Any]] = [*fill[: scale.drain // 2], parent, *fill[scale.drain // 2 :]]
    many: list[dict[str, Any]] = [
        {"id": f"c{at}", "command": "true", "priority": 10, "after": ["parent"]}
        for at in range(scale.siblings)
    ]
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(scale.rounds):
        for has_children, handed in ((False, jobs), (True, [*jobs, *many])):
            with box(folder) as made:
                made.spool.enqueue_many(handed)
                made.work_off(workers=2, jobs=len(jobs))
                gaps[has_children].append(_longest_gap(made, [str(job["id"]) for job in jobs]))
    title = f"the longest time without a start while {scale.siblings:,} children are let go"
    return [
        title,
        Samples(gaps[True]).cell("ms"),
        Samples(gaps[False]).cell("ms"),
        ratios(gaps[True], gaps[False]),
        "110 ms",
    ]


def _longest_gap(made: Box, names: Sequence[str]) -> float:
    there = made.done()
    starts = sorted(_moment(made, name, "started_at") for name in names if f"{name}.json" in there)
    return max((later - earlier for earlier, later in pairwise(starts)), default=0.0)


def _moment(made: Box, name: str, which: str) -> float:
    return times.parse_moment(made.record(name)[which])


def _row(title: str, one: list[float], other: list[float], unit: str, limit: str) -> list[str]:
    return [title, Samples(one).cell(unit), Samples(other).cell(unit), ratios(one, other), limit]
