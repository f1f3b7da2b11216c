"""Checks and completions that the arguments of several commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli.frame import Session
from queuectl.editing import number, read_changes, whole
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[click.Context, click.Parameter, Any], Any]

__all__ = [
    "agree",
    "between",
    "changes",
    "checked",
    "complete_ids",
    "duration",
    "job_argument",
    "job_field",
    "number",
    "plain_text",
    "whole",
]

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def duration(text: str) -> float:
    """Read a duration: seconds, or 30s, 10m, 2h, 7d.

    Raises:
        ValueError: it is none.
    """
    from queuectl import times

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
        from queuectl import fields

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
        value = whole(text)
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


def complete_ids(*states: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete the ids of jobs in these states, all when none is named. Completion never complains."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        try:
            rows = ctx.ensure_object(Session).spool.list()
        except (QueuectlError, OSError):
            return []
        given = set(ctx.args) | set(ctx.params.get("ids") or ())
        wanted = [row.id for row in rows if not states or row.state in states]
        return [job_id for job_id in wanted if job_id.startswith(incomplete) and job_id not in given][:200]

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
