"""Options and arguments that several commands share: reading values, questions, shell completion."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import render
from queuectl.cli.base import Session
from queuectl.errors import QueuectlError
from queuectl.job.changes import integer, number, read_changes
from queuectl.job.fields import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.api.spool import Spool

    Callback = Callable[[click.Context, click.Parameter, Any], Any]
    Completer = Callable[[click.Context, click.Parameter, str], list[str]]

__all__ = [
    "ask",
    "ask_spool",
    "between",
    "changes",
    "checked",
    "complete_ids",
    "complete_queues",
    "complete_rules",
    "complete_tags",
    "complete_words",
    "complete_workers",
    "confirm",
    "duration",
    "integer",
    "job_argument",
    "job_field",
    "limit",
    "moment",
    "note_unknown_queues",
    "number",
    "utf8_text",
]

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


# -- reading values ------------------------------------------------------------------------------------------------


def duration(text: str) -> float:
    """Read a duration in seconds, or as 30s, 10m, 2h, 7d.

    Raises:
        ValueError: it is not a duration.
    """
    from queuectl.job import times

    return times.parse_duration(text)


def moment(text: str) -> float | None:
    """Read a time ahead as people type it: 18:00, tomorrow 02:00, +1h, ISO 8601, epoch seconds; None for `none`.

    Raises:
        ValueError: it is none of these.
    """
    from queuectl.job import spoken_times

    return None if text.strip().lower() == "none" else spoken_times.read_moment(text, time.time())


def limit(text: str) -> float | None:
    """Read the longest time of a wait; None, which is no limit, for `none`.

    Raises:
        ValueError: it is not a duration.
    """
    return None if text.strip().lower() == "none" else duration(text)


def utf8_text(text: str) -> str:
    """Return the text unchanged.

    Raises:
        ValueError: it was typed in bytes that are not UTF-8, so a job file cannot contain it.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text is not UTF-8")
    return text


def checked(check: Callable[[str], Any]) -> Callback:
    """Make an option's callback that reads its text with check; a ValueError becomes a usage error."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or ctx.resilient_parsing:
            return value
        try:
            return check(utf8_text(value))
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def each_checked(check: Callable[[str], Any]) -> Callback:
    """Make the callback of an option that may be repeated: each of its texts is read with check, see `checked`."""
    one = checked(check)

    def callback(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(one(ctx, param, value) for value in values)

    return callback


def job_field(name: str, convert: Callable[[str], Any] = str) -> Callback:
    """Make the callback of an option that sets a field of the job file; the rules of that field apply."""

    def check(text: str) -> Any:
        from queuectl.job import fields

        return fields.check_field(name, convert(text))

    return checked(check)


def between(low: int, high: int) -> Callback:
    """Make the callback of an option that takes a whole number from low to high."""

    def check(text: str) -> int:
        value = integer(text)
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}, not {value}")
        return value

    return checked(check)


def changes(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """The callback of an option that takes FIELD=VALUE and may be repeated."""
    if ctx.resilient_parsing:
        return {}
    try:
        return read_changes([utf8_text(word) for word in words])
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def job_argument(*states: str, **attrs: Any) -> Callable[[FC], FC]:
    """The argument that names one job; its id is completed from the jobs in these states."""
    return click.argument("job_id", metavar="JOB", shell_complete=complete_ids(*states), **attrs)


def lines_option(meaning: str, most: int = 2**31) -> Callable[[FC], FC]:
    """Return the option --lines.

    Args:
        meaning: its help.
        most: the largest number that it takes.
    """
    return click.option("--lines", "--tail", "-n", metavar="N", callback=between(0, most), help=meaning)


raw_option = click.option(
    "--raw", is_flag=True, help="On a terminal, print control characters as they are instead of as escapes."
)
"""The option of what prints bytes of a job or a worker."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask the user to confirm something that cannot be undone.

    Args:
        question: without the question mark.
        yes: --yes was given: do not ask.

    Raises:
        QueuectlError: the answer is no, or stdin is not a terminal.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise QueuectlError("nothing was deleted: there is no terminal to ask on", hint="add --yes")
    ask(question, no="nothing was deleted")


