"""What the disk has refused to queue about ends of jobs: an empty file for each hook, whose name says all.

An empty file needs no space, only a name. So a full disk takes it, and what could not be queued outlives the process that
has tried. Whoever queues the hook deletes the file; after a crash in between, the id of the hook shows that it is queued.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.fields import is_id
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.layout import Layout

_BETWEEN = "~"
"""It can stand in no id."""


class Untold(NamedTuple):
    """A hook that could not be queued.

    Attributes:
        event: dead, done or recovered.
        hook: the id that it will have.
        about: the id of the job of which it tells.
    """

    event: str
    hook: str
    about: str

    @property
    def rule(self) -> str:
        """The name of its rule."""
        return self.hook.partition(".")[0]


def make_folder(layout: Layout) -> None:
    """Make the folder for them, while the disk still has room for a folder.

    Raises:
        OSError: the disk refused.
    """
    if not os.path.isdir(layout.rules_untold):
        os.makedirs(layout.rule_notes, mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(layout.rules_untold, 0o700)


def note(layout: Layout, one: Untold) -> None:
    """Note a hook.

    Raises:
        OSError: the disk takes no name either.
    """
    with suppress(FileExistsError):
        os.close(os.open(_path(layout, one), files.CREATE, 0o600))


def forget(layout: Layout, those: Iterable[Untold]) -> None:
    """Delete what is noted about hooks that are queued now."""
    for one in those:
        with suppress(FileNotFoundError):
            os.unlink(_path(layout, one))


def left(layout: Layout) -> list[Untold]:
    """Return all that are noted, by name."""
    try:
        names = sorted(os.listdir(layout.rules_untold))
    except OSError:
        return []  # no rule about jobs has been followed here
    parts = [name.split(_BETWEEN) for name in names]
    return [Untold(*part) for part in parts if len(part) == len(Untold._fields) and all(map(is_id, part))]


def _path(layout: Layout, one: Untold) -> str:
    return os.path.join(layout.rules_untold, _BETWEEN.join(one))
