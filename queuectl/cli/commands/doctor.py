"""`queuectl doctor`: what is wrong with a spool, and how to mend it."""

from __future__ import annotations

import os

import click

from queuectl.cli import render
from queuectl.cli.base import Session, command


@command(
    "doctor",
    examples="""
    queuectl doctor                           look, and change nothing
    queuectl doctor --repair                  mend what can be mended
    queuectl doctor --json | jq '.findings[].fact'
    """,
)
@click.option("--repair", is_flag=True, help="Mend what can be mended, then say what is left.")
@click.pass_obj
def doctor_command(session: Session, repair: bool) -> int:
    """Look for whatever is wrong with the spool, and explain it. Exit code 1 if anything is.

    It finds: a job in two places, an index that does not agree with the folders, jobs of dead workers, files that are no
    job, logs and reasons without a job, leftovers, wrong rights, a filesystem that is remote, read-only or full, a clock
    that went back. A repair deletes nothing: what cannot stay goes to data/aside/, with a note beside it.
    """
    from queuectl.doctor import doctor

    layout = session.spool.layout
    if os.path.isdir(layout.root) and os.path.isdir(layout.pending):
        # What was dropped or moved by hand is no fault: it is taken in first, as any command does.
        session.spool.refresh()
    done: list[str] = []
    found = doctor.repair(layout, say=done.append) if repair else doctor.examine(layout)
    faults = [one for one in found if not one.harmless]
    if session.json:
        render.json_value(
            {
                "spool": layout.root,
                "sane": not faults,
                "done": done,
                "findings": [one.to_dict() for one in found],
            }
        )
        return 1 if faults else 0
    for text in done:
        render.line(f"mended {text}" if not text.startswith("cannot ") else text)
    for one in found:
        tail = "; queuectl doctor --repair will: " if one.repairable else "; to do: "
        render.line(f"{'note' if one.harmless else one.kind}: {one.fact}{tail}{one.cure}")
    if not faults:
        render.line("nothing is wrong with this spool")
    return 1 if faults else 0
