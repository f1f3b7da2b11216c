"""Select the jobs of a command: by id, or with the filters that list, cancel, retry and other commands share."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import options, render
from queuectl.cli.base import Option, Session, Usage
from queuectl.cli.lost_output import report_done
from queuectl.errors import MoveError, QueuectlError
from queuectl.index.filter import SORTS, Filter
from queuectl.job.fields import STATES, check_field, is_tag
from queuectl.layout import ENGINES, LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Action = Callable[[str], tuple[str, dict[str, Any]]]
    Tell = Callable[[str, tuple[str, dict[str, Any]] | QueuectlError], None]
    BulkDo = Callable[[Sequence[str], Tell], None]

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")
_LARGEST_LIMIT = 2**62


# -- reading the values of the filters -----------------------------------------------------------------------------


def read_limit(text: str) -> int:
    """Read a number of jobs, 0 or more.

    Raises:
        ValueError: it is not such a number.
    """
    if text.isascii() and text.isdigit() and len(text) < 4000:
        return min(int(text), _LARGEST_LIMIT)
    value = options.integer(text)
    if value < 0:
        raise ValueError(f"must be 0 or more, not {value}")
    return value


def read_moment(text: str) -> float:
    """Read a time in the past as people type it: 2h, 7d, yesterday, 18:00, ISO 8601, or epoch seconds.

    Raises:
        ValueError: it is none of these.
    """
    from queuectl.job import spoken_times

    return spoken_times.read_moment(text, time.time(), past=True)


def _read_state(text: str) -> str:
    """Read a state; `done`, the name of the folder, means completed."""
    name = "completed" if text.lower() == "done" else text.lower()
    if name not in STATES:
        raise ValueError(f"{render.clip(repr(text), 60)} is not one of {', '.join(STATES)}")
    return name


def _read_tag(text: str) -> str:
    if not is_tag(text):
        raise ValueError(f"{render.clip(repr(text), 60)} cannot be a tag: A-Z a-z 0-9 . _ : / @ + = -")
    return text


def _read_queue(text: str) -> str:
    return str(check_field("queue", text))


def _read_engine(text: str) -> str:
    if text not in (LOCAL, *ENGINES):
        raise ValueError(f"{render.clip(repr(text), 60)} is not one of {', '.join((LOCAL, *ENGINES))}")
    return text


def _read_sort(text: str) -> str:
    if text.removeprefix("-") not in SORTS:
        raise ValueError(f"{render.clip(repr(text), 60)} is not one of {', '.join(SORTS)}")
    return text


# -- the options ---------------------------------------------------------------------------------------------------


def _repeated(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make the callback of an option that may be given more than once."""
    one = options.checked(read)
    return lambda ctx, param, values: tuple(one(ctx, param, value) for value in values)


def _option(*names: str, read: Callable[[str], Any] | None, help: str, **attrs: Any) -> click.Option:  # noqa: A002
    """Make one filter option; `read` turns its text into a value."""
    if read is not None:
        attrs["callback"] = _repeated(read) if attrs.get("multiple") else options.checked(read)
    return Option(names, help=help, heading="Which jobs", **attrs)


def _filters() -> list[click.Option]:
    states = "Jobs in this state: pending, processing, completed (done), failed, dead. May be repeated."
    return [
        _option(
            "--state",
            "-s",
            "states",
            read=_read_state,
            metavar="STATE",
            multiple=True,
            shell_complete=options.complete_words(*STATES, "done"),
            help=states,
        ),
        _option(
            "--tag",
            "tags",
            read=_read_tag,
            metavar="TAG",
            multiple=True,
            shell_complete=options.complete_tags,
            help="Jobs with this tag. If repeated: with all these tags.",
        ),
        _option(
            "--queue",
            "queues",
            read=_read_queue,
            metavar="NAME",
            multiple=True,
            shell_complete=options.complete_queues,
            help="Jobs in this queue. May be repeated.",
        ),
        _option(
            "--engine",
            "engines",
            read=_read_engine,
            metavar="NAME",
            multiple=True,
            shell_complete=options.complete_words(LOCAL, *ENGINES),
            help="Jobs that run, ran last, or will run there: local, slurm. May be repeated.",
        ),
        _option(
            "--since",
            read=read_moment,
            metavar="WHEN",
            help="Jobs last changed since then: 2h, 7d, yesterday, 18:00, or a date.",
        ),
        _option(
            "--until",
            read=read_moment,
            metavar="WHEN",
            help="Jobs last changed before then: 2h, 7d, yesterday, 18:00, or a date.",
        ),
        *_filters_by_content(),
    ]


