"""Batches of jobs, as people and programs are told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.fast_start.dataclass import dataclass

if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase


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


def of_spool(spool: SpoolBase, name: str | None = None) -> list[Batch]:
    """Return the batches that jobs have, by name; or this one, if jobs have it. The index agrees with the folders."""
    from queuectl.index import batches

    found = spool._ask(lambda: batches.states(spool._index, name))
    blocked = spool._ask(lambda: batches.blocked(spool._index, name)) if found else {}
    return [Batch(one, blocked=blocked.get(one, 0), **found[one]) for one in sorted(found)]
