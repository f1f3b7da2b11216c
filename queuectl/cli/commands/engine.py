"""`queuectl engine`: what runs jobs on other machines."""

from __future__ import annotations

import click

from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, command
from queuectl.layout import ENGINES

engine_command = Group(
    name="engine",
    short_help="Check what runs jobs on other machines.",
    help="""An engine runs the jobs of some queues on other machines. There is one: slurm.

    The file of a queue names its engine, or the setting `engine` does. `queuectl guide slurm` tells how it is set up.""",
    examples="""
    queuectl engine check
    queuectl engine check --wait 10m          on a cluster that is full
    """,
    other_words={
        "test": "check",
        "ping": "check",
        "status": "check",
        "show": "check",
        "start": "queuectl worker start --engine slurm",
        "stop": "queuectl worker stop",
        "set": "queuectl config set engine",
        "help": "queuectl guide slurm",
    },
    sections={
        "Commands": {"check": ("engine", "Check that jobs can run there, and say what is in the way.")}
    },
)


@command(
    "check",
    examples="""
    queuectl engine check
    queuectl engine check slurm --wait 10m
    queuectl engine check --json | jq -r '.faults[].fact'
    """,
    changes=True,
)
@click.argument("engine", default=ENGINES[0], type=click.Choice(ENGINES), metavar="[ENGINE]")
@click.option(
    "--wait",
    default="60",
    metavar="DURATION",
    callback=options.checked(options.duration),
    help="How long a probe may wait in the queue of the cluster, like 10m. Default: 60s.",
)
@click.pass_obj
def check_command(session: Session, engine: str, wait: float) -> int:
    """Check that jobs of this spool can run on ENGINE, which is slurm.

    It looks for the commands of Slurm, for its controller, and at the folder that the setting slurm_dir names. Then a
    probe runs in each partition that a queue of this spool names, with its options; without such a queue, in the default
    partition. A probe proves that a node sees the folder under the same path, has python 3.6 or later, can claim a job
    there, and that its result comes back. Each fault is printed, with a command that helps. Then the exit code is 1.
    """
    from queuectl.api import access
    from queuectl.config.queues import Queues
    from queuectl.engine import check

    settings = session.spool.settings()
    layout = session.spool.layout
    access.make(layout, "engine check")
    facts: list[str] = []
    faults: list[dict[str, str]] = []
    for one in check.check(layout, settings, Queues(layout, render.note), wait=wait):
        if one.hint is None:
            facts.append(one.text)
        else:
            faults.append({"fact": one.text, "hint": one.hint})
        if not session.json:
            _print(one.text, one.hint)
    if session.json:
        render.json_value({"engine": engine, "ok": not faults, "facts": facts, "faults": faults})
    elif not faults:
        render.line("ok")
    return 1 if faults else 0


def _print(text: str, hint: str | None) -> None:
    if hint is None:
        render.line(text)
    else:
        render.note(f"error: {text}")
        render.note(f"hint: {hint}")
