"""`queuectl remove`: delete jobs permanently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, downstream_option, dry_run_option, filter_options, note_needed
from queuectl.errors import StillNeeded
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.cli.selection import Tell
    from queuectl.errors import QueuectlError
    from queuectl.index.filter import Filter


@command(
    "remove",
    examples="""
    queuectl remove job1 job2
    queuectl remove --tag import --dry-run    show which jobs would be removed
    queuectl remove --state done --until 30d --yes
    queuectl remove --cancel job3             end it first if it is running
    queuectl remove extract --downstream      and all jobs that wait for it
    """,
    changes=True,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids())
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs.")
@click.option(
    "--cancel", is_flag=True, help="End running jobs first. Without it, running jobs are not removed."
)
@downstream_option("Delete as well")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def remove_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    cancel: bool,
    downstream: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Delete jobs permanently, with their output. Deleting a job's file and its logs with `rm` does the same.

    It asks first when jobs are selected with filters or --downstream, but not when all are named. A running job is refused
    unless --cancel is given. A job for which another one waits is refused unless that one is deleted as well: --downstream
    deletes the jobs that wait, and dead jobs that would wait if they were retried; completed ones are kept. With several
    jobs each result is reported; the exit code is 1 if any was refused.
    """
    spool = session.spool
    states = STATES if cancel else tuple(state for state in STATES if state != "processing")
    action = BulkAction(session, "remove", "removed", states)
    selected = action.select(ids, where, everything=everything)
    named = len(selected)
    if downstream:
        from queuectl.api.downstream import to_remove

        selected = to_remove(spool, selected)
    if selected and not dry_run and not (ids and len(selected) == named):
        options.confirm(f"Remove {render.count(len(selected), 'job')} permanently", yes=yes)

    needed = 0

    def remove(chosen: Sequence[str], tell: Tell) -> None:
        def told(job_id: str, error: QueuectlError | None) -> None:
            nonlocal needed
            needed += isinstance(error, StillNeeded)
            tell(job_id, error or (f"{job_id}: removed", {"id": job_id, "removed": True}))

        try:
            spool.forget_many(chosen, cancel=cancel, tell=told)
        finally:
            spool.sync_deletions()

    exit_code = action.together(selected, remove, dry_run=dry_run)
    if len(selected) > 1:
        note_needed(needed)
    return exit_code
