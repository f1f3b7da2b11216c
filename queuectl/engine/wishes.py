"""What jobs want of a node, and which of them share a pack: pure functions of their fields.

A job says with `needs` what it wants, as for a worker on this machine: `cpu` (processors), `gpu`, and `memory` in
gigabytes. There is no second way to say it. Its queue says in which part of the cluster it runs, and with which options.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.engine.base import Shape
from queuectl.job import times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CPUS, MOST_GPUS, MOST_MEMORY = 1024, 64, 1 << 20
"""The largest values. MOST_MEMORY is in gigabytes."""

ALLOWED = (
    *(
        "account",
        "qos",
        "constraint",
        "reservation",
        "nodelist",
        "exclude",
        "exclusive",
        "licenses",
        "gres",
        "tmp",
    ),
    *("mem-per-cpu", "hint", "comment", "mail-type", "mail-user"),
)
"""Options of sbatch that may be given. All others belong to the dispatcher: names, output, time, arrays, requeueing."""

_PARTITION = re.compile(r"[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*", re.ASCII)

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


def partition(value: object) -> str:
    """Check the name of a partition, or several with commas between them.

    Raises:
        ValueError: it is none; the reason in plain words.
    """
    if not isinstance(value, str) or not _PARTITION.fullmatch(value):
        raise ValueError(f"must be names of partitions, with commas between them, not {times.short(value)}")
    return value


def options(value: object) -> tuple[str, ...]:
    """Check a list of options for sbatch, like --account=lab.

    Raises:
        ValueError: something else, or an option that may not be given; the reason in plain words.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list like [--account=lab, --qos=low], not {times.short(value)}")
    for one in value:
        if not isinstance(one, str) or not one.startswith("--"):
            raise ValueError(f"{times.short(one)} is not an option like --account=lab")
        name, _, text = one[2:].partition("=")
        if name not in ALLOWED:
            known = ", ".join(f"--{name}" for name in ALLOWED)
            raise ValueError(f"{times.short(f'--{name}')} is not one of {known}")
        if not text.isprintable():
            raise ValueError(f"the value of --{name} has a control character")
    return tuple(value)


def shape(needs: Mapping[str, int], where: str = "", more: Sequence[str] = ()) -> Shape:
    """Return what a job wants of a node.

    Args:
        needs: its units by the name of the resource.
        where: the partition of its queue; "": Slurm's default.
        more: the options of its queue.

    Raises:
        ValueError: it needs something that a cluster does not have by that name, or too much; the reason in plain words.
    """
    for name, most in (("cpu", MOST_CPUS), ("gpu", MOST_GPUS), ("memory", MOST_MEMORY)):
        if not 1 <= needs.get(name, 1) <= most:
            raise ValueError(f"{name} must be 1 to {most}, not {needs[name]}")
    odd = sorted(needs.keys() - {"cpu", "gpu", "memory"})
    if odd:
        raise ValueError(f"{odd[0]} is not one of cpu, gpu, memory, which jobs on a cluster can need")
    gpus = needs.get("gpu", 0)
    if gpus and any(option.startswith("--gres=") for option in more):
        raise ValueError("gpu and the option --gres of its queue cannot be used together")
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


def packs(candidates: Sequence[Candidate], *, slots: int, most: int, short: float) -> list[list[Candidate]]:
    """Divide jobs into packs, in their order: the first pack has the first job.

    Args:
        short: seconds; a job whose time limit is at most this may share a pack with others of its shape.
    """
    shared: dict[Shape, list[Candidate]] = {}
    made: list[list[Candidate]] = []
    for one in sorted(candidates, key=lambda one: one.number):
        if one.alone or not 0 < one.timeout <= short:
            made.append([one])
        else:
            shared.setdefault(one.shape, []).append(one)
    for alike in shared.values():
        size = pack_size(len(alike), slots, most)
        made += [alike[at : at + size] for at in range(0, len(alike), size)]
    return sorted(made, key=lambda pack: pack[0].number)
