"""Which jobs a command means: named, or by the filters that list, cancel, retry and the others share."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Option, Session, Usage
from queuectl.errors import MoveError, QueuectlError
from queuectl.index.filter import SORTS, Filter
from queuectl.job.fields import STATES, is_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")
_MOST = 2**62


def state(text: str) -> str:
    """Read a state's name; done is what its folder is called.

    Raises:
        ValueError: it names none.
    """
    name = "completed" if text.lower() == "done" else text.lower()
    if name not in STATES:
        raise ValueError(f"{render.clip(repr(text), 60)} is none of {', '.join(STATES)}")
    return name


def limit(text: str) -> int:
    """Read how many at most.

    Raises:
        ValueError: it is no number, or below 0.
    """
    value = (
        min(int(text), _MOST)
        if text.isascii() and text.isdigit() and len(text) < 4000
        else takes.integer(text)
    )
    if value < 0:
        raise ValueError(f"must be 0 or more, not {value}")
    return value


def tag(text: str) -> str:
    """Read a tag.

    Raises:
        ValueError: no job can have it.
    """
    if not is_tag(text):
        raise ValueError(f"{render.clip(repr(text), 60)} cannot be a tag: A-Z a-z 0-9 . _ : / @ + = -")
    return text


def moment(text: str) -> float:
    """Read a moment of the past: ISO 8601, epoch seconds, or how long ago it is, as 30m, 2h, 7d.

    Raises:
        ValueError: it is neither.
    """
    from queuectl.job import times

    if text[-1:].isalpha() and text[:1].isdigit() and "T" not in text and not text.endswith("Z"):
        return time.time() - times.parse_duration(text)
    return times.parse_moment(text)


def _sort(text: str) -> str:
    if text.removeprefix("-") not in SORTS:
        raise ValueError(f"{render.clip(repr(text), 60)} is none of {', '.join(SORTS)}")
    return text


def complete_states(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a state."""
    return [name for name in (*STATES, "done") if name.startswith(incomplete)]


def _complete_sorts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in SORTS if name.startswith(incomplete)]


