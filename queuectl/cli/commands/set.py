"""`queuectl set`: change fields of waiting and dead jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import BulkAction, dry_run_option, filter_options
from queuectl.errors import QueuectlError
from queuectl.job.changes import CHANGEABLE, read_changes
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

    from queuectl.cli.selection import Tell
    from queuectl.index.filter import Filter
    from queuectl.job.record import Job

_STATES = (*WAITING, "dead")


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete ids of jobs, and names of fields."""
    from click.shell_completion import CompletionItem

    fields = [CompletionItem(f"{name}=") for name in CHANGEABLE if name.startswith(incomplete)]
    # click takes a list of one kind: among texts it would show the fields as Python objects.
    return [*map(CompletionItem, options.complete_ids(*_STATES)(ctx, param, incomplete)), *fields]


@command(
    "set",
    examples="""
    queuectl set job1 priority=9 timeout=10m
    queuectl set job1 job2 run_at=+1h              not before one hour from now; run_at=now: at once
    queuectl set --tag import max_retries=5 backoff_base=
    queuectl set --command ffmpeg priority=1 --dry-run
    queuectl set --tag import tags+=later          add a tag; tags-=later removes it
    queuectl set job1 tags=import,nightly env='{"LANG": "C"}'
    """,
    changes=True,
)
@click.argument("words", nargs=-1, metavar="[JOB...] FIELD=VALUE...", shell_complete=_complete)
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All waiting jobs.")
@dry_run_option
@click.pass_obj
def set_command(
    session: Session, words: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Change fields in the files of waiting or dead jobs.

    FIELD is any field of a job file except the id. FIELD= without a value removes the field, so that the setting of
    the spool applies. Filters and --all select waiting jobs, unless --state says otherwise. To change when a failed
    job is tried again, set run_at. If a worker takes a job at this moment, the job runs unchanged, and this is reported.
    """
    ids = [word for word in words if "=" not in word]
    try:
        changes = read_changes(word for word in words if "=" in word)
    except ValueError as error:
        raise Usage(str(error)) from None
    if not changes:
        raise Usage("nothing to change: add FIELD=VALUE, such as priority=9")
    if not ids and not where.states and (everything or not where.is_open):
        where, everything = where.of_states(*WAITING), False
    spool = session.spool
    action = BulkAction(session, "change", "changed", _STATES)

    def change(chosen: Sequence[str], tell: Tell) -> None:
        for job_id, job in spool.set_many(chosen, **changes).items():
            tell(job_id, job if isinstance(job, QueuectlError) else _told(job_id, job, changes))

    return action.together(action.select(ids, where, everything=everything), change, dry_run=dry_run)


def _told(job_id: str, job: Job, changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    record = job.to_dict()
    changed = {name: record.get(name) for name in (change.rstrip("+-") for change in changes)}
    return f"{job_id}: changed", {"id": job_id, "state": job.state, **changed}
