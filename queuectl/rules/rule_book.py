"""The rules of a spool, which follow the files in `rules/`: which there are, which are paused, what is wrong with others."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import TYPE_CHECKING

from queuectl.config import stamp
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import is_queue
from queuectl.layout import QUEUE_PAUSED, RULE_FILES, RULES, is_rule_file
from queuectl.rules import rule_file
from queuectl.rules.rule import InvalidRule
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from queuectl.config.stamp import Stamp
    from queuectl.layout import Layout
    from queuectl.rules.rule import Rule


FEW = 100
"""Rules that are all looked at each second. A file that is edited in its place changes no time of the folder."""

PER_FILE = 0.005
"""Seconds for each rule more until all are looked at again: a worker that is busy, too, spends a thousandth of its time on it."""


@dataclass(slots=True)
class RuleFile:
    """What is known of one file.

    Attributes:
        name: the name of the file.
        stamp: of the file when it was read; None: read it again.
        rule: what it says; while a new version is being written, what it said before.
        arrived: when it came to where it is, or was changed, in whole epoch seconds.
        fault: why it cannot be used.
        unfinished: somebody is still writing it.
    """

    name: str
    stamp: Stamp | None = None
    rule: Rule | None = None
    arrived: int = 0
    fault: InvalidRule | None = None
    unfinished: bool = False


class Refused(InvalidRule):
    """A file that is not a plain one, or that its mode or owner keeps from being used.

    No time of the file shows when that is mended, and the mode of a folder above may be what is wrong.
    """


class RuleBook:
    """The files of rules as one process knows them.

    Args:
        settle_time: returns for how many seconds an invalid file must be unchanged before it counts as complete.
        monotonic: the monotonic clock.
        wanted: a file in which this is not found is not read further, and has no rule; None: read all.

    Attributes:
        files: by the name of the rule; a file that no rule can be called after is under its own name.
        paused: the rules that are paused.
        changed_at: when the folder last changed, in whole epoch seconds.
    """

    def __init__(
        self,
        layout: Layout,
        settle_time: Callable[[], float] = lambda: 2.0,
        monotonic: Callable[[], float] = time.monotonic,
        wanted: re.Pattern[bytes] | None = None,
    ) -> None:
        self._layout, self._monotonic = layout, monotonic
        self._settle_time, self._wanted = settle_time, wanted
        self._folder: Stamp | None = None
        self.files: dict[str, RuleFile] = {}
        self.paused: frozenset[str] = frozenset()
        self.changed_at = 0
        self._left: list[str] = []
        self._all_at = -math.inf

    def refresh(self, until: float | None = None) -> set[str]:
        """Look whether files have changed, and read those again.

        Args:
            until: the monotonic moment at which to stop reading and to go on at the next call; None: read all.

        Returns:
            the names of the rules that are different now.
        """
        changed: set[str] = set()
        if self.is_complete:
            before, folder = self.paused, self._folder
            changed = self._list() | (before ^ self.paused)
            self._left = self._to_look_at(is_new=self._folder != folder)
        while self._left:
            name = self._left.pop()
            known = self.files[name]
            before_stamp = known.stamp
            if self._read(name, known):
                changed.add(name)
            # Only after a file was read: however slow the disk, each call reads one more.
            if until is not None and known.stamp != before_stamp and self._monotonic() > until:
                break
        return changed

    def _to_look_at(self, *, is_new: bool) -> list[str]:
        """Return the names of the rules whose files are to be looked at, the last one first."""
        now = self._monotonic()
        if not is_new and now < self._all_at:
            return [name for name, known in self.files.items() if _is_open(known)][::-1]
        self._all_at = now + PER_FILE * max(0, len(self.files) - FEW)
        return [*self.files][::-1]

    def look_again(self) -> None:
        """Look at all files at the next call: one of them may have been edited in its place."""
        self._all_at = -math.inf

    @property
    def is_complete(self) -> bool:
        """Whether every file has been looked at since the names were read."""
        return not self._left

    def _list(self) -> set[str]:
        """Read the names in the folder again if its time has changed; returns the rules that are gone."""
        seen = stamp.of(self._layout.rules)
        if seen == self._folder:
            return set()
        try:
            names = [] if seen is None else os.listdir(self._layout.rules)
        except OSError:
            return set()  # it was there: what it said stays in force until it can be read again
        self._folder = seen
        self.changed_at = 0 if seen is None else seen[1] // 1_000_000_000
        paused = (name.removesuffix(QUEUE_PAUSED) for name in names if name.endswith(QUEUE_PAUSED))
        self.paused = frozenset(filter(is_queue, paused))
        there = _by_rule(names)
        gone = {name for name, known in self.files.items() if there.get(name) != known.name}
        self.files = {
            name: self.files[name] if name in self.files and name not in gone else RuleFile(file)
            for name, file in there.items()
        }
        return gone

    def _read(self, name: str, known: RuleFile) -> bool:
        """Read one file again if it has changed; returns whether something is different now."""
        path = os.path.join(self._layout.rules, known.name)
        seen = stamp.of(path)
        if seen == known.stamp and seen is not None and not isinstance(known.fault, Refused):
            return False
        if seen is None:
            self._folder = None  # deleted since the folder was read: read that again
            return False
        before = known.rule, str(known.fault)
        known.unfinished = False
        try:
            status, rule = _load(self._layout, name, path, known.name, self._wanted)
        except InvalidRule as error:
            if self._is_being_written(path):
                known.stamp, known.unfinished = None, True
                return False
            known.stamp, known.rule, known.fault = seen, None, error
        except OSError as error:
            known.stamp = None  # a passing fault of the disk: try again
            known.fault = InvalidRule(
                f"cannot be read: {(error.strerror or str(error)).lower()}", _shown(known.name)
            )
        else:
            if safe_open.is_open_for_writing(path):
                known.stamp, known.unfinished = None, True
                return False
            known.stamp, known.rule, known.fault = seen, rule, None
            known.arrived = int(_change_time(status))
        return before != (known.rule, str(known.fault))

    def _is_being_written(self, path: str) -> bool:
        try:
            return bool(safe_open.is_open_for_writing(path)) or (
                abs(time.time() - _change_time(os.lstat(path))) < self._settle_time()
            )
        except OSError:
            return True

    def rules(self) -> dict[str, Rule]:
        """Return the rules that can be used, by name."""
        return {name: known.rule for name, known in self.files.items() if known.rule is not None}

    def others(self, name: str) -> dict[str, Rule]:
        """Read all files, and return the rules that can be used, by name, without one."""
        self.refresh()
        return {other: rule for other, rule in self.rules().items() if other != name}

    def faults(self) -> dict[str, InvalidRule]:
        """Return what is wrong with files, by the name of the file."""
        return {known.name: known.fault for known in self.files.values() if known.fault is not None}


def _is_open(known: RuleFile) -> bool:
    """Whether a file is not judged yet, or was refused for something that no time of it shows."""
    return known.stamp is None or isinstance(known.fault, Refused)


def _by_rule(names: list[str]) -> dict[str, str]:
    """Return the file of each rule. A second file of a rule, and one with a name that no rule can have, are under their own names."""
    found = {name: name for name in names if is_rule_file(name) and not name.endswith(RULE_FILES)}
    for ending in RULE_FILES:
        for name in sorted(names):
            if name.endswith(ending) and is_rule_file(name):
                stem = name.removesuffix(ending)
                found[name if stem in found or not is_queue(stem) else stem] = name
    return found


def _load(
    layout: Layout, name: str, path: str, file: str, wanted: re.Pattern[bytes] | None
) -> tuple[os.stat_result, Rule | None]:
    """Read the file of a rule, as carefully as that of a job: what it says is run. None: it is not wanted.

    Raises:
        InvalidRule: it cannot be used.
        OSError: it cannot be read now.
    """
    shown = _shown(file)
    stem, ending = os.path.splitext(file)
    try:
        data, status = safe_open.read_regular(path, rule_file.LIMIT)
        safe_open.refuse_untrusted(path, status)
    except safe_open.NotReadable as error:
        raise Refused(str(error), shown) from None
    except PermissionError:
        raise Refused("the worker's user may not read it", shown) from None
    check_name(stem, ending, shown)
    if name != stem:
        raise InvalidRule(f"the rule {stem} has another file beside it, which counts", shown)
    if wanted is not None and not wanted.search(data):
        return status, None
    return status, rule_file.parse(stem, data, shown, layout)


def check_name(stem: str, ending: str, shown: str) -> None:
    """Refuse a name that no rule can have.

    Raises:
        InvalidRule: it is one.
    """
    if ending not in RULE_FILES:
        raise InvalidRule("cannot be a rule: its name must end in .yaml, .yml or .json", shown)
    if not is_queue(stem):
        reason = "cannot be a rule: its name must be 1 to 30 of a-z A-Z 0-9 _ -, first a letter or digit"
        raise InvalidRule(f"{reason}, and then {ending}", shown)


def _shown(file: str) -> str:
    return f"{RULES}/{files.printable_name(file)}"


def _change_time(status: os.stat_result) -> float:
    """When a file was moved here or changed. On Windows st_ctime is the time of creation."""
    return status.st_mtime if sys.platform == "win32" else status.st_ctime
