"""What a worker tells the program in which it runs: the start and the end of each run, with the job."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from queuectl.fast_start.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.record import Job


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One thing that has happened to a job.

    Attributes:
        kind: "started": its command has been started; "ended": the outcome of the run is in its file.
        job: a copy of the job. Its `state` after the end is completed, failed (it will be retried), dead, or pending (it
            was put back).
        worker: the name of the worker.
    """

    kind: str
    job: Job
    worker: str


class JobEvents:
    """Hands events to a function of the program. What that raises is logged, and touches no job.

    Args:
        tell: the function; None: nobody wants to know.
    """

    def __init__(self, tell: Callable[[JobEvent], None] | None) -> None:
        self._tell = tell
        self._failed = False

    def started(self, job: Job, worker: str) -> None:
        """Tell that a command has been started."""
        if self._tell is not None:
            self._hand_over("started", job, "processing", worker)

    def ended(self, job: Job, state: str, worker: str) -> None:
        """Tell that an outcome was recorded."""
        if self._tell is not None:
            self._hand_over("ended", job, state, worker)

    def _hand_over(self, kind: str, job: Job, state: str, worker: str) -> None:
        seen = copy.copy(job)  # the record itself is written to the disk
        seen.state = state
        try:
            if self._tell is not None:
                self._tell(JobEvent(kind, seen, worker))
        except Exception:
            if not self._failed:
                import logging

                self._failed = True
                logging.getLogger("queuectl").exception("the function for the events of a worker has raised")
