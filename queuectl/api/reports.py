"""What a spool tells of itself: both ends of the line, how jobs have gone, metrics, what runs printed. Python door."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.api.queries import Questions
from queuectl.layout import COMPRESSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins

    from queuectl.api.stats import Stats
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row

_LOOKS = 3


class Reports(Questions):
    """A spool that can be watched."""

    def next_up(self, limit: int) -> builtins.list[Row]:
        """The waiting jobs in the order in which they will run; then those for later, the soonest first."""
        self.refresh()
        return self._ask(lambda: self._index.next_up(limit))

    def last_ended(self, limit: int) -> builtins.list[Row]:
        """The jobs that ended last, or whose attempt did; the latest first."""
        self.refresh()
        return self._ask(lambda: self._index.last_ended(limit))

    def stats(self, where: Filter | None = None, *, by: str | None = None) -> Stats:
        """How the jobs that a filter describes have ended: how many, how well, how long they waited and ran.

        Args:
            where: `since` and `until` are about their ends; text in a command is looked for in its beginning.
            by: "tag", "day", "hour", "command", "worker" or "exit-code": each of those for itself as well.

        Raises:
            ValueError: there is no such group.
        """
        from queuectl.api import stats
        from queuectl.index.filter import Filter

        self.refresh()
        return self._ask(lambda: stats.gather(self._index.db, where or Filter(), by, time.time()))

    def metrics(self, textfile: str | os.PathLike[str] | None = None) -> str:
        """How the spool stands now, in Prometheus' text format.

        Args:
            textfile: also write it into this file, all at once, as node_exporter's textfile collector wants it.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.api import metrics

        counts, now = self.counts(), time.time()
        families = self._ask(lambda: [*metrics.of_jobs(self._index.db, counts, now)])
        families += metrics.of_workers(self.workers(), now)
        families += metrics.of_place(self.layout.root, self.layout.index, paused=self.paused() is not None)
        if textfile is not None:
            metrics.write(families, os.fspath(textfile))
        return metrics.text(families)

    def output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str | None:
        """The path of what a run printed, or None when there is nothing; an old one may be compressed, and end in .gz.

        Args:
            run: its number in the history; default the one under way, else the last.
            stream: "out" or "err".

        Raises:
            JobNotFound: there is no such job.
        """
        job = self.get(job_id)
        under_way = job.runs + 1 if job.state == "processing" else None
        run = run or under_way or job.runs
        path = self.layout.log_file(job_id, run, stream)
        if run == under_way and job.worker:
            live = self.layout.worker_file(job.worker, stream)
            return live if os.path.exists(live) else None
        return next((there for there in (path, path + COMPRESSED) if os.path.exists(there)), None)

    def last_output(self, job_id: str, lines: int, *, run: int | None = None, stream: str = "out") -> str:
        """The last lines of what a run printed; bytes that are no UTF-8 are replaced.

        Args:
            run, stream: as for output.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.storage import job_logs

        for _ in range(_LOOKS):
            path = self.output(job_id, run=run, stream=stream)
            if path is None:
                break
            # Moved to logs/ this very moment, or deleted by hand.
            with suppress(FileNotFoundError), job_logs.opened(path) as file:
                file.seek(job_logs.last_lines(file, lines))
                text = file.read().decode("utf-8", "replace")
                # While a job runs the file is its worker's, and the next job's output soon lands in there.
                if self.output(job_id, run=run, stream=stream) == path:
                    return text
        return ""
