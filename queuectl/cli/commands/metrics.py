"""`queuectl metrics`: print the state of the spool for Prometheus."""

from __future__ import annotations

import os

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command


@command(
    "metrics",
    examples="""
    queuectl metrics
    queuectl metrics | grep oldest_waiting
    queuectl metrics --queue mail             its jobs by state, its limit, whether it is paused
    queuectl metrics --textfile /var/lib/prometheus/node-exporter/queuectl.prom
    """,
)
@click.option(
    "--textfile",
    metavar="PATH",
    type=click.Path(),
    help="Write to this file, atomically, for the textfile collector of node_exporter. The name must end in .prom.",
)
@options.queues_option("--queue", "queues", "Only the metrics of this queue: its jobs, its limit, its pause.")
@click.pass_obj
def metrics_command(session: Session, textfile: str | None, queues: tuple[str, ...]) -> None:
    """Print the state of the spool in the text format of Prometheus.

    All values are gauges, computed from the jobs that are in the spool now: counts go down when jobs are deleted. With
    --textfile in a crontab (* * * * *), node_exporter publishes the values and no extra port is needed. The
    permissions of the file follow your umask. --json has the same numbers.
    """
    if textfile is not None and not textfile.endswith(".prom"):
        raise Usage(
            "node_exporter reads only files whose names end in .prom",
            hint=f"queuectl metrics --textfile {textfile}.prom",
        )
    options.note_unknown_queues(session, queues)
    if textfile is not None:
        session.spool.metrics(os.path.abspath(textfile), queues=queues)
        return
    text = session.spool.metrics(queues=queues)
    if session.json:
        render.json_array(_samples(text))
    else:
        render.lines(text.splitlines())


def _samples(text: str) -> list[dict[str, object]]:
    from queuectl.api import metrics

    return [{"name": name, "labels": labels, "value": value} for name, labels, value in metrics.samples(text)]
