"""Edit a job in the user's editor, again until it is valid. The edited text is never lost."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, TypeVar

import click

from queuectl.cli import render
from queuectl.errors import InvalidJob, JobError, QueuectlError
from queuectl.job.fault_location import find_fault

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def edited(data: bytes, job_id: str, save: Callable[[bytes], T]) -> T | None:
    """Open a text in $VISUAL or $EDITOR, and save the result.

    Args:
        data: the text to edit.
        save: takes the new text. If it raises a JobError, the user is asked whether to edit again. If nobody can be
            asked, or for another error, the error is raised and the text is kept in a file.

    Returns:
        what `save` returns; None if the text was not changed.

    Raises:
        QueuectlError: the text was refused; the hint says in which file it is.
    """
    fd, path = tempfile.mkstemp(prefix=f"{job_id}-", suffix=".json")
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    keep = False
    try:
        while True:
            try:
                click.edit(filename=path)
            except ValueError as error:  # a quote that is not closed
                raise QueuectlError(f"$EDITOR is not a valid command: {str(error).lower()}") from None
            with open(path, "rb") as file:
                after = file.read()
            if after == data:
                return None
            keep = True
            try:
                saved = save(after)
            except QueuectlError as error:
                if not isinstance(error, JobError) or not _ask_again(error, after):
                    error.hint = f"nothing was changed; your text is in {path}"
                    raise
            else:
                keep = False
                return saved
    finally:
        if not keep:
            os.unlink(path)


def _ask_again(error: JobError, data: bytes) -> bool:
    """Show the error, and ask whether to edit again."""
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