def ask(question: str, *, no: str) -> None:
    """Ask a question on the terminal.

    Args:
        question: without the question mark.
        no: what has not happened if the answer is no.

    Raises:
        QueuectlError: the answer is no.
    """
    sys.stderr.write(f"{render.visible(question)}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise QueuectlError(f"not confirmed: {no}")


# -- shell completion ----------------------------------------------------------------------------------------------


def ask_spool(ctx: click.Context, ask: Callable[[Spool], list[str]]) -> list[str]:
    """Ask the spool for completions. It never fails, and does not create a spool."""
    import os
    import sqlite3

    try:
        spool = ctx.ensure_object(Session).spool
        return ask(spool) if os.path.isdir(spool.layout.root) else []
    except (QueuectlError, OSError, sqlite3.Error):
        return []


def complete_words(*words: str) -> Completer:
    """Complete one of these words."""
    return lambda _ctx, _param, incomplete: [word for word in words if word.startswith(incomplete)]


def complete_tags(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a tag that some job has."""
    return [tag for tag in ask_spool(ctx, lambda spool: spool.tags()) if tag.startswith(incomplete)]


def complete_queues(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a queue that has jobs, a file or a pause."""
    names = ask_spool(ctx, lambda spool: [queue.name for queue in spool.queues()])
    return [name for name in names if name.startswith(incomplete)]


def complete_batches(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a batch that some job has."""
    return ask_spool(ctx, lambda spool: spool._batch_names(incomplete, 200))


def complete_parents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the id of a job, or a batch like batch:parts."""
    if incomplete.startswith(BATCH):
        begun = incomplete.removeprefix(BATCH)
        return [f"{BATCH}{name}" for name in complete_batches(ctx, param, begun)]
    ids = complete_ids()(ctx, param, incomplete)
    return [*ids, BATCH] if incomplete and BATCH.startswith(incomplete) else ids


def complete_rules(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a rule."""
    names = ask_spool(ctx, lambda spool: [rule.name for rule in spool.rules()])
    return [name for name in names if name.startswith(incomplete)]


def _queue_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    one = job_field("queue")
    return tuple(dict.fromkeys(one(ctx, param, value) for value in values))


def queues_option(flag: str, name: str, meaning: str) -> Callable[[FC], FC]:
    """Make an option that takes the name of a queue, and may be repeated."""
    return click.option(
        flag,
        name,
        metavar="NAME",
        multiple=True,
        callback=_queue_names,
        shell_complete=complete_queues,
        help=f"{meaning} May be repeated.",
    )


def note_unknown_queues(session: Session, names: tuple[str, ...]) -> None:
    """Say on stderr which of these queues no job and no file has: they may be mistyped."""
    for sentence in session.spool._unknown_queues(names) if names else ():
        render.note(f"note: {sentence}")


def complete_workers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a worker, including workers that have stopped."""
    from queuectl.control import registry

    names = ask_spool(ctx, lambda spool: registry.worker_names(spool.layout))
    return [name for name in names if name.startswith(incomplete)]


def complete_ids(*states: str) -> Completer:
    """Complete the ids of jobs in these states; of all jobs when no state is given."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        given = set(ctx.args) | set(ctx.params.get("ids") or ())
        found = ask_spool(ctx, lambda spool: spool.ids(incomplete, *states))
        return [job_id for job_id in found if job_id not in given]

    return complete


def complete_held(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the ids of held jobs."""
    from queuectl.index.filter import Filter

    given = set(ctx.params.get("ids") or ())
    held = ask_spool(ctx, lambda spool: [row.id for row in spool.list(where=Filter(held=True))])
    return [job_id for job_id in held if job_id.startswith(incomplete) and job_id not in given][:200]
