"""`queuectl doctor`: find problems in a spool, and repair them."""

from __future__ import annotations

import click

from queuectl.cli import render
from queuectl.cli.base import Session, command


@command(
    "doctor",
    examples="""
    queuectl doctor                           report problems, change nothing
    queuectl doctor --repair                  repair what can be repaired
    queuectl doctor --json | jq '.findings[].fact'
    """,
    changes=True,
)
@click.option("--repair", is_flag=True, help="Repair what can be repaired, then report what remains.")
@click.pass_obj
def doctor_command(session: Session, repair: bool) -> int:
    """Look for problems in the spool, and explain them. The exit code is 1 if there are any.

    It finds: a job in two places, an index that differs from the folders, jobs of workers that have died, files that
    are not valid jobs, logs and reasons without a job, leftover files, wrong permissions, a filesystem that is remote,
    read-only or full, a clock that was set back, a TZ that names no zone, jobs that wait for each other, jobs that no
    limit counts, and a folder for Slurm that cannot be used, or has packs that nobody will collect. It tells of queues and of dead or missing jobs that keep others waiting, too. A repair deletes nothing: it moves files that cannot stay to
    data/aside/, each with a note that says why.
    """
    from queuectl.doctor import doctor

    layout = session.spool.layout
    done: list[str] = []
    found = doctor.repair(layout, say=done.append) if repair else doctor.examine(layout)
    faults = [one for one in found if not one.harmless]
    if session.json:
        findings = [one.to_dict() for one in found]
        render.json_value({"spool": layout.root, "sane": not faults, "done": done, "findings": findings})
        return 1 if faults else 0
    for text in done:
        render.line(f"repaired {text}" if not text.startswith("cannot ") else text)
    for one in found:
        tail = "; queuectl doctor --repair will: " if one.repairable else "; to do: "
        render.line(f"{'note' if one.harmless else one.kind}: {one.fact}{tail}{one.cure}")
    if not layout.exists():
        render.line(f"there is no spool at {layout.root}")
    elif not faults:
        render.line("nothing is wrong with this spool")
    return 1 if faults else 0
