"""What the settings and the queues may say about a cluster, and what its jobs may need: pure checks, for all that read them."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from queuectl.errors import ConfigError, InvalidJob
from queuectl.job import times
from queuectl.layout import ENGINES, LOCAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.config.settings import JobDefaults
    from queuectl.job.record import Job

MOST = {"cpu": 1024, "gpu": 64, "memory": 1 << 20}
"""What a job on a cluster can need, and the largest values. Memory is in gigabytes."""

ALLOWED = (
    *("account", "qos", "constraint", "reservation", "nodelist", "exclude", "exclusive", "licenses", "gres", "tmp"),
    *("mem-per-cpu", "hint", "comment", "mail-type", "mail-user"),
)  # fmt: skip
"""Options of sbatch that may be given. All others belong to the dispatcher: names, output, time, arrays, requeueing."""

MOST_OPTIONS = 32
"""A few lines of YAML can hold a list that is larger than the memory."""

SHORTEST_FENCE = 30.0
"""Seconds. A runner ends its commands when it could not write for so long: a shorter pause of a file server is common."""

_PARTITION = re.compile(r"[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*", re.ASCII)


def engine(value: object) -> str:
    """Check the name of an engine, or the word local.

    Raises:
        ValueError: there is no such engine; the reason in plain words.
    """
    if not isinstance(value, str) or value not in (LOCAL, *ENGINES):
        raise ValueError(f"must be {LOCAL} or {', '.join(ENGINES)}, not {times.short(value)}")
    return value


def partition(value: object) -> str:
    """Check the name of a partition, or several with commas between them.

    Raises:
        ValueError: it is none; the reason in plain words.
    """
    if not isinstance(value, str) or not _PARTITION.fullmatch(value):
        raise ValueError(f"must be names of partitions, with commas between them, not {times.short(value)}")
    return value


def options(value: object) -> list[str]:
    """Check options for sbatch, like --account=lab: a list of texts, or one text as in a shell.

    Raises:
        ValueError: something else, or an option that may not be given; the reason in plain words.
    """
    words = _words(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise ValueError(f"must be options like --account=lab --qos=low, not {times.short(value)}")
    if len(words) > MOST_OPTIONS:
        raise ValueError(f"must be at most {MOST_OPTIONS} options, not {len(words)}")
    return [_option(one) for one in words]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise ValueError(f"{times.short(text)} has a quote without its end") from None


def _option(one: object) -> str:
    if not isinstance(one, str):
        raise ValueError("must be a list of texts like [--account=lab, --qos=low]")
    if not one.startswith("--"):
        raise ValueError(f"{times.short(one)} is not an option like --account=lab")
    name, _, text = one[2:].partition("=")
    if name not in ALLOWED:
        known = ", ".join(f"--{name}" for name in ALLOWED)
        raise ValueError(f"{times.short(f'--{name}')} is not one of {known}")
    if not text.isprintable():
        raise ValueError(f"the value of --{name} has a control character")
    return one


def folder(value: object) -> str:
    """Check the path of the folder that all nodes see.

    Raises:
        ValueError: it cannot be one, wherever it is; the reason in plain words.
    """
    if not isinstance(value, str) or not os.path.isabs(value) or not value.isprintable():
        raise ValueError(f"must be an absolute path, the same on all nodes, not {times.short(value)}")
    return value


def fence(value: object) -> float:
    """Check the seconds after which a runner that cannot write ends its commands.

    Raises:
        ValueError: it is no duration, or too short; the reason in plain words.
    """
    seconds = times.parse_duration(value)
    if seconds < SHORTEST_FENCE:
        raise ValueError(f"must be at least {SHORTEST_FENCE:.0f}s, not {times.short(value)}")
    return int(seconds) if seconds.is_integer() else seconds


def refuse_needs(needs: Mapping[str, int], more: Sequence[str] = ()) -> None:
    """Refuse needs that no job on a cluster can have.

    Args:
        more: the options of its queue.

    Raises:
        ValueError: with the reason in plain words.
    """
    for name, most in MOST.items():
        if not 1 <= needs.get(name, 1) <= most:
            raise ValueError(f"{name} must be 1 to {most}, not {needs[name]}")
    odd = sorted(needs.keys() - MOST.keys())
    if odd:
        raise ValueError(f"{odd[0]} is not one of {', '.join(MOST)}, which jobs on a cluster can need")
    if "gpu" in needs and any(option.startswith("--gres=") for option in more):
        raise ValueError("gpu and the option --gres of its queue cannot be used together")


def refuse_job(job: Job, defaults: JobDefaults) -> None:
    """Refuse a job of a queue that an engine has, if it could never be handed over.

    Raises:
        ConfigError: the engine has not been set up in this spool.
        InvalidJob: it needs what a cluster cannot give.
    """
    settings = defaults.of(job.queue)
    if settings.slurm_dir is None:
        whose = f"queue {job.queue}" if job.queue else "this queue"
        fact = f"jobs of {whose} run on {settings.engine}, and the setting slurm_dir is unset"
        raise ConfigError(fact, hint="queuectl config set slurm_dir /shared/queuectl")
    try:
        refuse_needs(job.needs or {}, defaults.options_of(job.queue))
    except ValueError as error:
        raise InvalidJob(str(error), field="needs") from None
