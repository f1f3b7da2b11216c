"""`queuectl set`: change fields of jobs that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import Bulk, dry_run_option, filter_options
from queuectl.job.changes import CHANGEABLE, read_changes
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from queuectl.index.filter import Filter

_AMONG = (*WAITING, "dead")


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem | str]:
    """Ids of jobs, and names of fields."""
    from click.shell_completion import CompletionItem

    fields = [CompletionItem(f"{name}=") for name in CHANGEABLE if name.startswith(incomplete)]
    return [*takes.complete_ids(*_AMONG)(ctx, param, incomplete), *fields]


@command(
    "set",
    examples="""
    queuectl set job1 priority=9 timeout=10m
    queuectl set job1 job2 run_at=+1h              not before an hour from now; run_at=now: at once
    queuectl set --tag import max_retries=5 backoff_base=
    queuectl set --command ffmpeg priority=1 --dry-run
    queuectl set --tag import tags+=later          add a tag; tags-=later removes it
    queuectl set job1 tags=import,nightly env='{"LANG": "C"}'
    """,
)
@click.argument("words", nargs=-1, metavar="[JOB...] FIELD=VALUE...", shell_complete=_complete)
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that wait.")
@dry_run_option
@click.pass_obj
def set_command(
    session: Session, words: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Change fields of the job file, of jobs that wait or are dead.

    FIELD is any that a producer may write, but for the id. Nothing after the = takes a field away, and the settings
    decide. Filters and --all mean waiting jobs, unless --state says otherwise. A job that failed waits for its next
    attempt: run_at moves that. What a worker takes at this very moment runs as it was, and you are told so.
    """
    ids = [word for word in words if "=" not in word]
    try:
        changes = read_changes(word for word in words if "=" in word)
    except ValueError as error:
        raise Usage(str(error)) from None
    if not changes:
        raise Usage("nothing to change: FIELD=VALUE is missing, as in priority=9")
    if not ids and not where.states and (everything or not where.is_open):
        where, everything = where.of_states(*WAITING), False
    spool = session.spool
    bulk = Bulk(session, "change", "changed", _AMONG)

    def change(job_id: str) -> tuple[str, dict[str, Any]]:
        job = spool.set(job_id, **changes)
        record = job.to_dict()
        return f"{job_id}: changed", {
            "id": job_id,
            "state": job.state,
            **{name: record.get(name) for name in (change.rstrip("+-") for change in changes)},
        }

    return bulk.each(bulk.chosen(ids, where, everything=everything), change, dry_run=dry_run)