def _filters_by_content() -> list[click.Option]:
    text = options.utf8_text
    return [
        _option("--command", "-c", read=text, metavar="TEXT", help="Jobs with this text in the command."),
        _option(
            "--exit-code",
            "exit_codes",
            read=options.integer,
            metavar="N",
            multiple=True,
            help="Jobs with this last exit code. May be repeated.",
        ),
        _option(
            "--worker",
            read=text,
            metavar="NAME",
            shell_complete=options.complete_workers,
            help="Jobs that this worker runs, or ran last.",
        ),
        _option(
            "--held/--not-held",
            read=None,
            default=None,
            help="Jobs that are held (see queuectl hold), or that are not.",
        ),
        _option(
            "--batch",
            read=text,
            metavar="NAME",
            shell_complete=options.complete_batches,
            help="Jobs of this batch.",
        ),
        _option(
            "--rule",
            read=text,
            metavar="NAME",
            shell_complete=options.complete_rules,
            help="Jobs that this rule has queued.",
        ),
        _option(
            "--blocked/--not-blocked",
            read=None,
            default=None,
            help="Jobs that wait for a job that is dead, or that does not exist; or those that do not.",
        ),
        _option(
            "--reason",
            read=text,
            metavar="TEXT",
            help="Jobs with this text in the last error: why they are dead, or why they failed.",
        ),
    ]


def _order() -> list[click.Option]:
    return [
        _option(
            "--sort",
            read=_read_sort,
            metavar="KEY",
            shell_complete=options.complete_words(*SORTS),
            help=f"Order by {', '.join(SORTS)}; -KEY reverses the order. Default: arrived; on a terminal and with --limit "
            "-arrived, the newest first.",
        ),
        _option("--limit", "-n", read=read_limit, metavar="N", help="At most N jobs. Default: all jobs."),
    ]


def filter_options(*, sort: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the filter options to a command; its function gets their values as `where`, a Filter.

    Args:
        sort: add --sort and --limit too.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_filter(*args: Any, **given: Any) -> Any:
            mine = {name: given.pop(name) for name in Filter.__match_args__ if name in given}
            if sort and mine["sort"] is None:
                # A person, or who asks for a few, wants to see what has just been queued.
                newest_first = mine["limit"] is not None or render.is_terminal()
                mine["sort"] = "-arrived" if newest_first else "arrived"
            return function(*args, where=Filter(**mine), **given)

        # click collects the options of a function in this attribute, in reverse order.
        added = [*_filters(), *(_order() if sort else [])]
        with_filter.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(added)]  # type: ignore[attr-defined]
        return with_filter

    return decorate


def dry_run_option(function: FC) -> FC:
    """The --dry-run option."""
    return click.option("--dry-run", is_flag=True, help="Only show what would be done.")(function)


def downstream_option(what: str) -> Callable[[FC], FC]:
    """The --downstream option.

    Args:
        what: what is done to the other jobs, as in "Cancel as well".
    """
    text = f"{what} the jobs that wait for these, and those that wait for them in turn."
    return click.option("--downstream", is_flag=True, help=text)


def note_needed(number: int) -> None:
    """Say how many jobs were not deleted because other jobs wait for them."""
    if number:
        render.note(f"note: {render.count(number, 'job')} not deleted, as other jobs wait for them")


# -- doing something to each selected job --------------------------------------------------------------------------


