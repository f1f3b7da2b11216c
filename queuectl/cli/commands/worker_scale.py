"""`queuectl worker scale`: start or stop as many workers as needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.cli.commands.worker import (
    MAX_WORKERS,
    check_queues,
    concurrency_option,
    queue_options,
    report_busy,
    show_started,
    show_stopped,
    stop_timeout,
)

if TYPE_CHECKING:
    from queuectl.control.registry import WorkerInfo


@command(
    "scale",
    examples="""
    queuectl worker scale 4                   have four workers
    queuectl worker scale 0                   the same as: queuectl worker stop
    queuectl worker scale 2 --drain           for cron: at most two, which exit after the last job
    queuectl worker scale 3 --queue mail      three for this queue; all others stay
    """,
)
@click.argument("number", metavar="N", callback=options.between(0, MAX_WORKERS))
@concurrency_option
@click.option("--drain", is_flag=True, help="Those that it starts exit when no job is left to run.")
@queue_options
@click.pass_obj
def scale_command(
    session: Session,
    number: int,
    concurrency: int | None,
    drain: bool,
    queues: tuple[str, ...],
    not_queues: tuple[str, ...],
) -> None:
    """Have N workers: start as many background workers as are missing, or stop as many as there are too many.

    --concurrency is for those that it starts. Workers that have been asked to stop do not count. Idle workers are stopped
    first; others finish their jobs, and the command waits for that as `worker stop` does.

    With --queue or --not-queue only those workers count that serve the same queues, and only they are stopped. Without, all
    workers count.
    """
    check_queues(queues, not_queues)
    from queuectl.worker import pool, stopping
    from queuectl.worker.program import WorkerOptions

    layout = session.spool.layout
    options.note_unknown_queues(session, (*queues, *not_queues))
    present = [one for one in session.spool.workers() if one.kind == "worker" and not one.stopping]
    if queues or not_queues:
        bound = ({*queues}, {*not_queues})
        present = [worker for worker in present if ({*worker.queues}, {*worker.not_queues}) == bound]
    if len(present) < number:
        wanted = WorkerOptions(drain, False, concurrency, queues, not_queues)
        started = pool.start(layout, number - len(present), wanted)
        if session.json:
            render.json_value(
                {"started": [json_view.worker(one) for one in started], "stopped": 0, "busy": []}
            )
        else:
            show_started(session, started)
    elif len(present) > number:
        chosen = sorted(present, key=_stop_order)[: len(present) - number]
        show_stopped(
            session,
            stopping.stop(
                layout,
                force=False,
                timeout=stop_timeout(session),
                report=report_busy,
                names=[worker.name for worker in chosen],
            ),
        )
    elif session.json:
        render.json_value({"started": [], "stopped": 0, "busy": []})
    else:
        render.line(f"{number} worker(s) are running already" if number else "No workers to stop")


def _stop_order(worker: WorkerInfo) -> tuple[bool, int]:
    """Idle ones first, and of these the one with the highest number."""
    return worker.job_id is not None, -int(worker.name.rpartition("-")[2])
