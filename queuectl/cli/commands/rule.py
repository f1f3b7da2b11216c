"""`queuectl rule`: show rules, check and write their files, run and pause them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.cli.fast_path import current_folder
from queuectl.job import times
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.api.rules import Rule
    from queuectl.rules.folder_survey import Survey

SHOWN = 5
"""How many of the next moments are shown."""

MOST_FILES = 10
"""How many files of a watched folder are shown."""

rule_command = Group(
    name="rule",
    short_help="Rules that queue jobs at certain times, or for files that appear.",
    help="""A rule is a file rules/NAME.yaml of the spool. It says when a job is queued, and which.

    Drop the file, and the rule is on; delete it, or rename it to NAME.yaml.off, and it is off. Workers follow a change
    within a second. While no worker lives, no rule is followed. `queuectl guide rules` explains it all.""",
    examples="""
    queuectl rule list
    queuectl rule add backup --cron "0 2 * * *" -- rsync -a photos/ /mnt/backup/
    queuectl rule check backup.yaml           before it is put in place
    queuectl rule show backup
    queuectl rule run backup                  now
    queuectl list --rule backup               its jobs
    """,
    other_words={
        "ls": "list",
        "status": "list",
        "get": "show",
        "cat": "show",
        "info": "show",
        "next": "show",
        "history": "queuectl list --rule",
        "validate": "check",
        "test": "check",
        "new": "add",
        "create": "add",
        "trigger": "run",
        "fire": "run",
        "disable": "pause",
        "enable": "resume",
        "stop": "pause",
        "start": "resume",
        "unpause": "resume",
        "rm": "remove",
        "delete": "remove",
        "help": "queuectl guide rules",
    },
    sections={
        "Commands": {
            "list": ("rule", "List the rules: when each is due, and how its last job went."),
            "show": ("rule", "Show everything about a rule: its next moments, and what was skipped."),
            "check": ("rule", "Check a rule file that is not in place yet."),
            "add": ("rule", "Write the file of a new rule."),
            "run": ("rule", "Queue the jobs of a rule now."),
            "pause": ("rule", "Let a rule rest; nothing is caught up later."),
            "resume": ("rule", "Let a paused rule go on."),
            "remove": ("rule", "Delete the file of a rule."),
        }
    },
)

_name = click.argument(
    "name",
    metavar="RULE",
    callback=options.checked(options.utf8_text),
    shell_complete=options.complete_rules,
)


@command(
    "list",
    examples="""
    queuectl rule list
    queuectl rule list --json | jq -r '.[] | select(.problem) | .name'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """List the rules by name, also files that cannot be used.

    Each line shows: name, when it is due in words, the next moment, the last job with its state, and what is wrong or that
    the rule is paused. In a pipe a tab separates the values.
    """
    found = session.spool.rules()
    if session.json:
        render.json_array(json_view.rule(rule) for rule in found)
    elif not found:
        render.note("no rules; queuectl guide rules")
    elif render.is_terminal():
        heads = ("Rule", "When", "Next", "Last", "Note")
        render.table("Rules", heads, [_cells(rule) for rule in found], cut=("When", "Note"))
    else:
        render.lines_of_cells(_cells(rule) for rule in found)
    if not session.json:
        _tell_if_not_followed(session, found)


def _tell_if_not_followed(session: Session, those: list[Rule]) -> None:
    if those:
        from queuectl.api import rules

        for note in rules.not_followed(session.spool.layout, those):
            render.note(f"note: {note}")


def _cells(rule: Rule) -> tuple[str, ...]:
    coming = rule.next()
    last = "" if rule.last is None else f"{rule.last.id} ({rule.last.state})"
    return rule.name, rule.when, times.local(coming[0]) if coming else "", last, _note(rule)


def _note(rule: Rule) -> str:
    if rule.problem is not None:
        return rule.problem
    if rule.paused is not None:
        return f"paused: {rule.paused.reason}" if rule.paused.reason else "paused"
    return "all its moments have passed" if rule.has_time and not rule.next() else ""


@command("show", examples="queuectl rule show backup")
@_name
@click.pass_obj
def show_command(session: Session, name: str) -> None:
    """Show everything about a rule: when it is due in words, the next moments, the last ones, and what was skipped and why.

    Of a rule that watches a folder: which files it would take now, and what the others wait for.
    """
    rule = session.spool.rule(name)
    if session.json:
        render.json_value(_as_json(session, rule))
        return
    _print(session, rule)
    _tell_if_not_followed(session, [rule])


def _as_json(session: Session, rule: Rule) -> dict[str, Any]:
    from queuectl.api import rules

    found = rule.look()
    shown = json_view.rule(rule) | {"hints": rules.hints(rule, session.spool.layout)}
    return shown | ({} if found is None else {"files": json_view.survey(found)})