def _several(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """The callback of an option that may be given more than once."""
    one = takes.checked(read)
    return lambda ctx, param, values: tuple(one(ctx, param, value) for value in values)


def _option(*names: str, read: Callable[[str], Any] | None, help: str, **attrs: Any) -> click.Option:  # noqa: A002
    """One option; `read` turns its text into a value."""
    if read is not None:
        attrs["callback"] = _several(read) if attrs.get("multiple") else takes.checked(read)
    return Option(names, help=help, heading="Which jobs", **attrs)


def _filters() -> list[click.Option]:
    text = takes.plain_text
    states = "In this state: pending, processing, completed (done), failed, dead. May be repeated."
    return [
        _option(
            "--state",
            "-s",
            "states",
            read=state,
            metavar="STATE",
            multiple=True,
            shell_complete=complete_states,
            help=states,
        ),
        _option(
            "--tag",
            "tags",
            read=tag,
            metavar="TAG",
            multiple=True,
            shell_complete=takes.complete_tags,
            help="With this tag. Repeated: with all of them.",
        ),
        _option("--since", read=moment, metavar="WHEN", help="Last changed since: 2h, 7d, or a moment."),
        _option("--until", read=moment, metavar="WHEN", help="Last changed before: 2h, 7d, or a moment."),
        _option("--command", "-c", read=text, metavar="TEXT", help="With this text in the command."),
        _option(
            "--exit-code",
            "exit_codes",
            read=takes.integer,
            metavar="N",
            multiple=True,
            help="That ended with it. May be repeated.",
        ),
        _option(
            "--worker",
            read=text,
            metavar="NAME",
            shell_complete=takes.complete_workers,
            help="That this worker runs, or ran last.",
        ),
        _option(
            "--held/--not-held",
            read=None,
            default=None,
            help="That wait to be released; or that do not.",
        ),
    ]


def _order() -> list[click.Option]:
    keys = f"By {', '.join(SORTS)}; -KEY the other way round. Default: arrived."
    return [
        _option(
            "--sort",
            read=_sort,
            metavar="KEY",
            default="arrived",
            shell_complete=_complete_sorts,
            help=keys,
        ),
        _option("--limit", "-n", read=limit, metavar="N", help="At most so many. Default: all."),
    ]


def filter_options(*, sort: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that describe jobs; its function gets them as `where`, a Filter.

    Args:
        sort: --sort and --limit too.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_filter(*args: Any, **given: Any) -> Any:
            mine = {name: given.pop(name) for name in Filter.__match_args__ if name in given}
            return function(*args, where=Filter(**mine), **given)

        # As click.option keeps them until the command is made: the last one first.
        options = [*_filters(), *(_order() if sort else [])]
        with_filter.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(options)]  # type: ignore[attr-defined]
        return with_filter

    return decorate


class Bulk:
    """One verb and the jobs that it is for.

    Args:
        verb: what would be done, as in "would cancel job1".
        past: as in "job 'job1' is dead and cannot be cancelled".
        among: the states of the jobs that it can be done to.
    """

    def __init__(self, session: Session, verb: str, past: str, among: Sequence[str]) -> None:
        self._session = session
        self._verb, self._past, self._among = verb, past, tuple(among)

    def chosen(self, ids: Sequence[str], where: Filter, *, everything: bool = False) -> list[str]:
        """The ids of the jobs that are meant.

        Args:
            everything: --all was given.

        Raises:
            Usage: jobs are named and described at once, or not at all, or in a state in which it cannot be done.
        """
        if ids and (everything or not where.is_open):
            raise Usage("name the jobs or describe them, not both")
        if ids:
            return list(dict.fromkeys(ids))
        if where.is_open and not everything:
            raise Usage(f"name the jobs to {self._verb}, or say which: --tag, --state … or --all")
        wrong = [name for name in where.states if name not in self._among]
        if wrong:
            raise Usage(f"{wrong[0]} jobs cannot be {self._past}")
        rows = self._session.spool.list(where=where.of_states(*(where.states or self._among)))
        if not rows and not self._session.json:
            render.note(f"no jobs to {self._verb}")
        return [row.id for row in rows]

    def each(
        self, ids: Iterable[str], do: Callable[[str], tuple[str, dict[str, Any]]], *, dry_run: bool = False
    ) -> int:
        """Do it to each, tell of each, and go on past those that refuse.

        Args:
            do: returns the line for a person, and what --json tells.
            dry_run: only say what would be done.

        Returns:
            0, or the highest exit code of those that refused.
        """
        return each(self._session, list(ids), self._would if dry_run else do)

    def _would(self, job_id: str) -> tuple[str, dict[str, Any]]:
        job = self._session.spool.get(job_id)
        if job.state not in self._among:
            raise MoveError(
                f"job {job_id!r} is {job.state} and cannot be {self._past}", hint=f"queuectl show {job_id}"
            )
        told = {"id": job_id, "would": self._verb, "state": job.state}
        return f"would {self._verb} {job_id} - {job.state} - {job.shown_command}", told


def dry_run_option(function: FC) -> FC:
    """The --dry-run option."""
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(function)


def each(session: Session, ids: Sequence[str], do: Callable[[str], tuple[str, dict[str, Any]]]) -> int:
    """Do something to every job named, tell of each, and go on past those that refuse.

    Args:
        do: returns the line for a person, and what --json tells.

    Returns:
        0, or the highest exit code of those that refused.
    """
    worst = 0
    results = []
    for job_id in dict.fromkeys(ids):
        try:
            text, result = do(job_id)
        except QueuectlError as error:
            if len(ids) == 1 and not session.json:
                raise
            text = str(error) if job_id in str(error) else f"{job_id}: {error}"
            render.note(f"error: {render.clip(text)}")
            worst = max(worst, error.exit_code)
            result = {"id": job_id, "error": str(error)}
        else:
            if not session.json:
                render.line(text)
        results.append(result)
    if session.json:
        render.json_array(results)
    return worst
