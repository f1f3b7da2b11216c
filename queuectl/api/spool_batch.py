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
