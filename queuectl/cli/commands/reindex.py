"""`queuectl reindex`: build the index again from the folders."""

from __future__ import annotations

import click

from queuectl.cli import render
from queuectl.cli.base import Session, command


@command("reindex", examples="queuectl reindex", changes=True)
@click.pass_obj
def reindex_command(session: Session) -> None:
    """Build the index again from the folders.

    The folders hold the jobs; the index is only a copy that makes lists and counts fast. It is kept up to date
    automatically, so this command is normally not needed. It never does harm.
    """
    spool = session.spool
    if render.is_terminal() and not session.json:
        with render.console(stderr=True).status("reading the folders"):
            found = spool.reindex()
    else:
        found = spool.reindex()
    if session.json:
        render.json_value({"jobs": found})
    else:
        render.line(f"Indexed {found} job(s)")
