"""What an engine runs of a spool, as its dispatcher has seen it last: in `data/workers/slurm.running`, for people and commands.

The folder of the claims says which jobs are out. This file adds what only the shared folder knows: which of them run, and
where. It decides about nothing.
"""

from __future__ import annotations

from queuectl import fast_json
from queuectl._dataclasses import dataclass
from queuectl.control import registry
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.layout import Layout


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


_written: dict[str, bytes] = {}


def write(layout: Layout, engine: str, runs: Mapping[str, RunThere]) -> None:
    """Write which jobs run where; nothing, if that is what was written last.

    Args:
        runs: by the id of the job.

    Raises:
        OSError: the disk refused.
    """
    path = layout.worker_file(engine, "running")
    data = fast_json.dumps(
        {job_id: [run.node, run.number, run.output, run.since] for job_id, run in runs.items()}
    )
    if _written.get(path) != data:
        files.replace(path, data)
        _written[path] = data


def read(layout: Layout, engine: str) -> dict[str, RunThere]:
    """Return the jobs that run there, by their ids."""
    found: dict[str, RunThere] = {}
    for job_id, run in registry.read_json(layout.worker_file(engine, "running")).items():
        if not isinstance(run, list) or len(run) != 4:
            continue
        node, number, output, since = run
        if all(isinstance(part, str) for part in (node, number, output)) and isinstance(since, int | float):
            found[job_id] = RunThere(node, number, output, since)
    return found
