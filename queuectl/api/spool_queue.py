"""The part of Spool that is about its queues."""

from __future__ import annotations

from queuectl.api import access
from queuectl.api.spool_base import SpoolBase, locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from queuectl.storage.queue_state import Queue, QueueView


class QueuePart(SpoolBase):
    """Reads and changes queues."""

    @locked
    def queues(self) -> list[Queue]:
        """Return the queues that have jobs which are not completed, a file in `queues/`, or a pause; by name.

        Raises:
            ConfigError: the settings are not valid.
        """
        return self._ask(lambda: self._queue_view().all())

    @locked
    def queue(self, name: str) -> Queue:
        """Return one queue. Queues need not be declared: one that nobody has named yet has no jobs and no limits.

        Raises:
            ValueError: no queue can have this name.
            ConfigError: the settings are not valid.
        """
        from queuectl.job.fields import check_field

        queue = check_field("queue", name)
        return self._ask(lambda: self._queue_view().one(queue))

    @locked
    def set_queue(self, name: str, **fields: Any) -> Queue:
        """Change keys in the file of a queue, as `queuectl queue set` does. Comments in it stay; None removes a key.

        Args:
            fields: `limit` (1 to 1000), `rate` (text like "100/1h"), and what its jobs get by default: `timeout`,
                `max_retries`, `backoff_base`, `max_backoff`, `priority`, `jitter`, `retry_on`, `give_up_on`; and where
                its jobs run: `engine`, `partition`, `options`.

        Returns:
            the queue as it is now.

        Raises:
            ConfigError: an unknown key, a wrong value, or a file that cannot be changed.
            ValueError: no queue can have this name.
            SpoolError: the disk refused, or the spool belongs to another user.
        """
        from queuectl.config import queue_file
        from queuectl.job.fields import check_field

        queue = check_field("queue", name)
        access.make(self.layout, "queue set …")
        queue_file.change(self.layout, queue, fields)
        return self._ask(lambda: self._queue_view().one(queue))

    @locked
    def _queue_view(self) -> QueueView:
        from queuectl.api.queues import view_of

        self._look()
        return view_of(self)

    @locked
    def _unknown_queues(self, names: tuple[str, ...]) -> list[str]:
        from queuectl.api import queues

        return queues.unknown(self, names)
