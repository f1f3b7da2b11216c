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

    def paused(self) -> Pause | None:
        """Return since when the spool is paused, and why; None if it is not."""
        from queuectl.control import pause

        return pause.read(self.layout)

    def pause(self, reason: str = "", *, patience: float = 5.0) -> list[str]:
        """Pause the spool: workers start no more jobs; running jobs go on. The file `paused` in the spool says so.

        Args:
            patience: seconds to wait until all workers have noticed; a worker may need up to one second.

        Returns:
            the names of the workers that have not noticed in that time.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        access.make(self.layout, "pause")
        return pause.pause(self.layout, reason, patience=patience)

    def resume(self) -> bool:
        """End the pause; return False if the spool was not paused.

        Raises:
            SpoolError: the file cannot be removed.
        """
        from queuectl.control import pause

        access.refuse_others(self.layout, "resume")
        return pause.resume(self.layout)

    def drain(
        self,
        reason: str = "",
        *,
        timeout: float | None = None,
        tell: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """Pause, and wait until nothing runs.

        Args:
            timeout: in seconds; None means no limit.
            tell: called now and then with the ids of the jobs that are still running.

        Raises:
            StillUnderWay: some jobs are still running; the spool stays paused.
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        access.make(self.layout, "drain")
        pause.drain(self.layout, reason, timeout=timeout, tell=tell)
