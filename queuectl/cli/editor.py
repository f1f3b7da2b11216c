"""A job in the person's own editor: again and again until it is one, and nothing typed is lost."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, TypeVar

import click

from queuectl.cli import render
from queuectl.errors import InvalidJob, JobError, QueuectlError
from queuectl.job.fault import find_fault

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def edited(data: bytes, job_id: str, land: Callable[[bytes], T]) -> T | None:
    """Open a job in $VISUAL or $EDITOR and hand over what comes out.

    Args:
        data: what is to be edited.
        land: takes the new bytes, and raises an InvalidJob or another JobError when they will not do. Then the person
            is asked whether to go on editing; where nobody can be asked it is refused, and the text kept.

    Returns:
        what land returns; None when nothing was changed.

    Raises:
        QueuectlError: refused; the hint says where the edited text is.
    """
    fd, path = tempfile.mkstemp(prefix=f"{job_id}-", suffix=".json")
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    keep = False
    try:
        while True:
            try:
                click.edit(filename=path)
            except ValueError as error:  # a quote without its twin
                raise QueuectlError(f"$EDITOR is no command: {str(error).lower()}") from None
            with open(path, "rb") as file:
                after = file.read()
            if after == data:
                return None
            keep = True
            try:
                landed = land(after)
            except QueuectlError as error:
                if not isinstance(error, JobError) or not _goes_on(error, after):
                    error.hint = f"nothing was changed; your text is in {path}"
                    raise
            else:
                keep = False
                return landed
    finally:
        if not keep:
            os.unlink(path)


def _goes_on(error: JobError, data: bytes) -> bool:
    """Show what is wrong, and ask whether to edit on."""
    wrong = find_fault(data) if isinstance(error, InvalidJob) else None
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    if wrong is None:
        render.note(f"error: {render.clip(str(error))}")
    else:
        render.note(f"error: {render.clip(wrong.reason)}")
        for line in wrong.marked_line():
            render.note(line)
    sys.stderr.write("Edit again? [Y/n] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() not in {"n", "no"}