def _print(session: Session, rule: Rule) -> None:
    from queuectl.api import rules

    facts = [
        ("rule", rule.name),
        ("when", rule.when),
        ("file", render.short_path(rule.file)),
        ("problem", rule.problem or ""),
        ("paused", rule.paused.sentence if rule.paused else ""),
        *(("next", times.with_zone(moment)) for moment in rule.next(SHOWN)),
        ("last job", f"{rule.last.id} ({rule.last.state})" if rule.last else ""),
        *(("queued for", times.with_zone(moment)) for moment in reversed(rule.queued)),
        ("skipped", str(rule.skipped) if rule.skipped else ""),
        *(("not for", f"{times.with_zone(moment)}: {reason}") for moment, reason in reversed(rule.skips)),
    ]
    facts += _of_folder(rule.look())
    shown = [(label, text) for label, text in facts if text]
    width = max(len(label) for label, _ in shown) + 2
    render.lines(f"{label + ':':<{width}}{text}" for label, text in shown)
    for hint in rules.hints(rule, session.spool.layout):
        render.note(f"note: {hint}")


def _of_folder(found: Survey | None) -> list[tuple[str, str]]:
    """Return what is told of the folder that a rule watches. Names of files may contain anything."""
    if found is None:
        return []
    facts = [*(("note", note) for note in found.notes)]
    for label, names in (
        ("would take", [files.printable_name(name) for name in found.takes]),
        ("waits", [f"{files.printable_name(name)}: {reason}" for name, reason in found.waits]),
    ):
        facts += [(label, name) for name in names[:MOST_FILES]]
        if len(names) > MOST_FILES:
            facts.append((label, f"and {len(names) - MOST_FILES} more"))
    facts.append(("taken before", str(found.taken) if found.taken else ""))
    for number, are in (
        (found.not_utf8, "not UTF-8"),
        (found.unfinished, "like those of unfinished files"),
    ):
        facts.append(("left alone", f"{number}, as their names are {are}" if number else ""))
    return facts


