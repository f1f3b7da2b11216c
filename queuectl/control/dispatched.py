"""What an engine has of a spool, as its dispatcher has seen it last: two files in `data/workers/`, for people and commands.

The folder of the claims says which jobs are out. `slurm.running` adds which of them run, and where, which only the shared
folder knows. `slurm.waiting` adds why the others wait there, which only the engine knows. Neither decides about anything.
"""

from __future__ import annotations

from queuectl.control import registry
from queuectl.fast_start import fast_json
from queuectl.fast_start.dataclass import dataclass
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from queuectl.layout import Layout

_LIMIT = 1 << 26
"""Bytes. With 100,000 jobs out there, each of the files has some ten million."""


@dataclass(frozen=True, slots=True)
class RunThere:
    """A run on a node.

    Attributes:
        node: its name.
        number: of the engine's job.
        output: the path of what it has printed on stdout.
        since: when its dispatcher saw it first, in epoch seconds.
    """

    node: str
    number: str
    output: str
    since: float


@dataclass(frozen=True, slots=True)
class WaitThere:
    """A run for which no node has begun anything.

    Attributes:
        number: of the engine's job; "": it has not said.
        reason: why it waits, in the engine's words; "": it has not said.
    """

    number: str
    reason: str


_written: dict[str, bytes] = {}


def write(layout: Layout, engine: str, runs: Mapping[str, RunThere]) -> None:
    """Write which jobs run where; nothing, if that is what was written last.

    Args:
        runs: by the id of the job.

    Raises:
        OSError: the disk refused.
    """
    told = {job_id: [run.node, run.number, run.output, run.since] for job_id, run in runs.items()}
    _write(layout.worker_file(engine, "running"), told)


def write_waiting(layout: Layout, engine: str, waits: Iterable[tuple[WaitThere, Iterable[str]]]) -> None:
    """Write which jobs wait there, and why; nothing, if that is what was written last.

    Args:
        waits: each with the ids of the jobs for which it holds: a pack may have hundreds.

    Raises:
        OSError: the disk refused.
    """
    told = [[one.number, one.reason, [*ids]] for one, ids in waits]
    _write(layout.worker_file(engine, "waiting"), {"waiting": told})


def _write(path: str, value: dict[str, Any]) -> None:
    data = fast_json.dumps(value)
    if _written.get(path) != data:
        files.replace(path, data)
        _written[path] = data


def read(layout: Layout, engine: str) -> dict[str, RunThere]:
    """Return the jobs that run there, by their ids."""
    found: dict[str, RunThere] = {}
    for job_id, run in registry.read_json(layout.worker_file(engine, "running"), _LIMIT).items():
        if not isinstance(run, list) or len(run) != 4:
            continue
        node, number, output, since = run
        if all(isinstance(part, str) for part in (node, number, output)) and isinstance(since, int | float):
            found[job_id] = RunThere(node, number, output, since)
    return found


def read_waiting(layout: Layout, engine: str) -> dict[str, WaitThere]:
    """Return why jobs wait there, by their ids. A job that runs by now may be among them."""
    found: dict[str, WaitThere] = {}
    waits = registry.read_json(layout.worker_file(engine, "waiting"), _LIMIT).get("waiting")
    for one in waits if isinstance(waits, list) else ():
        if not isinstance(one, list) or len(one) != 3:
            continue
        number, reason, ids = one
        if isinstance(number, str) and isinstance(reason, str) and isinstance(ids, list):
            found |= dict.fromkeys(filter(_is_text, ids), WaitThere(number, reason))
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)
