"""`queuectl retry`: run dead, failed and completed jobs again."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import listing
from queuectl.api.downstream import parts_of, to_retry
from queuectl.api.listing import RETRIED
from queuectl.api.retry import LEFT_OUT, check_retry, given_up
from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, downstream_option, dry_run_option, filter_options
from queuectl.errors import MoveError, QueuectlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from queuectl.api.spool import Spool
    from queuectl.cli.selection import Tell
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.job.record import Job


def change_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --timeout and --set to a command; its function gets their values as `changes`."""

    @functools.wraps(function)
    def with_changes(*args: Any, timeout: float | None, changes: dict[str, Any], **given: Any) -> Any:
        if timeout is not None:
            changes = {**changes, "timeout": timeout}
        return function(*args, changes=changes, **given)

    click.option(
        "--set",
        "changes",
        metavar="FIELD=VALUE",
        multiple=True,
        callback=options.changes,
        help="Change this field too. Write lists as a,b; FIELD= removes the field. May be repeated.",
    )(with_changes)
    click.option(
        "--timeout",
        metavar="TIME",
        callback=options.job_field("timeout"),
        help="Give them a new time limit: 60, 10m; 0 for none.",
    )(with_changes)
    return with_changes


@command(
    "retry",
    examples="""
    queuectl retry job1 job2 --timeout 60
    queuectl retry --tag import               the dead and the failed jobs with this tag
    queuectl retry --reason "Exit code 75" --set priority=9
    queuectl retry --state done --tag report  completed jobs, once more
    queuectl retry --all --dry-run
    queuectl retry extract --downstream       and the dead jobs that wait for it
    """,
    changes=True,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*RETRIED))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All dead and failed jobs.")
@change_options
@downstream_option("Retry as well")
@dry_run_option
@click.pass_obj
def retry_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    changes: dict[str, Any],
    downstream: bool,
    dry_run: bool,
) -> int:
    """Run jobs again.

    A dead or completed job goes back to pending: its attempts start again at 0, and its history is kept. A failed job,
    which waits for its next attempt, is tried now; its attempts still count. The values of --timeout and --set are
    written into the job's file.

    Filters and --all select dead and failed jobs; completed ones need --state done, or their names. They leave out jobs
    that a person has cancelled or given up, held ones, and jobs that were replaced by a newer job with the same unique
    key. Those are retried if you name them, or select them with --reason. With several jobs each result is reported; the
    exit code is 1 if any was refused.

    With --downstream, dead jobs that wait for these are retried too, like those that `if_blocked: dead` has given up. The
    values of --timeout and --set are not for them.
    """
    action = BulkAction(session, "retry", "retried", RETRIED, chosen=("failed", "dead"))
    return retry(
        action,
        session.spool,
        ids,
        where,
        everything=everything,
        changes=changes,
        downstream=downstream,
        dry_run=dry_run,
    )


def retry(
    action: BulkAction,
    spool: Spool,
    ids: Sequence[str],
    where: Filter,
    *,
    everything: bool,
    changes: dict[str, Any],
    downstream: bool,
    dry_run: bool,
) -> int:
    """Retry the selected jobs, and report each result.

    Args:
        action: says in which states a job can be retried.

    Returns:
        the exit code.
    """

    def do(chosen: Sequence[str], tell: Tell) -> None:
        def told(job_id: str, result: Job | QueuectlError) -> None:
            if isinstance(result, QueuectlError):
                tell(job_id, result)
            else:
                tell(job_id, (f"requeued job {result.id}", {"id": result.id, "state": result.state}))

        refused = {
            job_id: error for job_id, row in spool._rows(chosen).items() if (error := _refusal(action, row))
        }
        for job_id, error in refused.items():
            tell(job_id, error)
        left = [job_id for job_id in chosen if job_id not in refused]
        for part, fields in parts_of(left, named, changes):
            spool.retry_many(part, tell=told, **fields)

    def would(job_id: str) -> tuple[str, dict[str, Any]]:
        row = listing.one(spool, job_id)
        if error := _refusal(action, row):
            raise error
        job = check_retry(spool, job_id, changes if job_id in named else {})
        return action.shown(job_id, row.state, job.shown_command)

    selected = action.select(ids, where, everything=everything)
    if not ids and where.reason is None:
        selected = _without_given_up(spool, selected)
    named = {*selected}
    if downstream:
        selected, left_out = to_retry(spool, selected, action.states)
        _tell_given_up(left_out)
    return action.together(selected, do, dry_run=dry_run, would=would)


def _refusal(action: BulkAction, row: Row) -> MoveError | None:
    """Return why `dlq retry` does not retry a job that `retry` would; None for all others."""
    from queuectl.job import times

    if row.state in action.states or row.state not in RETRIED:
        return None
    text = f"job {row.id!r} is not dead"
    if row.state == "completed":
        text = f"job {row.id!r} is completed, not dead"
    elif row.next_retry_at is not None:
        text += f"; it will be retried automatically at {times.local(row.next_retry_at / 1e6)}"
    return MoveError(text, hint=f"to run it now: queuectl retry {row.id}")


def _without_given_up(spool: Spool, ids: list[str]) -> list[str]:
    """Leave out jobs that a person does not want to run, and say so."""
    left_out = _tell_given_up(spool._rows(ids).values())
    return [job_id for job_id in ids if job_id not in left_out]


def _tell_given_up(rows: Iterable[Row]) -> set[str]:
    """Say which of these jobs are not retried, as a person does not want them to run; return their ids."""
    found = given_up(rows)
    if held := found.pop("held", None):
        render.note(f"note: {render.count(len(held), 'held job')} not retried: queuectl release")
    for key, jobs in found.items():
        render.note(f"note: {render.count(len(jobs), 'job')} not retried, because {LEFT_OUT[key]}")
    return set().union(held or (), *found.values())
