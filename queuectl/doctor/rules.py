"""Examines the rules: files that cannot be used, notes of rules that are gone, and notes ahead of the clock."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from queuectl.doctor import hooks
from queuectl.doctor.finding import Finding
from queuectl.job import times
from queuectl.layout import RULE_NOTES, RULES, is_rule_file
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case


def examine(case: Case) -> Iterator[Finding]:
    """Examine the files of rules, and the notes about them."""
    names, notes = _names(case.layout.rules), _names(case.layout.rule_notes)
    if not any(map(is_rule_file, names)) and not notes:
        return
    from queuectl.rules.rule_book import RuleBook

    book = RuleBook(case.layout)
    book.refresh()
    for file, fault in book.faults().items():
        shown = files.printable_name(file)
        yield Finding("rule file", f"{RULES}/{shown}", str(fault), f"queuectl rule check {RULES}/{shown}")
    yield from hooks.examine(case, book)
    rules = {name for name in book.files if name in book.rules()}
    for name in notes:
        rule, is_list, _ = name.rpartition(".seen")
        if is_list and rule not in rules:
            yield _of_no_rule(case, name, "list of files")
    yield from _of_notes(
        case, [name.removesuffix(".json") for name in notes if name.endswith(".json")], rules
    )


def _of_notes(case: Case, notes: list[str], rules: set[str]) -> Iterator[Finding]:
    from queuectl.rules import rule_note
    from queuectl.rules.plans import SET_BACK

    now = case.now()
    for name in notes:
        where = f"{RULE_NOTES}/{files.printable_name(name)}.json"
        note = rule_note.read(case.layout, name)
        if name not in rules:
            yield _of_no_rule(case, f"{name}.json", "note")
        elif note is not None and note.done > now + SET_BACK:
            until = times.local(note.done)
            fact = f"rule {name} is done until {until}, which lies ahead of the clock; it goes on after ten minutes"
            yield Finding("rule note", where, fact, "look at the clock of this machine", harmless=True)


def _of_no_rule(case: Case, name: str, what: str) -> Finding:
    where = f"{RULE_NOTES}/{files.printable_name(name)}"
    fact = f"{where} is the {what} of a rule that is not there; it counts if the rule comes back"
    cure = f"rm {shlex.quote(os.path.join(case.layout.rule_notes, files.printable_name(name)))}"
    return Finding("rule note", where, fact, cure, harmless=True)


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []  # a spool of an earlier version has none
