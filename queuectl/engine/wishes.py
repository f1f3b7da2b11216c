"""What jobs want of a node, and which of them share a pack: pure functions of their fields.

A job says with `needs` what it wants, as for a worker on this machine: `cpu` (processors), `gpu`, and `memory` in
gigabytes. There is no second way to say it. Its queue says in which part of the cluster it runs, and with which options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.config import cluster
from queuectl.engine.base import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXTRA = 120.0
"""Seconds that Slurm's limit of time is longer than all the time limits of a pack: runners keep those, to the second."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that could be handed over.

    Attributes:
        number: its place in the order in which jobs run.
        timeout: seconds; 0: no limit.
        alone: it must not share a pack: it has a unique key, or must not run twice.
    """

    number: int
    shape: Shape
    timeout: float
    alone: bool = False


def shape(needs: Mapping[str, int], where: str = "", more: Sequence[str] = ()) -> Shape:
    """Return what a job wants of a node.

    Args:
        needs: its units by the name of the resource.
        where: the partition of its queue; "": Slurm's default.
        more: the options of its queue.

    Raises:
        ValueError: it needs something that a cluster does not have by that name, or too much; the reason in plain words.
    """
    cluster.refuse_needs(needs, more)
    gpus = needs.get("gpu", 0)
    memory = needs.get("memory")
    return Shape(needs.get("cpu", 1), memory * 1024 if memory else None, str(gpus or ""), where, tuple(more))


def minutes(timeouts: Sequence[float], grace: float) -> int:
    """Return the limit of time for a pack, in minutes for Slurm; 0: none, as one of its jobs has none."""
    if not all(timeouts):
        return 0
    return math.ceil((sum(timeouts) + grace * len(timeouts) + _EXTRA) / 60)


def pack_size(ready: int, slots: int, most: int) -> int:
    """Return how many short jobs go into one pack: so few that all slots have work, and so many that a runner is worth it.

    Args:
        ready: short jobs of one shape that wait.
        slots: runners that can be at work at once.
        most: the setting.
    """
    return max(1, min(most, math.ceil(ready / max(1, slots))))


def packs(
    candidates: Sequence[Candidate], *, slots: int, most: int, short: float, ready: int = 0
) -> list[list[Candidate]]:
    """Divide jobs into packs, in their order: the first pack has the first job.

    Args:
        short: seconds; a job whose time limit is at most this may share a pack with others of its shape.
        ready: how many jobs wait, if these are only the first ones: the others are taken to be like them.
    """
    shared: dict[Shape, list[Candidate]] = {}
    made: list[list[Candidate]] = []
    for one in sorted(candidates, key=lambda one: one.number):
        if one.alone or not 0 < one.timeout <= short:
            made.append([one])
        else:
            shared.setdefault(one.shape, []).append(one)
    for alike in shared.values():
        size = pack_size(max(1, ready // len(candidates)) * len(alike), slots, most)
        made += [alike[at : at + size] for at in range(0, len(alike), size)]
    return sorted(made, key=lambda pack: pack[0].number)
