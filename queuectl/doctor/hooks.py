"""Examines the jobs that rules about jobs have queued: what could not be told, what waits for long, and digests without a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.doctor.finding import Finding
from queuectl.index import ends
from queuectl.job import times
from queuectl.layout import RULE_NOTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case
    from queuectl.rules.rule_book import RuleBook

LONG = 600.0
"""Seconds for which a job that goes before all others may wait for a worker."""

_MOST = 20
"""Findings of each kind: ten thousand jobs may have died while the disk was full."""


def examine(case: Case, book: RuleBook) -> Iterator[Finding]:
    """Examine what the disk has refused to queue, which needs no index."""
    from queuectl.rules import untold

    found = untold.left(case.layout)
    rules = book.rules()
    for one in found[:_MOST]:
        where = f"{RULE_NOTES}/untold/{'~'.join(one)}"
        rule = rules.get(one.rule)
        fact = f"rule {one.rule} has not told of the end of job {one.about} yet: its job could not be queued"
        if rule is None or getattr(rule.trigger, "event", None) != one.event:
            cure = f"bring back the rule {one.rule} for {one.event} jobs, or delete this file"
        elif one.rule in book.paused:
            cure = f"queuectl rule resume {one.rule}"
        else:
            cure = "make room on the disk: the workers try again each second"
        yield Finding("untold", where, fact, cure)
    if len(found) > _MOST:
        fact = f"there are {len(found):,} ends of jobs of which rules have not told yet"
        yield Finding("untold", f"{RULE_NOTES}/untold", fact, "make room on the disk")


def compare(case: Case) -> Iterator[Finding]:
    """Examine the jobs of rules about jobs, by the index, which agrees with the folders.

    Raises:
        sqlite3.Error: the index cannot be read.
    """
    for name, number in ends.dead_hooks(case.index).items():
        fact = f"rule {name}: {number} notification{'s' if number > 1 else ''} could not be sent"
        yield Finding("dead hook", name, fact, f"queuectl list --state dead --rule {name}", harmless=True)
    waiting = ends.waiting_hooks(case.index)
    if not waiting:
        return
    now = times.micros(case.now())
    late = [(hook, since) for hook in waiting if (since := hook.since or now) < now - times.micros(LONG)]
    for hook, since in late[:_MOST]:
        fact = f"{hook.id} is to tell of {hook.about}, and waits since {times.local(since / 1e6)}"
        cure = "queuectl status: is something paused, full, or without a worker?"
        yield Finding("hook", hook.id, fact, cure, harmless=True)
    yield from _digests_without_rule(case, waiting)


def _digests_without_rule(case: Case, waiting: list[ends.WaitingHook]) -> Iterator[Finding]:
    """Tell of digests whose rule is gone or cannot be read: they list all ends of their period, as nothing says which are meant."""
    from queuectl.rules import digests
    from queuectl.rules.rule_book import RuleBook

    book = RuleBook(case.layout)
    book.refresh()
    known = book.rules()
    those = [hook for hook in waiting if digests.period_of(hook.about) and hook.rule not in known]
    for hook in those[:_MOST]:
        fact = f"{hook.id} will tell of all ends from {hook.about.replace('/', ' to ')}, as its rule cannot be read"
        cure = f"queuectl rule check {hook.rule}, or queuectl cancel {hook.id}"
        yield Finding("hook", hook.id, fact, cure, harmless=True)
