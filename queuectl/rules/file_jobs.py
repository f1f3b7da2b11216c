"""The jobs of a rule that watches a folder: its fields with a file's name filled in, quoted as `enqueue --each` does. Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from queuectl.job import template
from queuectl.rules.rule import Wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.rules.file_trigger import FileTrigger

FILE = "file-"
"""The beginning of what stands for the occurrence in the id of a job, before 13 characters."""

_SAMPLE = "sample.txt"


class FileTemplate(template.Template):
    """A command with placeholders for one file. Of the jobs of a list only one needs a placeholder."""

    placeholders = {name: words for name, words in template.PLACEHOLDERS.items() if name != "n"} | {
        "rel": "its path below the folder"
    }

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.has_placeholder = True
        command = job["command"]
        super().__init__(command, unique=job.get("unique"))

    def _refuse_plain(self) -> None:
        self.has_placeholder = False

    def filled(self, path: str, below: str) -> dict[str, Any]:
        """Return the fields that have placeholders, for one file.

        Args:
            path: absolute.
            below: its path below the folder that is watched.
        """
        # The command would take a name that starts with a dash for an option.
        relative = f".{os.sep}{below}" if below.startswith("-") else below
        found = self._filled(template.meanings(path, 1) | {"rel": relative})
        return {name: value for name, value in found.items() if value is not None}


class Templates:
    """The jobs of a rule, to be filled in for one file after the other."""

    def __init__(self, jobs: tuple[Mapping[str, Any], ...]) -> None:
        self._made = [(job, FileTemplate(job)) for job in jobs]

    def filled(self, path: str, below: str) -> tuple[dict[str, Any], ...]:
        """Return the jobs for one file; see `FileTemplate.filled`."""
        return tuple({**job, **template.filled(path, below)} for job, template in self._made)


def sample(
    jobs: tuple[Mapping[str, Any], ...], trigger: FileTrigger, *, is_list: bool
) -> tuple[Mapping[str, Any], ...]:
    """Return the jobs of a rule for a file that need not exist, so that they can be checked.

    Raises:
        Wrong: a placeholder is unknown, there is none, or one is in a place where quoting would not be safe.
    """
    found, has_placeholder = [], False
    path = os.path.join(trigger.folder, _SAMPLE)
    for number, job in enumerate(jobs):
        where = ("jobs", number) if is_list else ("job",)
        command = job.get("command")
        is_list_of_words = isinstance(command, list) and all(isinstance(word, str) for word in command)
        if not (isinstance(command, str) or is_list_of_words) or not isinstance(
            job.get("unique", ""), str | None
        ):
            found.append(job)  # what is wrong with it is told by the check of its fields
            has_placeholder = True
            continue
        try:
            made = FileTemplate(job)
        except ValueError as error:
            raise Wrong((*where, "command"), str(error)) from None
        has_placeholder |= made.has_placeholder
        found.append({**job, **made.filled(path, _SAMPLE)})
    if not has_placeholder:
        raise Wrong(
            ("jobs",) if is_list else ("job", "command"), "has no placeholder: {} stands for each file"
        )
    return tuple(found)
