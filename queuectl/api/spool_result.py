"""The part of Spool that says what became of a job: waiting for its end, and its output."""

from __future__ import annotations

import functools

from queuectl.api.spool_base import SpoolBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.output_part import Part
    from queuectl.api.waiting import Ended


class ResultPart(SpoolBase):
    """Says what became of a job."""

    def wait(
        self,
        ids: str | Iterable[str] = (),
        *,
        batch: str | None = None,
        timeout: float | None = None,
        success: bool = False,
        tell: Callable[[Ended], None] = lambda _: None,
    ) -> list[Ended]:
        """Wait until jobs have ended: completed, dead or deleted. A failed job that will be retried has not ended.

        Args:
            ids: one id or several.
            batch: instead of ids, all jobs of this batch, also those that come meanwhile.
            timeout: in seconds; None means no limit.
            success: return as soon as one of the jobs has ended without success, or waits for a job that is dead: then its
                `state` is "blocked".
            tell: called with each job when it ends.

        Returns:
            the jobs in the order in which they ended.

        Raises:
            JobNotFound: one of the jobs does not exist at the beginning.
            JobError: no job has this batch.
            StillUnderWay: some jobs have not ended in that time.
            TypeError: ids and a batch are given.
        """
        from queuectl.api import waiting

        several = [ids] if isinstance(ids, str) else [*ids]
        if batch is None:
            return waiting.Waiting(self, several, success=success, tell=tell).run(timeout)
        if several:
            raise TypeError("takes ids or a batch, not both")
        jobs = waiting.of_batch(self, batch)
        more = functools.partial(waiting.now_in_batch, self, batch)
        return waiting.Waiting(self, jobs, success=success, tell=tell, more=more).run(timeout)

    def output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str | None:
        """Return the path of the output of a run, or None if there is none; an old one may be compressed (.gz).

        Args:
            run: its number in the history. Default: the current run, else the last one.
            stream: "out" or "err".

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.output(self.layout, job_files.current(self, job_id), run, stream)

    def read_output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str:
        """Return the output of a run as text: all of it that is kept; "" if there is none.

        Bytes that are not UTF-8 are replaced. See `output` for the arguments; that one gives the path of a large file.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.read_output(self, job_id, run, stream)

    def output_part(
        self, job_id: str, *, run: int | None = None, stream: str = "out", start: int = 0, most: int = 65536
    ) -> Part:
        """Return a part of the output of a run; what is written later begins at `next` of the part.

        Args:
            run, stream: as for output.
            start: where to begin, in bytes; -1: at the last line from which no more than `most` bytes follow; in it if it is long.
            most: at most so many bytes.

        Raises:
            JobNotFound: there is no such job.
            ValueError: no run, stream or place can be called so.
            QueuectlError: the output is compressed, and has more than 64 MiB.
            SpoolError: the file cannot be read, or is none.
        """
        from queuectl.api import output_part

        return output_part.read(self, job_id, run, stream, start, most)

    def last_output(self, job_id: str, lines: int, *, run: int | None = None, stream: str = "out") -> str:
        """Return the last lines of the output of a run; bytes that are not UTF-8 are replaced.

        Args:
            run, stream: as for output.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.last_output(self, job_id, lines, run, stream)
