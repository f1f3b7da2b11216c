"""What a look at a spool brings to light: one fact, and what would mend it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from queuectl.config import settings
from queuectl.config.settings import Settings
from queuectl.errors import ConfigError
from queuectl.index.index import Index
from queuectl.intake.reconcile import Intake
from queuectl.storage.mover import Mover
from queuectl.system.host import boot_id
from queuectl.system.locks import is_folder_locked, is_locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout

STALE = 36 * 3600.0
"""Seconds after which nobody is still writing what lies about half done; mail systems have used this for decades."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: a word or two that never change, for programs.
        where: the path within the spool, or outside it, or the id of a job.
        fact: what is the matter, in one line that names the path or id.
        cure: what a repair does about it, or what a person can do.
        mend: does it; None when no repair is possible. Doing it twice does no harm.
        harmless: worth knowing, but the spool is sane with it.
    """

    kind: str
    where: str
    fact: str
    cure: str
    mend: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    harmless: bool = False

    @property
    def repairable(self) -> bool:
        """Whether a repair does something about it."""
        return self.mend is not None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "where": self.where,
            "fact": self.fact,
            "repairable": self.repairable,
            "cure": self.cure,
            "harmless": self.harmless,
        }


class Case:
    """A spool under examination: its paths, its settings, the time, and what moves files when it is repaired.

    Args:
        now: the wall clock in epoch seconds.
        say: takes a line for each job that a repair frees.
    """

    def __init__(self, layout: Layout, now: Callable[[], float], say: Callable[[str], None]) -> None:
        self.layout = layout
        self.now = now
        self.say = say
        self.settings = Settings()
        self.trouble: ConfigError | None = None
        try:
            self.settings, _ = settings.load(layout)
        except ConfigError as error:
            self.trouble = error
        self.index = Index(layout.index, layout.root, boot_id())
        self.mover = Mover(layout, self.index, now)
        self.intake = Intake(layout, self.index, self.mover, lambda: self.settings)

    def within(self, *parts: str) -> str:
        """A path in the spool."""
        return os.path.join(self.layout.root, *parts)

    def lives(self, worker: str) -> bool:
        """Whether the worker of this name holds its lock, or that of its folder should somebody have deleted data/."""
        with suppress(OSError):
            return is_locked(self.layout.worker_file(worker, "lock")) or is_folder_locked(
                self.layout.claims(worker)
            )
        return True  # not to be seen: then it is not ours to judge
