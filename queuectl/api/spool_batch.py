"""The part of Spool that is about its batches."""

from __future__ import annotations

from queuectl.api.spool_base import SpoolBase, locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.api.batches import Batch


class BatchPart(SpoolBase):
    """Reads batches."""

    @locked
    def batches(self) -> list[Batch]:
        """Return the batches that jobs have, by name."""
        from queuectl.api import batches

        self._look()
        return batches.of_spool(self)

    @locked
    def batch(self, name: str) -> Batch:
        """Return one batch. Batches need not be declared: one that no job has yet has no jobs.

        Raises:
            ValueError: no batch can have this name.
        """
        from queuectl.api import batches
        from queuectl.job.fields import check_field

        check_field("batch", name)
        self._look()
        return next(iter(batches.of_spool(self, name)), batches.Batch(name))

    @locked
    def _batch_names(self, beginning: str, limit: int) -> list[str]:
        from queuectl.index import batches

        self._look()
        return self._ask(lambda: batches.names(self._index, beginning, limit))

    @locked
    def _ended_before(self, name: str, moment: float) -> list[str]:
        """Return jobs of a batch that ended before a moment; none if the index does not know. It is not refreshed."""
        from queuectl.index import batches
        from queuectl.job.times import micros

        if not self._index.usable:
            return []
        return self._ask(lambda: batches.ended_before(self._index, name, micros(moment)))
