"""`queuectl cancel`: cancel waiting and running jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, downstream_option, dry_run_option, filter_options
from queuectl.errors import QueuectlError
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.cli.selection import Tell
    from queuectl.index.filter import Filter

_STATES = (*WAITING, "processing")


@command(
    "cancel",
    examples="""
    queuectl cancel job1 job2
    queuectl cancel --tag import --dry-run    show which jobs would be cancelled
    queuectl cancel --state pending --command ffmpeg
    queuectl cancel extract --downstream      and all jobs that wait for it
    """,
    changes=True,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*_STATES))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All waiting and running jobs.")
@downstream_option("Cancel as well")
@dry_run_option
@click.pass_obj
def cancel_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    downstream: bool,
    dry_run: bool,
) -> int:
    """Cancel jobs: end a running job, and move the job to the dead letter queue.

    Waiting jobs are cancelled first, all at once, so that no worker starts them; then running ones are ended. This waits
    until they have ended. `ending` means that a job has not ended within the setting kill_grace and two seconds: its
    worker has been asked, and the job will not be tried again.

    With --downstream, the jobs that wait for these are cancelled too. A job that is over already is then passed over, if
    others wait for it.

    `queuectl retry` runs a cancelled job again. With several jobs each result is reported; the exit code is 1 if any
    was refused, also because it ended by itself.
    """
    action = BulkAction(session, "cancel", "cancelled", _STATES)

    def cancel(chosen: Sequence[str], tell: Tell) -> None:
        def told(job_id: str, result: str | QueuectlError) -> None:
            if isinstance(result, QueuectlError):
                tell(job_id, result)
            else:
                tell(job_id, (f"{job_id}: {result}", {"id": job_id, "done": result}))

        session.spool.cancel_many(chosen, tell=told)

    selected = action.select(ids, where, everything=everything)
    if downstream:
        from queuectl.api.downstream import to_cancel

        selected = to_cancel(session.spool, selected)
    return action.together(selected, cancel, dry_run=dry_run)