class BulkAction:
    """One verb that a command applies to many jobs.

    Args:
        verb: as in "would cancel job1".
        past: as in "job 'job1' is dead and cannot be cancelled".
        states: the states of the jobs to which it can be applied.
        chosen: those that filters select if no state is given; default: the same.
    """

    def __init__(
        self, session: Session, verb: str, past: str, states: Sequence[str], chosen: Sequence[str] = ()
    ) -> None:
        self._session = session
        self._verb, self._past, self.states = verb, past, tuple(states)
        self._chosen = tuple(chosen) or self.states

    def select(self, ids: Sequence[str], where: Filter, *, everything: bool = False) -> list[str]:
        """Return the ids of the selected jobs.

        Args:
            everything: --all was given.

        Raises:
            Usage: both ids and filters are given, or neither, or a state to which the verb cannot be applied.
            JobError: the beginning of an id may mean several jobs, or one that is gone.
        """
        if ids and (everything or not where.is_open):
            raise Usage("give either job ids or filters, not both")
        if ids:
            from queuectl.cli import typed_ids

            return typed_ids.to_change(self._session, ids, self._verb)
        if where.is_open and not everything:
            raise Usage(f"name the jobs to {self._verb}, or select them with --tag, --state … or --all")
        wrong = [name for name in where.states if name not in self.states]
        if wrong:
            raise Usage(f"{wrong[0]} jobs cannot be {self._past}")
        rows = self._session.spool.list(where=where.of_states(*(where.states or self._chosen)))
        if not rows and not self._session.json:
            render.note(f"no jobs to {self._verb}")
        return [row.id for row in rows]

    def each(self, ids: Sequence[str], do: Action, *, dry_run: bool = False) -> int:
        """Apply the action to each job, report each result, and continue after a job that refuses.

        Args:
            do: takes an id; returns the line for people, and the value for --json.
            dry_run: only report what would be done.

        Returns:
            0, or the highest exit code of the jobs that refused.
        """
        return self.together(ids, _one_by_one(do), dry_run=dry_run)

    def together(
        self, ids: Sequence[str], do: BulkDo, *, dry_run: bool = False, would: Action | None = None
    ) -> int:
        """Apply an action to all jobs at once, and report each result.

        Args:
            do: takes ids and a function that must be called once for each, with its result or its error.
            dry_run: only report what would be done.
            would: checks one job for that; default: its state decides.

        Returns:
            0, or the highest exit code of the jobs that refused.
        """
        ids = list(dict.fromkeys(ids))
        if dry_run:
            do = _one_by_one(would or self._would)
        exit_code = done = 0
        reported: list[dict[str, Any]] = []
        known: dict[str, tuple[str, dict[str, Any]] | QueuectlError] = {}

        def tell(job_id: str, result: tuple[str, dict[str, Any]] | QueuectlError) -> None:
            nonlocal exit_code, done
            known[job_id] = result
            exit_code = max(exit_code, result.exit_code if isinstance(result, QueuectlError) else 0)
            done += not isinstance(result, QueuectlError)
            if not dry_run:
                report_done(f"{done} of {render.count(len(ids), 'job')} {self._past}")
            while (
                len(reported) < len(ids) and ids[len(reported)] in known
            ):  # in the order in which they were named
                reported.append(
                    self._report(next_id := ids[len(reported)], known[next_id], alone=len(ids) == 1)
                )

        do(ids, tell)
        if self._session.json:
            render.json_array(reported)
        return exit_code

    def _report(
        self, job_id: str, result: tuple[str, dict[str, Any]] | QueuectlError, *, alone: bool
    ) -> dict[str, Any]:
        """Print a result, except with --json; return its value for --json."""
        if isinstance(result, QueuectlError):
            return self._refused(job_id, result, alone=alone)
        if not self._session.json:
            render.line(result[0])
        return result[1]

    def _refused(self, job_id: str, error: QueuectlError, *, alone: bool) -> dict[str, Any]:
        if alone and not self._session.json:
            raise error
        text = str(error) if job_id in str(error) else f"{job_id}: {error}"
        render.note(f"error: {render.clip(text)}")
        return {"id": job_id, "error": str(error)}

    def _would(self, job_id: str) -> tuple[str, dict[str, Any]]:
        job = self._session.spool.get(job_id)
        if job.state not in self.states:
            raise MoveError(
                f"job {job_id!r} is {job.state} and cannot be {self._past}", hint=f"queuectl show {job_id}"
            )
        return self.shown(job_id, job.state, job.shown_command)

    def shown(self, job_id: str, state: str, command: str) -> tuple[str, dict[str, Any]]:
        """Return what a dry run reports of a job: the line for people, and the value for --json."""
        return f"would {self._verb} {job_id} - {state} - {command}", {
            "id": job_id,
            "would": self._verb,
            "state": state,
        }


def _one_by_one(do: Action) -> BulkDo:
    def each(ids: Sequence[str], tell: Tell) -> None:
        for job_id in ids:
            try:
                result = do(job_id)
            except QueuectlError as error:
                tell(job_id, error)
            else:
                tell(job_id, result)

    return each
