"""The queues of a spool as workers see them: their limits, defaults and pauses, and whether there is what a job needs.

Limits and defaults are read from `queues/`, and again when a file changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queuectl.config import queue_file, stamp
from queuectl.config.queue_file import QueueSettings, Rate, parse_rate
from queuectl.errors import ConfigError, Shortage
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import DEFAULT_QUEUE, is_queue
from queuectl.layout import QUEUE_FILE, QUEUE_PAUSED
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.settings import Settings
    from queuectl.config.stamp import Stamp
    from queuectl.layout import Layout

__all__ = [
    "DEFAULT",
    "QueueChoice",
    "QueueSettings",
    "Queues",
    "Rate",
    "engine_of",
    "parse_rate",
    "refuse_shortage",
    "shortage",
]

DEFAULT = DEFAULT_QUEUE
"""The queue of a job that names none."""


@dataclass(frozen=True, slots=True)
class QueueChoice:
    """Which queues a worker serves.

    Attributes:
        only: these, and no others; if it is empty: all.
        without: not these.
    """

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def serves(self, name: str) -> bool:
        """Return whether jobs of this queue are served."""
        return name not in self.without and (not self.only or name in self.only)


@dataclass(slots=True)
class _File:
    """What is known of one file.

    Attributes:
        stamp: of the file when it was read; None: read it again.
        settings: the last valid ones; None if there were none since the start.
        fault: file, line and reason if it cannot be read.
    """

    stamp: Stamp | None = None
    settings: QueueSettings | None = None
    fault: str | None = None


class Queues:
    """The settings and pauses of all queues, which follow the files in `queues/`.

    While a file is not valid, its values from before stay in force. A queue whose file has not been valid since the
    start is closed, as its limit is not known.

    Args:
        say: called with a line about each change, and about what is wrong with a file.
    """

    def __init__(self, layout: Layout, say: Callable[[str], None] = lambda _: None) -> None:
        self._layout = layout
        self._say: Callable[[str], None] = lambda _: None
        self._folder: Stamp | None = None
        self._files: dict[str, _File] = {}
        self._paused: frozenset[str] = frozenset()
        self._marks: list[str] = []
        self._is_new = True
        self._say = say
        self.refresh()
        self._is_new = False

    def get(self, name: str) -> QueueSettings:
        """Return the settings of a queue. One without a file has no limits."""
        known = self._files.get(name)
        return known.settings if known and known.settings else QueueSettings(name)

    def names(self) -> list[str]:
        """Return the queues that have a file, sorted."""
        return sorted(self._files)

    def paused(self) -> list[str]:
        """Return the queues that are paused, sorted."""
        return sorted(self._paused)

    def is_paused(self, name: str) -> bool:
        """Return whether somebody has paused this queue."""
        return name in self._paused

    def is_closed(self, name: str) -> bool:
        """Return whether no job of this queue may start now: it is paused, or its limit is not known."""
        known = self._files.get(name)
        return name in self._paused or (known is not None and known.settings is None)

    def pause_reason(self, name: str) -> str | None:
        """Return the reason of the pause of a queue, which may be empty; None if it is not paused."""
        if name not in self._paused:
            return None
        from queuectl.job.redact import as_reason
        from queuectl.system import safe_open

        return as_reason(safe_open.read_text(self._layout.queue_paused(name)))

    def pauses_seen(self) -> str | None:
        """Return the marks of the pauses that were there at the last look, in order; None if there were none.

        A worker reports them, so that others know that it has noticed.
        """
        return " ".join(self._marks) or None

    def faults(self) -> dict[str, str]:
        """Return what is wrong with files: file, line and reason, by the name of the queue."""
        return {name: one.fault for name, one in sorted(self._files.items()) if one.fault}

    def refresh(self) -> bool:
        """Look whether files have changed, and read those again; return True if something is different now."""
        changed = self._list()
        self._marks = [mark for name in self.paused() if (mark := _mark(self._layout.queue_paused(name)))]
        for name in list(self._files):
            changed |= self._read(name)
        return changed

    def _list(self) -> bool:
        """Read the names in the folder again if its time has changed."""
        seen = stamp.of(self._layout.queues)
        if seen == self._folder and not self._is_new:
            return False
        try:
            names = [] if seen is None else os.listdir(self._layout.queues)
        except OSError as error:
            if self._is_new:
                raise ConfigError(f"cannot read {self._layout.queues}: {error.strerror}") from None
            return False  # the folder was there: its files stay in force until it can be read again
        self._folder = seen
        there = set(
            filter(is_queue, (name.removesuffix(QUEUE_FILE) for name in names if name.endswith(QUEUE_FILE)))
        )
        paused = _paused_in(names)
        changed = paused != self._paused or there != self._files.keys()
        self._tell_pauses(paused)
        self._paused = paused
        for name in [name for name in self._files if name not in there]:
            self._tell(f"queue {name}: it has no file any more, and so no limits")
            del self._files[name]
        for name in sorted(there - self._files.keys()):
            # A queue that had no file had no limits. At the start nothing is known of it.
            self._files[name] = _File(settings=None if self._is_new else QueueSettings(name))
        return changed

    def _read(self, name: str) -> bool:
        """Read one file again if it has changed."""
        known = self._files[name]
        seen = stamp.of(self._layout.queue_file(name))
        if (seen == known.stamp and not known.fault) or (known.settings and stamp.is_being_written(seen)):
            return False
        if seen is None:
            self._folder = None  # deleted since the folder was read: read that again
            return False
        try:
            found = queue_file.load(self._layout, name)
        except ConfigError as error:
            return self._note_fault(known, name, str(error))
        changed = found != known.settings or known.fault is not None
        if changed:
            self._tell(f"queue {name}: {_differences(known.settings, found) or 'its file is valid again'}")
        self._files[name] = _File(seen, found)
        return changed

    def _note_fault(self, known: _File, name: str, fault: str) -> bool:
        # The stamp is forgotten: it stays the same when the disk works again.
        known.stamp = None
        if fault == known.fault:
            return False
        known.fault = fault
        goes_on = "the values from before stay in force"
        closed = f"no job of the queue {name} is started until it is valid"
        self._say(f"{fault}; {goes_on if known.settings else closed}")
        return True

    def _tell_pauses(self, paused: frozenset[str]) -> None:
        for name in sorted(paused - self._paused):
            self._say(f"queue {name} is paused")
        for name in sorted(self._paused - paused):
            self._say(f"queue {name} is no longer paused")

    def _tell(self, line: str) -> None:
        if not self._is_new:
            self._say(line)


def shortage(needs: Mapping[str, int], resources: Mapping[str, int]) -> str | None:
    """Return why a job that needs this can never start; None if there is enough of everything."""
    for name, amount in needs.items():
        if name not in resources:
            from difflib import get_close_matches

            near = get_close_matches(name, resources, n=1)
            return f"no resource is called {name}" + (f"; is {near[0]} meant?" if near else "")
        if amount > resources[name]:
            verb = "are" if resources[name] != 1 else "is"
            return f"it needs {amount} {name}, and there {verb} {resources[name]}"
    return None


def refuse_shortage(needs: Mapping[str, int], resources: Mapping[str, int]) -> None:
    """Refuse a job that could never start.

    Raises:
        Shortage: there is not so much; the hint is the setting with which there would be.
    """
    fact = shortage(needs, resources)
    if fact:
        import shlex

        from queuectl.config.keys import as_text

        raised = {name: max(amount, resources.get(name, 0)) for name, amount in needs.items()}
        wanted = shlex.quote(as_text({**resources, **raised}))
        raise Shortage(fact, hint=f"queuectl config set resources {wanted}")


def engine_of(name: str, queues: Queues, settings: Settings) -> str:
    """Return where the jobs of a queue run: `layout.LOCAL`, or the name of an engine.

    Its file says so, or else the settings of the spool. It holds for jobs that wait already, too.
    """
    return queues.get(name).engine or settings.engine


def _paused_in(names: list[str]) -> frozenset[str]:
    """Return the queues that are paused, from the names in the folder of queues."""
    paused = (name.removesuffix(QUEUE_PAUSED) for name in names if name.endswith(QUEUE_PAUSED))
    return frozenset(filter(is_queue, paused))


def _mark(path: str) -> str | None:
    try:
        return files.identity(os.lstat(path))
    except OSError:
        return None  # it has just been deleted


def _differences(before: QueueSettings | None, now: QueueSettings) -> str:
    was, found = {} if before is None else before.as_dict(), now.as_dict()
    return ", ".join(
        f"{key} = {_shown(found.get(key))} (was {_shown(was.get(key))})"
        for key in queue_file.KEYS
        if was.get(key) != found.get(key)
    )


def _shown(value: object) -> str:
    from queuectl.config.keys import as_text

    return as_text(value)
