"""What a rule that watches a folder would take now, and what not and why. Nothing is taken, and nothing is written."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.rules import folder_look
from queuectl.rules.folder_look import FolderLook
from queuectl.rules.seen_files import SeenFiles
from queuectl.system import mounts

if TYPE_CHECKING:
    from queuectl.layout import Layout
    from queuectl.rules.file_trigger import FileTrigger


@dataclass(slots=True)
class Survey:
    """A look at a folder. Files are told by their paths below it.

    Attributes:
        takes: the files that are complete, the oldest first.
        waits: the others, each with what it waits for.
        taken: how many files in the folder have been taken already.
        not_utf8: how many names are not UTF-8, which no job file can contain.
        unfinished: how many names are those of unfinished files, without hidden ones.
        problem: why nothing can be taken; None if nothing is wrong.
        notes: what is worth knowing about the folder.
    """

    takes: list[str] = field(default_factory=list)
    waits: list[tuple[str, str]] = field(default_factory=list)
    taken: int = 0
    not_utf8: int = 0
    unfinished: int = 0
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


def survey(trigger: FileTrigger, layout: Layout | None, rule: str) -> Survey:
    """Look at the folder of a rule.

    Args:
        layout: of the spool that knows which files were taken; None: it is not asked.
        rule: its name.
    """
    seen = SeenFiles(layout.rule_seen(rule)) if layout is not None else None
    look = FolderLook(trigger, seen.knows if seen is not None else lambda _: False)
    for _ in look.steps():
        pass
    found = Survey(
        taken=look.number_known, not_utf8=look.nameless, unfinished=look.unfinished, problem=look.problem
    )
    found.problem = found.problem or problem_of(trigger)
    is_remote = is_polled(trigger)
    now = time.time()
    for one in sorted(look.found, key=lambda one: (one.modified, one.below)):
        age = now - folder_look.latest_change(one.changed) / 1e9
        reason = folder_look.what_is_missing(one, trigger, age if age >= 0 and not is_remote else None)
        reason = reason or folder_look.in_use(os.path.join(trigger.folder, one.below))
        if reason is None:
            found.takes.append(one.below)
        else:
            found.waits.append((one.below, reason))
    found.waits += look.closed
    if is_remote:
        found.notes.append(remote_note(trigger))
    return found


def problem_of(trigger: FileTrigger) -> str | None:
    """Return why no file of a folder can be taken, as far as a short look tells; None: nothing is known to be wrong."""
    folder = trigger.folder
    if is_polled(trigger):
        return None  # a server that does not answer would hold `status` up
    try:
        with os.scandir(folder):
            pass
    except FileNotFoundError:
        return f"{folder} is not there"
    except NotADirectoryError:
        return f"{folder} is no folder"
    except OSError as error:
        return f"{folder} cannot be read: {(error.strerror or str(error)).lower()}"
    if trigger.moves and not os.access(folder, os.W_OK | os.X_OK):
        return f"when.source: {folder} cannot be written: source: leave lets the files stay"
    return None


def is_polled(trigger: FileTrigger) -> bool:
    """Whether the folder lies where the system tells of no changes. The folder itself is not touched, as that may hang."""
    return mounts.leads_into(trigger.folder, mounts.hanging_points())


def remote_note(trigger: FileTrigger) -> str:
    """Return what is told of a folder for which `is_polled`."""
    return f"{trigger.folder} is on another machine, so it is looked at each {trigger.poll:g} s"


def movers(trigger: FileTrigger, others: dict[str, FileTrigger]) -> list[str]:
    """Return the names of rules that may take a file away from this one, or from which this one may take it."""
    return [
        name
        for name, one in others.items()
        if (one.moves or trigger.moves)
        and _share_a_folder(one, trigger)
        and one.may_share_names_with(trigger)
    ]


def _share_a_folder(one: FileTrigger, other: FileTrigger) -> bool:
    first, second = (f"{os.path.realpath(trigger.folder)}{os.sep}" for trigger in (one, other))
    return (
        first == second
        or (one.recursive and second.startswith(first))
        or (other.recursive and first.startswith(second))
    )
