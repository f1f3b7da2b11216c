"""How workers are to work, as `worker start` hands it to each worker process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker.

    Attributes:
        drain: leave when nothing is left to do now.
        wait_retries: with drain, wait for retries and scheduled jobs too.
        concurrency: how many jobs may run at once; None: as the setting says.
    """

    drain: bool = False
    wait_retries: bool = False
    concurrency: int | None = None

    def words(self) -> list[str]:
        """Return them as words of the command line of `worker run`."""
        several = [] if self.concurrency is None else ["--concurrency", str(self.concurrency)]
        return ["--drain"] * self.drain + ["--wait-retries"] * self.wait_retries + several
