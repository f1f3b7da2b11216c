"""The part of Spool that is about its batches, and what it tells of one."""

from __future__ import annotations

from queuectl.api.spool_base import SpoolBase, locked
from queuectl.fast_start.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs of one batch.

    Attributes:
        name: as their field `batch` has it.
        pending, processing, completed, failed, dead: how many of them are in this state.
        blocked: how many of those that wait start only once somebody has mended another job.
    """

    name: str
    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    blocked: int = 0

    @property
    def waiting(self) -> int:
        """How many wait: pending ones, and failed ones that will be tried again."""
        return self.pending + self.failed

    @property
    def jobs(self) -> int:
        """How many there are."""
        return self.waiting + self.processing + self.completed + self.dead

    @property
    def is_over(self) -> bool:
        """Whether there are jobs, and none of them waits or runs."""
        return self.jobs > 0 and not (self.waiting or self.processing)


class BatchPart(SpoolBase):
    """Reads batches."""

    @locked
    def batches(self) -> list[Batch]:
        """Return the batches that jobs have, by name."""
        self._look()
        return _states_of(self)

    @locked
    def batch(self, name: str) -> Batch:
        """Return one batch. Batches need not be declared: one that no job has yet has no jobs.

        Raises:
            ValueError: no batch can have this name.
        """
        from queuectl.job.fields import check_field

        check_field("batch", name)
        self._look()
        return next(iter(_states_of(self, name)), Batch(name))

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


def _states_of(spool: SpoolBase, name: str | None = None) -> list[Batch]:
    """Return the batches that jobs have, by name; or this one, if jobs have it. The index agrees with the folders."""
    from queuectl.index import batches

    found = spool._ask(lambda: batches.states(spool._index, name))
    blocked = spool._ask(lambda: batches.blocked(spool._index, name)) if found else {}
    return [Batch(one, blocked=blocked.get(one, 0), **found[one]) for one in sorted(found)]
