"""The part of Spool that reports on the spool as a whole: workers, notes, statistics, metrics."""

from __future__ import annotations

import time

from queuectl.api.spool_base import SpoolBase, locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from queuectl.api.stats import Stats, Times
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.filter import Filter


class ReportPart(SpoolBase):
    """Reports on the spool as a whole."""

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive."""
        from queuectl.control import registry

        return registry.live_workers(self.layout)

    @locked
    def notes(self) -> list[str]:
        """What a user should know besides the counts, one line each."""
        from queuectl.api import status

        return status.notes(self)

    @locked
    def stats(self, where: Filter | None = None, *, by: str | None = None) -> Stats:
        """Return statistics of the jobs that have ended: how many, with what result, how long they waited and ran.

        Args:
            where: only these jobs; `since` and `until` mean the time of their end, and text is searched only in the
                beginning of a command.
            by: "tag", "day", "hour", "command", "worker", "exit-code", "reason", "queue" or "engine": also count each
                group.

        Raises:
            ValueError: there is no such group.
        """
        from queuectl.api import places, stats
        from queuectl.index.filter import Filter

        def gather() -> Stats:
            places.tell_index(self)
            return stats.gather(self._index, where or Filter(), by, time.time())

        self._look()
        return self._ask(gather)

    @locked
    def recent(self, number: int = 1000) -> tuple[Times, Times]:
        """Return how long the jobs that ended last waited and ran.

        Args:
            number: at most so many jobs: unlike `stats`, this takes as long whatever the spool holds.
        """
        from queuectl.api import listing, stats

        return stats.recent_times(listing.last_ended(self, number))

    @locked
    def throughput(self, since: float, step: float = 60.0) -> dict[float, tuple[int, int]]:
        """Return how many jobs were completed and died in each step of time in which one ended.

        Args:
            since: epoch seconds.
            step: seconds.

        Returns:
            the two numbers by the beginning of the step, in epoch seconds.
        """
        from queuectl.index import ends
        from queuectl.job.times import micros

        self._look()
        found = self._ask(lambda: ends.by_step(self._index, micros(since), micros(step)))
        return {place / 1e6: numbers for place, numbers in sorted(found.items())}

    @locked
    def reasons(self, where: Filter | None = None, *, of_newest: int = 1000) -> list[tuple[str, int]]:
        """Return why jobs are dead, the most frequent reason first, each with the number of jobs.

        Args:
            where: only these of the dead jobs.
            of_newest: only so many jobs are looked at, those that arrived last. `stats` with `by="reason"` counts all.
        """
        from queuectl.api import listing, stats
        from queuectl.index.filter import Filter

        chosen = (where or Filter(sort="-arrived")).of_states("dead").limited_to(of_newest)
        return stats.recent_reasons([row.last_error for row in listing.select(self, where=chosen)])

    @locked
    def metrics(self, textfile: str | os.PathLike[str] | None = None, *, queues: Sequence[str] = ()) -> str:
        """Return the current state of the spool in the text format of Prometheus.

        Args:
            textfile: also write it to this file, atomically, for the textfile collector of node_exporter.
            queues: only the metrics of these queues; none: all metrics.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.api import metrics

        return metrics.report(self, textfile, queues)
