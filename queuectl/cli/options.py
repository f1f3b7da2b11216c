"""Checks and completions that the arguments of several commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli.base import Session
from queuectl.errors import QueuectlError
from queuectl.job.changes import integer, number, read_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.api.spool import Spool

    Check = Callable[[click.Context, click.Parameter, Any], Any]

__all__ = [
    "agree",
    "between",
    "changes",
    "checked",
    "complete_ids",
    "complete_tags",
    "complete_words",
    "complete_workers",
    "duration",
    "integer",
    "job_argument",
    "job_field",
    "known",
    "number",
    "plain_text",
]

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def duration(text: str) -> float:
    """Read a duration: seconds, or 30s, 10m, 2h, 7d.

    Raises:
        ValueError: it is none.
    """
    from queuectl.job import times

    return times.parse_duration(text)


def checked(check: Callable[[str], Any]) -> Check:
    """An option's callback that turns its text into a value; what does not fit is a usage error."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or ctx.resilient_parsing:
            return value
        try:
            return check(plain_text(value))
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def job_field(name: str, convert: Callable[[str], Any] = str) -> Check:
    """The callback of an option that sets a field of the job file, under the file's own rules."""

    def check(text: str) -> Any:
        from queuectl.job import fields

        return fields.check_field(name, convert(text))

    return checked(check)


def changes(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """The callback of an option that takes FIELD=VALUE, given any number of times."""
    if ctx.resilient_parsing:
        return {}
    try:
        return read_changes([plain_text(word) for word in words])
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def between(low: int, high: int) -> Check:
    """The callback of an option that takes a whole number within bounds."""

    def check(text: str) -> int:
        value = integer(text)
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}, not {value}")
        return value

    return checked(check)


def plain_text(text: str) -> str:
    """The text itself.

    Raises:
        ValueError: it came in bytes that are no UTF-8, so no job file could hold it.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text is not UTF-8")
    return text


def known(ctx: click.Context, ask: Callable[[Spool], list[str]]) -> list[str]:
    """What the spool knows, for completion, which never complains and makes no spool."""
    import os
    import sqlite3

    try:
        spool = ctx.ensure_object(Session).spool
        return ask(spool) if os.path.isdir(spool.layout.root) else []
    except (QueuectlError, OSError, sqlite3.Error):
        return []


def complete_words(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete one of these words."""
    return lambda _ctx, _param, incomplete: [word for word in words if word.startswith(incomplete)]


def complete_tags(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a tag that some job has."""
    return [tag for tag in known(ctx, lambda spool: spool.tags()) if tag.startswith(incomplete)]


def complete_workers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a worker, of one that has left too."""
    from queuectl.control import registry

    return [
        name
        for name in known(ctx, lambda spool: registry.worker_names(spool.layout))
        if name.startswith(incomplete)
    ]


def complete_ids(*states: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete the ids of jobs in these states, all when none is named. Completion never complains."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        given = set(ctx.args) | set(ctx.params.get("ids") or ())
        found = known(ctx, lambda spool: spool.ids(incomplete, *states))
        return [job_id for job_id in found if job_id not in given]

    return complete


def job_argument(*states: str, **attrs: Any) -> Callable[[FC], FC]:
    """The argument that names one job, completed from the spool."""
    return click.argument("job_id", metavar="JOB", shell_complete=complete_ids(*states), **attrs)


def agree(question: str, *, yes: bool) -> None:
    """Let a person confirm what cannot be undone.

    Args:
        question: without the question mark.
        yes: --yes was given: nothing is asked.

    Raises:
        QueuectlError: the answer is no, or nobody is there to answer.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise QueuectlError(
            "not confirmed, and there is no terminal to ask on: nothing was deleted", hint="add --yes"
        )
    sys.stderr.write(f"{question}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise QueuectlError("not confirmed: nothing was deleted")