@command(
    "check",
    examples="""
    queuectl rule check backup.yaml
    queuectl rule check backup.yaml && mv backup.yaml ~/.queuectl/rules/
    """,
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.pass_obj
def check_command(session: Session, files: tuple[str, ...]) -> int:
    """Check files that may become rules: what they say, and when they would be due. Nothing is queued.

    Of a rule that watches a folder: which files it would take now, and which not and why.

    The exit code is 1 if one of them cannot be used. The message has the line and the column.
    """
    from queuectl.api import rules
    from queuectl.errors import ConfigError

    answers: list[dict[str, Any]] = []
    code = 0
    for path in files:
        try:
            rule = rules.checked(path, session.spool.layout)
        except ConfigError as error:
            code = 1
            answers.append({"file": path, "problem": error.message})
            if not session.json:
                render.note(f"error: {error.message}")
            continue
        answers.append(_as_json(session, rule))
        if not session.json:
            _print(session, rule)
    if session.json:
        render.json_array(answers)
    return code


@command(
    "add",
    examples="""
    queuectl rule add backup --cron "0 2 * * *" --timeout 8h -- rsync -a photos/ /mnt/backup/
    queuectl rule add report --cron "0 7 * * MON" --timezone Europe/Berlin ./report.sh
    queuectl rule add poll --every 10m --overlap skip ./poll.sh
    queuectl rule add alarm --job dead --within 1h -- queuectl notify mail --to ops@example.org
    queuectl rule add party --at 2031-01-01T00:00 ./fireworks.sh
    queuectl rule add scans --file /srv/scans -- ocrmypdf {} /srv/ocr/{stem}.pdf
    """,
    changes=True,
)
@click.argument("name", metavar="RULE", callback=options.job_field("rule"))
@click.option(
    "--cron",
    "cron",
    metavar="EXPRESSION",
    multiple=True,
    help="Minute hour day month weekday, or @daily. May be repeated.",
)
@click.option("--every", metavar="SPAN", help="At equal distances: 10m, 2h.")
@click.option("--at", "at", metavar="MOMENT", multiple=True, help="At this moment. May be repeated.")
@click.option(
    "--file",
    "file",
    metavar="FOLDER",
    help="For each file that appears in this folder; {} in the command stands for it.",
)
@click.option(
    "--match", "match", metavar="PATTERN", multiple=True, help="Only files like this. May be repeated."
)
@click.option(
    "--job",
    metavar="EVENT",
    help="When this becomes of a job: dead, done, recovered; or empty: nothing is left.",
)
@click.option("--tag", metavar="TAG", help="With --job: only jobs with this tag.")
@click.option("--queue", metavar="QUEUE", help="With --job: only jobs of this queue.")
@click.option(
    "--within", metavar="SPAN", help="With --job: at most once in each such span, about all of them."
)
@click.option("--source", metavar="WORD", help="What becomes of the file: leave, move, delete.")
@click.option(
    "--timezone", metavar="ZONE", help="The zone of these times, like Europe/Berlin. Default: the machine's."
)
@click.option(
    "--missed", metavar="WORD", help="What is done with moments at which no worker lived: once, skip, all."
)
@click.option(
    "--overlap",
    metavar="WORD",
    help="What is done while an earlier job of the rule is not over: skip, queue, replace, allow.",
)
@click.option(
    "--jitter", metavar="SPAN", help="Start up to so much later, always the same for the same moment."
)
@click.option("--timeout", metavar="SPAN", help="How long its job may run: 8h, or 0 for no limit.")
@click.option(
    "--expires-in", metavar="SPAN", help="Give a job up that has not started so long after its moment."
)
@click.argument("command", nargs=-1, required=True, metavar="COMMAND...")
@click.pass_obj
def add_command(
    session: Session,
    /,
    name: str,
    cron: tuple[str, ...],
    at: tuple[str, ...],
    match: tuple[str, ...],
    command: tuple[str, ...],
    timeout: str | None,
    expires_in: str | None,
    **words: str | None,
) -> None:
    """Write the file of a new rule. The job runs in the current folder.

    One word is a text for the shell; several words are a program and its arguments. For everything else edit the file.
    """
    from queuectl.api import rules

    when: dict[str, Any] = {key: value for key, value in words.items() if value is not None}
    for key, values in (("match", match), ("cron", cron), ("at", at)):
        if values:
            when = {key: values[0] if len(values) == 1 else list(values), **when}
    if when.get("file"):
        when["file"] = os.path.abspath(when["file"])
    if not {"cron", "every", "at", "file", "job"} & when.keys():
        raise Usage("it is not said when", hint=f'queuectl rule add {name} --cron "0 2 * * *" …')
    job: dict[str, Any] = {
        "command": command[0] if len(command) == 1 else list(command),
        "cwd": current_folder("run `queuectl rule add` in a folder that exists"),
    }
    job |= {
        key: value for key, value in (("timeout", timeout), ("expires_in", expires_in)) if value is not None
    }
    rule = session.spool.add_rule(name, when, job)
    if session.json:
        render.json_value(json_view.rule(rule))
        return
    coming = rule.next()
    render.line(f"{rule.name}: {rule.when}")
    for hint in [*rules.hints(rule, session.spool.layout), *filter(None, [rule.problem])]:
        render.note(f"note: {hint}")
    if coming and render.is_terminal():
        render.note(f"next: {times.with_zone(coming[0])}, in {render.ago(coming[0] - time.time())}")


@command("run", examples="queuectl rule run backup", changes=True)
@_name
@click.pass_obj
def run_command(session: Session, name: str) -> None:
    """Queue the jobs of a rule now, and print their ids. Its next moments stay as they are."""
    ids = session.spool.run_rule(name)
    if session.json:
        render.json_value({"rule": name, "ids": ids})
    else:
        render.lines(ids)


@command(
    "pause",
    examples="""
    queuectl rule pause backup --reason "bank holiday"
    touch ~/.queuectl/rules/backup.paused     the same without queuectl
    """,
    changes=True,
)
@_name
@click.option(
    "--reason",
    metavar="TEXT",
    default="",
    callback=options.checked(options.utf8_text),
    help="A text that `rule list` and `status` show.",
)
@click.pass_obj
def pause_command(session: Session, name: str, reason: str) -> None:
    """Let a rule rest. What is due meanwhile is not queued, and not caught up later."""
    session.spool.pause_rule(name, reason)
    _report(session, name, "paused", changed=True)


@command("resume", examples="queuectl rule resume backup", changes=True)
@_name
@click.pass_obj
def resume_command(session: Session, name: str) -> None:
    """Let a paused rule go on with its next moment."""
    _report(session, name, "resumed", changed=session.spool.resume_rule(name))


@command("remove", examples="queuectl rule remove backup", changes=True)
@_name
@click.pass_obj
def remove_command(session: Session, name: str) -> None:
    """Delete the file of a rule. Jobs that it has queued stay."""
    session.spool.remove_rule(name)
    _report(session, name, "removed", changed=True)


def _report(session: Session, name: str, what: str, *, changed: bool) -> None:
    if session.json:
        render.json_value({"rule": name, what: changed})
    elif changed:
        render.line(f"{name}: {what}")
    else:
        render.note(f"{name} was not paused")
