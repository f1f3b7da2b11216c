"""What people ask about rules: what one says, when it is due next, what came of it; and what they do with one."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from queuectl.control import commands, pause, registry
from queuectl.errors import ConfigError, SpoolError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index import ends
from queuectl.index.filter import Filter
from queuectl.job.conditions import FIELDS
from queuectl.job.fields import BATCH
from queuectl.layout import RULE_FILES
from queuectl.rules import folder_survey, job_trigger, rule_file, rule_note
from queuectl.rules.file_trigger import FileTrigger
from queuectl.rules.plans import SET_BACK
from queuectl.rules.rule import InvalidRule
from queuectl.rules.rule_book import RuleBook, check_name
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.api.spool_base import SpoolBase
    from queuectl.api.spool_rule import RulePart
    from queuectl.control.pause import Pause
    from queuectl.index.row import Row
    from queuectl.layout import Layout
    from queuectl.rules.folder_survey import Survey
    from queuectl.rules.rule import Rule as RuleInFile

_LATE = 5.0
"""Seconds after which a moment for which nothing was queued is told, while workers live."""

NOT_FOLLOWED = "no worker runs, so no rule is followed: queuectl worker start"


@dataclass(slots=True)
class Rule:
    """One rule of a spool, as it was when it was read.

    Attributes:
        name: of the rule; if its file can be no rule, the name of that file.
        kind: cron, every, at or file; empty if the file cannot be used.
        file: the path of its file.
        paused: since when it is paused, and why; None if it is not.
        problem: why it cannot be used, or does not queue what is due; None if nothing is wrong.
        last: the job that it queued last and that is still there.
        queued: the last moments for which jobs were queued, in epoch seconds.
        skipped: how many moments passed without a job.
        skips: the last of them, each with the reason.
    """

    name: str
    kind: str = ""
    file: str = ""
    paused: Pause | None = None
    problem: str | None = None
    last: Row | None = None
    queued: list[int] = field(default_factory=list)
    skipped: int = 0
    skips: list[tuple[int, str]] = field(default_factory=list)
    _rule: RuleInFile | None = None
    _done: int = 0
    _spool: RulePart | None = None
    _layout: Layout | None = None

    @property
    def when(self) -> str:
        """What its `when` says, in words; empty if the file cannot be used. Working that out takes as long as reading the file."""
        return "" if self._rule is None else self._rule.trigger.words

    def next(self, count: int = 1) -> list[int]:
        """Return the next moments at which it is due, in epoch seconds; fewer if there are no more. A pause does not count."""
        if self._rule is None or self._rule.trigger.schedule is None:
            return []
        after = max(self._done, int(time.time()))
        return list(islice(self._rule.trigger.schedule.after(after), count))

    @property
    def has_time(self) -> bool:
        """Whether it is due at moments that are known before."""
        return self._rule is not None and self._rule.trigger.schedule is not None

    def look(self) -> Survey | None:
        """Look at the folder that it watches: which files it would take now, and what the others wait for.

        Returns:
            None: it watches no folder.
        """
        trigger = self.trigger_of_files
        return None if trigger is None else folder_survey.survey(trigger, self._layout, self.name)

    @property
    def trigger_of_files(self) -> FileTrigger | None:
        """Which files it takes; None: it watches no folder."""
        trigger = None if self._rule is None else self._rule.trigger
        return trigger if isinstance(trigger, FileTrigger) else None

    def run(self) -> list[str]:
        """Queue its jobs now; no moment is used up. Returns their ids; see `Spool.run_rule` for what it raises."""
        return self._of_spool.run_rule(self.name)

    def pause(self, reason: str = "") -> None:
        """Pause it; see `Spool.pause_rule`."""
        self._of_spool.pause_rule(self.name, reason)

    def resume(self) -> bool:
        """End the pause; see `Spool.resume_rule`."""
        return self._of_spool.resume_rule(self.name)

    @property
    def _of_spool(self) -> RulePart:
        if self._spool is None:
            raise ConfigError("this rule was read from a file that is in no spool")
        return self._spool


def checked(path: str, layout: Layout | None = None) -> Rule:
    """Read a file that is not in place yet.

    Args:
        layout: of the spool for which it is.

    Raises:
        ConfigError: it cannot be used as a rule; with the line and the reason.
    """
    from queuectl.system import safe_open

    stem, ending = os.path.splitext(os.path.basename(path))
    try:
        data, _ = safe_open.read_regular(path, rule_file.LIMIT)
    except safe_open.NotReadable as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if ending in RULE_FILES:
        check_name(stem, ending, path)  # else it may get its name when it is moved into place
    found = rule_file.parse(stem[:30] or "rule", data, path, layout)
    trigger = found.trigger
    problem = folder_survey.problem_of(trigger) if isinstance(trigger, FileTrigger) else None
    return Rule(stem, found.kind, path, problem=problem, _rule=found, _layout=layout)


def hints(one: Rule, layout: Layout | None = None) -> list[str]:
    """Return a sentence for each name in its jobs that is most likely mistyped, and one if it is never due again.

    Args:
        layout: of the spool whose other rules may watch the same folder.
    """
    from queuectl.job.near_names import near_misses

    if one._rule is None:
        return []
    found = [line for job in one._rule.jobs for line in near_misses(job)]
    if one._rule.is_list:
        found += _hints_about_parents(one._rule)
    if isinstance(one._rule.trigger, FileTrigger):
        return [*found, *_hints_about_folder(one._rule.trigger, one.name, layout)]
    return (
        found if one.next() or not one.has_time else [*found, "it is never due: all its moments have passed"]
    )


def _hints_about_parents(rule: RuleInFile) -> list[str]:
    """Return a sentence for each job of a list that waits for none of the list. Mistyped, it would be blocked each time."""
    from difflib import get_close_matches

    names = [str(job["id"]) for job in rule.jobs]
    return [
        f"{job['id']} waits for {parent}, which is no job of this rule"
        + (f"; is {near[0]} meant?" if (near := get_close_matches(parent, names, n=1)) else "")
        for job in rule.jobs
        for kind in FIELDS
        for parent in ([job[kind]] if isinstance(job.get(kind), str) else job.get(kind) or ())
        if parent not in names and not parent.startswith(BATCH)
    ]


def _hints_about_folder(trigger: FileTrigger, name: str, layout: Layout | None) -> list[str]:
    others = RuleBook(layout).others(name) if layout is not None else {}
    watching = {
        other: rule.trigger for other, rule in others.items() if isinstance(rule.trigger, FileTrigger)
    }
    rivals = folder_survey.movers(trigger, watching)
    return [f"rule {other} watches the same folder: the first of the two takes a file" for other in rivals]


def all_of(layout: Layout, spool: RulePart | None = None, book: RuleBook | None = None) -> list[Rule]:
    """Return all rules of a spool by name, also files that cannot be used.

    Args:
        spool: what the rules are run and paused by.
        book: what is known of the files from an earlier call.
    """
    book = book or RuleBook(layout)
    book.refresh()
    found = []
    for name, known in sorted(book.files.items()):
        one = Rule(name, file=os.path.join(layout.rules, known.name), _spool=spool, _rule=known.rule)
        one._layout = layout
        if known.rule is not None:
            one.kind = known.rule.kind
        if known.fault is not None:
            one.problem = known.fault.fault_with_place
        elif known.unfinished:
            one.problem = "it is still being written"
        elif known.rule is not None and isinstance(known.rule.trigger, FileTrigger):
            one.problem = folder_survey.problem_of(known.rule.trigger)
        one.paused = pause.read(layout, rule=name) if name in book.paused else None
        if (note := rule_note.read(layout, name)) is not None:
            one.queued, one.skipped, one.skips, one._done = note.queued, note.skipped, note.skips, note.done
        found.append(one)
    return found


def last_job(spool: RulePart, name: str) -> Row | None:
    """Return the job that a rule queued last and that is still there."""
    rows = spool._ask(lambda: spool._index.select(Filter(rule=name, sort="-arrived", limit=1)))
    return rows[0] if rows else None


def last_ones(spool: RulePart, one: Rule) -> None:
    """Put into a rule its last job; and into one about jobs, of which no note tells, when the last ones were queued."""
    one.last = last_job(spool, one.name)
    if one.kind == job_trigger.KIND and not one.queued:
        which = Filter(rule=one.name, sort="-arrived", limit=rule_note.SHOWN)
        rows = spool._ask(lambda: spool._index.select(which))
        one.queued = sorted({(row.created_at or row.arrived) // 1_000_000 for row in rows})


def untold(spool: SpoolBase) -> dict[str, int]:
    """Return how many jobs of each rule about jobs are dead: so often something could not be told. No rule tells of that."""
    return spool._ask(lambda: ends.dead_hooks(spool._index))


def notes_of_untold(spool: SpoolBase) -> list[str]:
    """Return a line for `status` for each rule whose jobs could not tell something."""
    return [
        f"rule {name}: {number} notification{'s' if number > 1 else ''} could not be sent: queuectl list --state dead --rule {name}"
        for name, number in untold(spool).items()
    ]


def trouble(one: Rule, now: float, *, has_workers: bool) -> str | None:
    """Return why a rule does not queue what is due, as far as it can be told from its note; None: nothing is known."""
    if one._rule is None or one.paused is not None:
        return None
    if one._done > now + SET_BACK:
        return "the clock was set back, so nothing is queued for ten minutes"
    if has_workers and one._done and one._rule.trigger.schedule is not None:
        due = next(one._rule.trigger.schedule.after(one._done), None)
        if due is not None and due < now - _LATE:
            return f"it is due since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(due))}, and no job was queued: queuectl worker logs"
    return None


def not_followed(layout: Layout, those: list[Rule]) -> list[str]:
    """Return a note if some of these rules are on, but no worker lives that would follow them. Their users would wait in vain."""
    if not any(one._rule is not None and one.paused is None for one in those):
        return []
    return [] if registry.live_workers(layout) else [NOT_FOLLOWED]


def notes(layout: Layout) -> list[str]:
    """Return the notes about rules for `status`, one line each."""
    has_workers = bool(registry.live_workers(layout))
    those = all_of(layout)
    found = not_followed(layout, those)
    for one in those:
        shown = files.printable_name(os.path.basename(one.file))
        if one.problem is not None and one._rule is None:
            found.append(f"rules/{shown} cannot be used: {one.problem}")
        elif one.paused is not None:
            found.append(f"{one.paused.sentence}; it goes on after: queuectl rule resume {one.name}")
        elif reason := one.problem or trouble(one, time.time(), has_workers=has_workers):
            found.append(f"rule {one.name}: {reason}")
        elif (trigger := one.trigger_of_files) is not None and folder_survey.is_polled(trigger):
            found.append(f"rule {one.name}: {folder_survey.remote_note(trigger)}")
    return found


def add(layout: Layout, name: str, when: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """Write the file of a new rule, and return its path.

    Raises:
        ConfigError: what it would say is not valid, or there is a rule of this name.
        SpoolError: the disk refused.
    """
    path = os.path.join(layout.rules, f"{name}.yaml")
    text = _block("when", when) + _block("job", job)
    try:
        rule_file.parse(name, text.encode(), f"rules/{name}.yaml", layout)
    except InvalidRule as error:
        # Its place would be one in a file that nobody has written.
        raise ConfigError(f"rule {name}: {error.fault}", hint=error.hint) from None
    if any(os.path.lexists(os.path.join(layout.rules, f"{name}{ending}")) for ending in RULE_FILES):
        raise ConfigError(f"there is a rule {name} already", hint=f"queuectl rule show {name}")
    scratch = os.path.join(layout.rules, files.temporary_name())
    try:
        files.write_new(scratch, text.encode(), sync=True)
        files.publish(scratch, path)
        files.sync_folder(layout.rules)
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None
    commands.wake(layout)
    return path


def let_rest(layout: Layout, name: str) -> None:
    """Note that a rule is paused: if it goes on before a worker looks, nothing would else tell of the pause."""
    note = rule_note.read(layout, name)
    if note is not None and not note.rests:
        note.rests = True
        with suppress(
            OSError
        ):  # the file that pauses it is there, and a worker that looks meanwhile notes it, too
            rule_note.write(layout, name, note)


def _block(head: str, values: Mapping[str, Any]) -> str:
    # A value in JSON is the same value in YAML.
    lines = (f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return f"{head}:\n{''.join(lines)}"


def remove(layout: Layout, one: Rule) -> None:
    """Delete the file of a rule, and what lies beside it and is about it. Its jobs stay.

    Raises:
        SpoolError: the disk refused.
    """
    try:
        for path in (
            one.file,
            f"{one.file}.reason",
            layout.rule_paused(one.name),
            layout.rule_note(one.name),
            layout.rule_seen(one.name),
        ):
            if os.path.lexists(path):
                files.delete(path)
        files.sync_folder(layout.rules)
    except OSError as error:
        raise SpoolError.from_os("delete", one.file, error) from None
    commands.wake(layout)
