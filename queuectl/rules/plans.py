"""What is due of the rules with a time, and what was missed: queued first, and noted behind.

Only the worker with the lock of the rules has plans, see `scheduler`. The clock is passed in.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.errors import QueuectlError
from queuectl.layout import is_rule_file
from queuectl.rules import occurrences, queueing, rule_note
from queuectl.rules.plan import Plan
from queuectl.rules.rule_book import RuleBook
from queuectl.rules.rule_note import Note
from queuectl.rules.time_trigger import TimeTrigger
from queuectl.storage import unique_keys
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.settings import Settings
    from queuectl.rules.rule import Rule
    from queuectl.storage.transitions import Storage

_AT_ONCE = 32
"""Jobs that are queued together, with one wait for the disk: a tenth of a slice."""

SET_BACK = 3 * 3600
"""Seconds. Was the clock set back by no more, then nothing is due until it has passed the last moment again."""

DOUBT = 600.0
"""Seconds, by the monotonic clock, for which a clock that was set back by more is not trusted. Machines without a clock
of their own begin in 1970, and have the right time some minutes later."""

LOOK = 1.0
"""Seconds between looks at the files while very much is due: with 1,000 rules a look takes 7 ms."""

_REASON = ".reason"

_REASONS_AGAIN = 60.0
"""Seconds until a reason is written again that the disk refused. Each attempt changes the folder, which wakes workers."""


class Plans:
    """The plans of one worker.

    Args:
        settings: returns the settings of the spool.
        say: takes a line for the log.
        monotonic: the monotonic clock.

    Attributes:
        changes: how often rules have changed.
        next_at: when the next rule is due, in epoch seconds; None: none is.
        is_complete: all files were read, and all that is due was queued.
        failed: something that is due could not be queued.
        must_look: the next look is due in a second although no file changes.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._settings, self._say, self._monotonic = storage, settings, say, monotonic
        self._layout = storage.layout
        self._book = RuleBook(storage.layout, lambda: settings().settle_time, monotonic)
        self._defaults = JobDefaults(storage.layout, settings())
        self._plans: dict[str, Plan] = {}
        self._doubted: dict[str, float] = {}
        self._zone: object = None
        self._told: dict[str, str] = {}
        self._unwritten: dict[str, Note] = {}
        self._data_since = int(rule_note.known_since(storage.layout))
        self._reasons_at = math.inf
        self._is_new, self._is_behind, self._is_changed, self._looked_at = True, False, False, 0.0
        self.changes = 0
        self.next_at: int | None = None
        self.is_complete, self.failed = False, False

    @property
    def rules(self) -> dict[str, Rule]:
        """All rules that can be used, by name."""
        return self._book.rules()

    @property
    def paused(self) -> frozenset[str]:
        """The names of the rules that are paused."""
        return self._book.paused

    @property
    def must_look(self) -> bool:
        """Whether something goes on that no change of a file reports."""
        return bool(self._doubted or self._unwritten) or any(
            known.unfinished for known in self._book.files.values()
        )

    def look_again(self) -> None:
        """Look at the files of all rules at the next look."""
        self._book.look_again()

    def look(self, until: float) -> None:
        """Follow changed files, and doubt a clock that was set back by hours.

        What the disk refuses to write here is tried again at the next look. It keeps no rule from its moment.

        Args:
            until: the monotonic moment at which to stop, and to go on at the next look.
        """
        if self._is_behind and self._monotonic() - self._looked_at < LOOK:
            self.is_complete = True  # go on queueing: the files were looked at a moment ago
            return
        self._looked_at = self._monotonic()
        changed = self._book.refresh(until)
        zone = occurrences.of_machine()
        if zone is not self._zone:
            self._zone = zone
            changed |= {name for name, plan in self._plans.items() if plan.trigger.follows_machine}
        for name in changed:
            self._plan(name)
        self.is_complete = self._book.is_complete
        if changed:
            self._is_changed = True
            self._find_next()
        self._doubt_clock()
        for name, note in list(self._unwritten.items()):
            self._write(name, note)
        # What looks at all rules is done once, and not after each slice of a thousand files.
        is_read = self._is_changed and self.is_complete
        self.changes += is_read
        if is_read or self._monotonic() >= self._reasons_at:
            self._is_changed = False
            self._tell_faults()
        if self._is_new and self.is_complete:
            self._rest_without_files()

    # -- plans -----------------------------------------------------------------------------------------------------

    def _plan(self, name: str) -> None:
        known = self._book.files.get(name)
        plan = self._plans.get(name)
        trigger = known.rule.trigger if known and known.rule else None
        if known is None or known.rule is None or not isinstance(trigger, TimeTrigger):
            if plan is not None and known is None:
                self._rest(name, plan.note)
            self._plans.pop(name, None)
            return
        rule, is_paused = known.rule, name in self._book.paused
        note = plan.note if plan else self._unwritten.get(name) or rule_note.read(self._layout, name)
        before = None if note is None else (note.mark, note.done, note.rests)
        if note is None:
            written = rule_note.written_at(self._layout, name)
            note = Note(mark=rule.mark, done=max(known.arrived, self._data_since, written))
        if note.mark != rule.mark:
            # Another `when`: nothing from before the change is due by it.
            note.mark, note.done = rule.mark, known.arrived
        if note.rests and not is_paused:
            # Whoever ended the rest changed the folder. What passed until then was not missed.
            note.done = max(note.done, min(int(self._storage.now()), self._book.changed_at))
        note.rests = is_paused
        if before != (note.mark, note.done, note.rests):
            self._write(name, note)
        self._plans[name] = made = Plan(rule, trigger, note)
        made.find_next()

    def _rest(self, name: str, note: Note) -> None:
        if not note.rests:
            note.rests = True
            self._write(name, note)

    def _write(self, name: str, note: Note) -> None:
        """Write a note now, or at a later look: were it left out, the moment would be run again without its record."""
        try:
            rule_note.write(self._layout, name, note)
        except OSError as error:
            if name not in self._unwritten:  # told once, and not each second
                reason = (error.strerror or str(error)).lower()
                self._say(f"rule {name}: its note cannot be written: {reason}")
            self._unwritten[name] = note
        else:
            self._unwritten.pop(name, None)

    def _rest_without_files(self) -> None:
        """Note that rules rest whose files were taken away while no worker looked."""
        try:
            names = os.listdir(self._layout.rule_notes)
        except FileNotFoundError:
            names = []
        except OSError:
            return  # tried again at the next look
        self._is_new = False
        for file in names:
            name = file.removesuffix(".json")
            if files.is_temporary_name(file):  # its writer was killed; only we write here
                with suppress(OSError):
                    os.unlink(os.path.join(self._layout.rule_notes, file))
            elif name != file and name not in self._book.files:
                note = rule_note.read(self._layout, name)
                if note is not None:
                    self._rest(name, note)

    def _find_next(self) -> None:
        self.next_at = min(
            (plan.next for plan in self._plans.values() if plan.next is not None), default=None
        )

    def _doubt_clock(self) -> None:
        """Begin anew after the clock was set back by hours, but only when it has stayed so for ten minutes."""
        now = self._storage.now()
        ahead = [name for name, plan in self._plans.items() if plan.note.done > now + SET_BACK]
        self._doubted = {name: self._doubted.get(name, self._monotonic()) for name in ahead}
        for name in ahead:
            if self._monotonic() - self._doubted[name] >= DOUBT:
                plan = self._plans[name]
                plan.note.done = int(now)
                self._finish(plan)
                del self._doubted[name]
        if ahead:
            self._find_next()

    # -- what is due -----------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Return whether a rule is due now."""
        return self.next_at is not None and self.next_at <= self._storage.now()

    def queue_due(self, until: float) -> None:
        """Queue the jobs of what is due, the earliest first.

        Args:
            until: the monotonic moment at which to stop, and to go on at the next call.

        Raises:
            sqlite3.Error: the index refused.
        """
        self._defaults.refresh(self._settings())
        self.failed = self._is_behind = False
        now = self._storage.now()
        due = [plan for plan in self._plans.values() if plan.next is not None and plan.next <= now]
        due.sort(key=lambda plan: plan.next or 0)
        if unique_keys.is_locked(self._storage):
            self.failed = True  # a worker waits for no producer, as meanwhile it would start no job
            return
        with unique_keys.locked(self._storage):  # once for all: each taking of the lock looks at all folders
            self._queue_each(due, now, until)
        self._find_next()

    def _queue_each(self, due: list[Plan], now: float, until: float) -> None:
        while due:
            part, due = due[:_AT_ONCE], due[_AT_ONCE:]
            alone = self._queue_together(part, now)
            for number, plan in enumerate(alone, 1):
                try:
                    self._queue(plan, now, until)
                except (QueuectlError, OSError) as error:
                    self.failed = True
                    self._tell(plan.rule.name, f"rule {plan.rule.name}: {error}")
                # Only after one was queued: however long the lock took, each call goes on.
                if self._monotonic() > until and number < len(alone):
                    self._is_behind = True
                    break
            if self._monotonic() > until:
                self._is_behind = self._is_behind or bool(due)
                break
        self.is_complete = self.is_complete and not self._is_behind

    def _queue_together(self, part: list[Plan], now: float) -> list[Plan]:
        """Queue the jobs of those rules that have one job for one moment, and return the others."""
        together: list[tuple[Plan, int]] = []
        alone: list[Plan] = []
        for plan in part:
            if plan.rule.is_list or plan.rule.name in self._book.paused:
                alone.append(plan)
                continue
            chosen = plan.choose(now)
            if len(chosen) == 1 and chosen[0] not in plan.note.queued:
                together.append((plan, chosen[0]))
            else:
                alone.append(plan)
        if len(together) < 2:
            return part
        wanted = [(plan.rule, moment) for plan, moment in together]
        try:
            reasons = queueing.queue_several(self._storage, self._defaults, wanted)
        except (QueuectlError, OSError):
            return part  # one by one, so that none keeps another from being queued
        for (plan, moment), reason in zip(together, reasons, strict=True):
            plan.note_result(moment, reason)
            self._told.pop(plan.rule.name, None)
            self._finish(plan)
        return alone

    def _queue(self, plan: Plan, now: float, until: float) -> None:
        rule, note = plan.rule, plan.note
        if rule.name in self._book.paused:
            note.done, note.rests = int(now), True
            self._finish(plan)
            return
        try:
            for moment in plan.choose(now):
                if moment in note.queued:
                    reason = None  # under a clock that was ahead
                else:
                    reason = queueing.queue(
                        self._storage, self._defaults, rule, moment, lambda: self._monotonic() > until
                    )
                plan.note_result(moment, reason)
                self._told.pop(rule.name, None)
                if self._monotonic() > until:
                    break
        except queueing.Unfinished:
            self._is_behind = True
        finally:
            self._finish(plan)

    def _finish(self, plan: Plan) -> None:
        """Find out when a rule is due next, and write its note. Until the disk takes that, the ids tell what was queued."""
        plan.find_next()
        self._write(plan.rule.name, plan.note)

    # -- what is wrong ---------------------------------------------------------------------------------------------

    def _tell(self, about: str, line: str) -> None:
        """Log a line, unless the last one about this was the same."""
        if self._told.get(about) != line:
            self._told[about] = line
            self._say(line)

    def _tell_faults(self) -> None:
        """Write the reason beside each file that cannot be used, and delete those that are over."""
        faults = self._book.faults()
        refused = False
        for file, fault in faults.items():
            self._tell(file, str(fault))
            path = os.path.join(self._layout.rules, f"{file}{_REASON}")
            if safe_open.read_text(path).strip() != fault.fault_with_place:
                # The log and `status` tell the fault, also on a full disk, or of a name that is too long.
                try:
                    files.replace(path, f"{fault.fault_with_place}\n".encode())
                except OSError:
                    refused = True
        for file in list(self._told):
            if file not in faults and file not in self._plans:
                del self._told[file]
        for path in self._reasons_that_are_over(faults):
            try:
                files.delete(path)
            except OSError:
                refused = True
        self._reasons_at = self._monotonic() + _REASONS_AGAIN if refused else math.inf

    def _reasons_that_are_over(self, faults: Mapping[str, object]) -> list[str]:
        try:
            names = os.listdir(self._layout.rules)
        except OSError:
            return []
        unjudged = {known.name for known in self._book.files.values() if known.stamp is None}
        reasons = {name: name.removesuffix(_REASON) for name in names if name.endswith(_REASON)}
        return [
            os.path.join(self._layout.rules, name)
            for name, of in reasons.items()
            if is_rule_file(of) and of not in faults and of not in unjudged
        ]
