"""What the doctor finds: one fact and what fixes it; and the spool that it examines."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from queuectl.config import settings
from queuectl.config.settings import Settings
from queuectl.errors import ConfigError
from queuectl.index.index import Index
from queuectl.index.peek import Peek
from queuectl.intake.reconcile import Intake
from queuectl.rules.job_rules import JobRules
from queuectl.storage.transitions import Storage
from queuectl.system import safe_open
from queuectl.system.host import boot_id
from queuectl.system.locks import is_folder_locked, is_locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout

STALE = 36 * 3600.0
"""Seconds after which nobody is writing an unfinished file any more. Mail systems have used this limit for decades."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: one or two words that never change, for programs.
        where: the path in the spool, or outside it, or a job id.
        fact: what is wrong, in one line that names the path or id.
        cure: what a repair does about it, or what a person can do.
        fix: does it; None if no repair is possible. Calling it twice does no harm.
        harmless: worth knowing, but not a fault.
    """

    kind: str
    where: str
    fact: str
    cure: str
    fix: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    harmless: bool = False

    @property
    def repairable(self) -> bool:
        """Whether a repair can fix it."""
        return self.fix is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as it is shown in JSON."""
        return {
            "kind": self.kind,
            "where": self.where,
            "fact": self.fact,
            "repairable": self.repairable,
            "cure": self.cure,
            "harmless": self.harmless,
        }


class Case:
    """A spool under examination: its paths and settings, the time, and what moves its files in a repair.

    Args:
        now: the wall clock, in epoch seconds.
        say: called with a line for each job that a repair frees.

    Attributes:
        index: the index as it is, which is only read.
        storage, intake: what repairs use. They open the index for themselves, and nothing does before a repair.
        config_error: why the settings cannot be read, or None; then `settings` has the defaults.
    """

    def __init__(self, layout: Layout, now: Callable[[], float], say: Callable[[str], None]) -> None:
        self.layout = layout
        self.now = now
        self.say = say
        self.settings = Settings()
        self.config_error: ConfigError | None = None
        try:
            self.settings, _ = settings.load(layout)
        except ConfigError as error:
            self.config_error = error
        self.index = Peek(layout.index, layout.root, boot_id())
        index = Index(layout.index, layout.root, boot_id())
        self.storage = Storage(layout, index, now)
        self.storage.owner = safe_open.other_owner(layout.root)
        self.storage.before_end = JobRules(self.storage, lambda: self.settings).before_end
        self.intake = Intake(layout, index, self.storage, lambda: self.settings)

    def path(self, *parts: str) -> str:
        """Return a path in the spool."""
        return os.path.join(self.layout.root, *parts)

    @property
    def is_of_another_user(self) -> bool:
        """Whether the spool belongs to another user, so that it may only be looked at."""
        return self.storage.owner is not None

    def is_alive(self, worker: str) -> bool:
        """Return whether a worker holds its lock, or that of its folder, in case somebody has deleted data/."""
        with suppress(OSError):
            return is_locked(self.layout.worker_file(worker, "lock")) or is_folder_locked(
                self.layout.claims(worker)
            )
        return True  # unknown, so nothing of this worker may be touched
