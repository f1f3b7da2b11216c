"""What must hold before a dispatcher is started, and each second while it runs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NoReturn

from queuectl.engine import place, script
from queuectl.engine.check import PATIENCE, within
from queuectl.engine.check import PROGRAMS as COMMANDS
from queuectl.errors import QueuectlError, SpoolError

if TYPE_CHECKING:
    from queuectl.config.settings import Settings
    from queuectl.layout import Layout


def check(layout: Layout, settings: Settings, *, may_be_root: bool = False) -> None:
    """Make sure that a dispatcher can be started.

    Raises:
        QueuectlError: it cannot, and why.
    """
    if not may_be_root and hasattr(os, "geteuid") and os.geteuid() == 0:
        refuse_root()
    folder = folder_in(settings)
    refuse_missing()
    script.text()
    try:
        within(PATIENCE, lambda: place.check(folder, layout))
    except TimeoutError:
        raise SpoolError(f"{folder} has not answered within {PATIENCE:.0f}s") from None


def refuse_root() -> NoReturn:
    """Refuse to hand over jobs as root.

    Raises:
        SpoolError: always.
    """
    raise SpoolError(
        "root cannot hand jobs to Slurm: whoever is root on a node could run commands as root here",
        hint="use a spool of an ordinary user",
    )


def refuse_missing(path: str | None = None) -> None:
    """Make sure that Slurm's commands are there.

    Args:
        path: where they are looked for; default: in PATH.

    Raises:
        SpoolError: one is not.
    """
    for name in COMMANDS:
        if shutil.which(name, path=path) is None:
            raise SpoolError(f"{name} is not found, so no job can be handed to Slurm from this machine")


def folder_in(settings: Settings) -> str:
    """Return the shared folder.

    Raises:
        SpoolError: none is set.
    """
    if settings.slurm_dir is None:
        raise SpoolError(
            "slurm_dir is not set: the folder that all nodes see under the same path",
            hint="queuectl config set slurm_dir /shared/queuectl",
        )
    return settings.slurm_dir


def danger(folder: str, layout: Layout, engine: str) -> str | None:
    """Return why nothing may be handed over in a folder; None if nothing is wrong. It may hang."""
    try:
        place.check(folder, layout)
        place.check_used(layout.claims(engine))
    except QueuectlError as error:
        return error.message
    return None


def fault_of(fault: Exception) -> str:
    """Return what was wrong, in a line."""
    if isinstance(fault, QueuectlError):
        return fault.message
    reason = (getattr(fault, "strerror", None) or str(fault)).lower()
    path = getattr(fault, "filename", None)
    return f"{path}: {reason}" if path else reason
