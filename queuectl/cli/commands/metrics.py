"""`queuectl metrics`: how the spool stands, for Prometheus."""

from __future__ import annotations

import os

import click

from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command


@command(
    "metrics",
    examples="""
    queuectl metrics
    queuectl metrics | grep oldest_waiting
    queuectl metrics --textfile /var/lib/prometheus/node-exporter/queuectl.prom
    """,
)
@click.option(
    "--textfile",
    metavar="PATH",
    type=click.Path(),
    help="Write them into this file instead, all at once: for node_exporter's textfile collector. It must end in .prom.",
)
@click.pass_obj
def metrics_command(session: Session, textfile: str | None) -> None:
    """Print how the spool stands now in the text format of Prometheus.

    Every value is read off the spool, so all are gauges: when jobs are deleted their counts go down. With --textfile in a
    crontab (* * * * *) node_exporter passes them on, and no other port is open; the file is as readable as your umask
    lets it be. --json has the same numbers.
    """
    if textfile is not None:
        if not textfile.endswith(".prom"):
            raise Usage(
                "node_exporter reads files that end in .prom",
                hint=f"queuectl metrics --textfile {textfile}.prom",
            )
        session.spool.metrics(os.path.abspath(textfile))
        return
    text = session.spool.metrics()
    if session.json:
        render.json_array(_samples(text))
    else:
        render.lines(text.splitlines())


def _samples(text: str) -> list[dict[str, object]]:
    from queuectl.api import metrics

    return [{"name": name, "labels": labels, "value": value} for name, labels, value in metrics.samples(text)]
