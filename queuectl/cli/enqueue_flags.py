"""The flags of `enqueue` for the parents of a job, its queue, tags and unique key, its retries and its expiry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options
from queuectl.cli.base import Usage
from queuectl.job.changes import read_needs

if TYPE_CHECKING:
    from collections.abc import Callable

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def _exit_codes(text: str) -> list[int]:
    return [options.integer(word) for word in text.replace(",", " ").split()]


def _tags(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    return options.job_field("tags", lambda _: list(values))(ctx, param, "".join(values)) if values else None


def _needs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int] | None:
    return options.job_field("needs", read_needs)(ctx, param, " ".join(values)) if values else None


def _parents(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    name = (param.name or "").removesuffix("_ids")
    # A text without a word is kept, and refused: of `--after "$first"`, when $first is empty, the job would start at once.
    words = [word for value in values for word in value.replace(",", " ").split() or [value]]
    return options.job_field(name, lambda _: words)(ctx, param, " ".join(words)) if words else None


def _after(field: str, when: str) -> Callable[[FC], FC]:
    return click.option(
        f"--{field.replace('_', '-')}",
        field,
        metavar="ID",
        multiple=True,
        callback=_parents,
        shell_complete=options.complete_parents,
        help=f"Start it only once this job {when}; or batch:NAME for all jobs of a batch. May be repeated.",
    )


_POLICY = (
    _after("after", "is completed"),
    _after("after_any", "is completed or dead"),
    _after("after_failure", "is dead"),
    click.option(
        "--if-blocked",
        metavar="wait|dead",
        shell_complete=options.complete_words("wait", "dead"),
        callback=options.job_field("if_blocked"),
        help="If a job of --after is dead: wait until it is mended (wait, the default), or be dead, too.",
    ),
    click.option(
        "--batch",
        metavar="NAME",
        callback=options.job_field("batch"),
        shell_complete=options.complete_batches,
        help="Put it into this batch, for which other jobs can wait.",
    ),
    click.option(
        "--queue",
        metavar="NAME",
        callback=options.job_field("queue"),
        shell_complete=options.complete_queues,
        help="Put it into this queue, whose limits it keeps.",
    ),
    click.option(
        "--needs",
        metavar="NAME=N",
        multiple=True,
        callback=_needs,
        help="It takes so much of a resource while it runs: gpu=1. May be repeated.",
    ),
    click.option(
        "--tag",
        "tags",
        metavar="NAME",
        multiple=True,
        callback=_tags,
        shell_complete=options.complete_tags,
        help="Give the job this tag, to find it by. May be repeated.",
    ),
    click.option("--hold", is_flag=True, default=None, help="Do not run it until it is released."),
    click.option(
        "--unique",
        metavar="KEY",
        callback=options.job_field("unique"),
        help="Only one waiting or running job may have this key.",
    ),
    click.option(
        "--if-exists",
        metavar="skip|replace|queue",
        shell_complete=options.complete_words("skip", "replace", "queue"),
        callback=options.job_field("if_exists"),
        help="If a job has the key: queue nothing (skip, the default), replace the waiting job, or run after it (queue).",
    ),
    click.option(
        "--max-backoff",
        metavar="TIME",
        callback=options.job_field("max_backoff"),
        help="Wait at most this long between two attempts: 600, 10m.",
    ),
    click.option(
        "--jitter",
        metavar="0..1",
        callback=options.job_field("jitter", options.number),
        help="Make each wait longer by a random share, up to this one.",
    ),
    click.option(
        "--retry-on",
        metavar="CODES",
        callback=options.job_field("retry_on", _exit_codes),
        help="Try again only after these exit codes: 111,75.",
    ),
    click.option(
        "--give-up-on",
        metavar="CODES",
        callback=options.job_field("give_up_on", _exit_codes),
        help="Do not try again after these exit codes: 100.",
    ),
    click.option(
        "--expires-at",
        metavar="WHEN",
        callback=options.checked(options.moment),
        help="Do not start it after this time: 18:00, tomorrow 02:00, 2026-12-31T18:00.",
    ),
    click.option(
        "--expires-in",
        metavar="TIME",
        callback=options.checked(options.limit),
        help="The same, as a time from now: 90s, 2h, 7d.",
    ),
)


def policy_options(function: FC) -> FC:
    """Add these flags to a command. Their values have the names of the job's fields; --expires-in is expires_in."""
    for option in reversed(_POLICY):
        function = option(function)
    return function


def settle_expiry(fields: dict[str, Any]) -> None:
    """Turn --expires-in into expires_at. If both are given, the earlier time holds.

    Raises:
        Usage: the time is after the last year that can be written.
    """
    if "expires_in" not in fields:
        return
    from queuectl.job import times

    try:
        due = times.within_years(time.time() + fields["expires_in"], fields.pop("expires_in"))
    except ValueError as error:
        raise Usage(f"--expires-in: {error}") from None
    fields["expires_at"] = min(due, fields.get("expires_at", due))
