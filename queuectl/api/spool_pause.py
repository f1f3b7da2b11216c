"""The part of Spool that pauses it: workers start no more jobs."""

from __future__ import annotations

from queuectl.api import access
from queuectl.api.spool_base import SpoolBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.pause import Pause


class PausePart(SpoolBase):
    """Pauses the spool."""

    def paused(self, *, queue: str | None = None) -> Pause | None:
        """Return since when the spool, or one queue, is paused, and why; None if it is not.

        Raises:
            ValueError: no queue can have this name.
        """
        from queuectl.control import pause

        return pause.read(self.layout, _checked(queue))

    def pause(self, reason: str = "", *, queue: str | None = None, patience: float = 5.0) -> list[str]:
        """Pause the spool: workers start no more jobs; running jobs go on. The file `paused` in the spool says so.

        Args:
            queue: pause only this queue. The file `queues/NAME.paused` says so.
            patience: seconds to wait until all workers have noticed; a worker may need up to one second.

        Returns:
            the names of the workers that have not noticed in that time.

        Raises:
            SpoolError: the file cannot be written.
            ValueError: no queue can have this name.
        """
        from queuectl.control import pause

        _checked(queue)
        access.make(self.layout, "pause")
        return pause.pause(self.layout, reason, patience=patience, queue=queue)

    def resume(self, *, queue: str | None = None) -> bool:
        """End the pause; return False if the spool was not paused.

        Args:
            queue: end the pause of this queue.

        Raises:
            SpoolError: the file cannot be removed.
            ValueError: no queue can have this name.
        """
        from queuectl.control import pause

        _checked(queue)
        access.refuse_others(self.layout, "resume")
        return pause.resume(self.layout, queue)

    def drain(
        self,
        reason: str = "",
        *,
        queue: str | None = None,
        timeout: float | None = None,
        tell: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """Pause, and wait until nothing runs.

        Args:
            queue: pause only this queue, and wait only for its jobs.
            timeout: in seconds; None means no limit.
            tell: called now and then with the ids of the jobs that are still running.

        Raises:
            StillUnderWay: some jobs are still running; the spool stays paused.
            SpoolError: the file cannot be written.
            ValueError: no queue can have this name.
        """
        from queuectl.control import pause

        _checked(queue)
        access.make(self.layout, "drain")
        running = None if queue is None else lambda: self._running_in(queue)
        pause.drain(self.layout, reason, timeout=timeout, tell=tell, queue=queue, running=running)

    def _running_in(self, queue: str) -> list[str]:
        """Return the ids of the jobs of a queue that run, including those whose worker has died."""
        from queuectl.control import pause
        from queuectl.index import lanes

        ids = pause.running_jobs(self.layout)
        rows = self._rows(ids)
        # A job that the index does not know may be of this queue.
        return [one for one in ids if one not in rows or lanes.queue_of(rows[one].lane) == queue]


def _checked(queue: str | None) -> str | None:
    """Return the name of a queue. It becomes the name of a file, and must not lead out of the folder.

    Raises:
        ValueError: no queue can have this name.
    """
    from queuectl.job.fields import check_field

    return None if queue is None else str(check_field("queue", queue))
