"""The flags of `enqueue` for how a job is found, kept from running twice, tried again and given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options as takes
from queuectl.cli.base import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def _exit_codes(text: str) -> list[int]:
    return [takes.integer(word) for word in text.replace(",", " ").split()]


def _tags(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    return takes.job_field("tags", lambda _: list(values))(ctx, param, "".join(values)) if values else None


_OPTIONS = (
    click.option(
        "--tag",
        "tags",
        metavar="NAME",
        multiple=True,
        callback=_tags,
        shell_complete=takes.complete_tags,
        help="Find it by this. May be given again.",
    ),
    click.option("--hold", is_flag=True, default=None, help="It waits until it is released."),
    click.option(
        "--unique",
        metavar="KEY",
        callback=takes.job_field("unique"),
        help="Only one job that waits or runs may have this key.",
    ),
    click.option(
        "--if-exists",
        metavar="skip|replace|queue",
        shell_complete=takes.complete_words("skip", "replace", "queue"),
        callback=takes.job_field("if_exists"),
        help="If one has it: queue nothing (skip, the default), give up the one that waits, or run after it.",
    ),
    click.option(
        "--max-backoff",
        metavar="TIME",
        callback=takes.job_field("max_backoff"),
        help="No wait between two attempts is longer: 600, 10m.",
    ),
    click.option(
        "--jitter",
        metavar="0..1",
        callback=takes.job_field("jitter", takes.number),
        help="Draw the waits longer, by up to this share.",
    ),
    click.option(
        "--retry-on",
        metavar="CODES",
        callback=takes.job_field("retry_on", _exit_codes),
        help="Try again after these exit codes only: 111,75.",
    ),
    click.option(
        "--give-up-on",
        metavar="CODES",
        callback=takes.job_field("give_up_on", _exit_codes),
        help="Do not try again after these exit codes: 100.",
    ),
    click.option(
        "--expires-at",
        metavar="WHEN",
        callback=takes.job_field("expires_at"),
        help="Not worth starting after this moment.",
    ),
    click.option(
        "--expires-in",
        metavar="TIME",
        callback=takes.checked(takes.duration),
        help="The same, so long from now: 90s, 2h, 7d.",
    ),
)


def policy_options(function: FC) -> FC:
    """Give a command these flags; their values stand under the names of the fields, and expires_in."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def settle_expiry(fields: dict[str, Any]) -> None:
    """Turn --expires-in into expires_at. Both say "not after", so with both the earlier one holds.

    Raises:
        Usage: that is past the last year there is.
    """
    if "expires_in" not in fields:
        return
    from queuectl.job import times

    try:
        moment = times.parse_moment(time.time() + fields.pop("expires_in"))
    except ValueError as error:
        raise Usage(f"--expires-in: {error}") from None
    fields["expires_at"] = min(moment, fields.get("expires_at", moment))
