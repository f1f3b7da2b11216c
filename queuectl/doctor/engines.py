"""Examines what a spool has on a cluster: the shared folder, and packs there that no dispatcher will collect."""

from __future__ import annotations

import os
import shlex
import socket
from typing import TYPE_CHECKING

from queuectl.doctor.finding import STALE, Finding
from queuectl.engine import check, place
from queuectl.engine.packs import GONE, Pack
from queuectl.engine.probe import PROBES
from queuectl.errors import QueuectlError
from queuectl.layout import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case

_CURE = "queuectl engine check"


def examine(case: Case) -> Iterator[Finding]:
    """Examine the shared folder, if there is one. It may hang: then that is the finding."""
    folder = case.settings.slurm_dir
    if folder is None:
        return
    found: list[Finding] = []
    try:
        check.within(check.PATIENCE, lambda: found.extend(_in_share(case, folder)))
    except TimeoutError:
        fact = f"{folder} has not answered within {check.PATIENCE:.0f}s"
        yield Finding("slurm_dir", folder, fact, f"ls {shlex.quote(folder)}")
    except QueuectlError as error:
        yield Finding("slurm_dir", folder, error.message, error.hint or _CURE)
    except OSError as error:
        yield Finding("slurm_dir", folder, f"cannot read {error.filename}: {error.strerror}", _CURE)
    else:
        yield from found


def _in_share(case: Case, folder: str) -> Iterator[Finding]:
    home = place.existing(folder, case.layout, socket.gethostname())
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith(PROBES) and _age(case, path) > STALE:
            yield _leftover(path, "was left by a check of the cluster that was killed")
    if home is not None:
        claimed = {name for engine in ENGINES for name in _names(case.layout.claims(engine))}
        for name in sorted(os.listdir(home)):
            path = os.path.join(home, name)
            if os.path.isdir(path) and not name.startswith(GONE):
                yield from _pack(case, path, claimed)


def _pack(case: Case, path: str, claimed: set[str]) -> Iterator[Finding]:
    """Examine a pack. One that has no jobs any more is deleted by the next dispatcher, unless it cannot be read."""
    try:
        pack = Pack.found(path)
    except ValueError as error:
        cure = f"use that version to collect its jobs; if nothing runs there: rm -r {shlex.quote(path)}"
        yield Finding("pack", path, str(error), cure)
        return
    except FileNotFoundError:
        return  # it has just been deleted
    keys = pack.keys if pack is not None else ()
    if not any(f"{job}.json" in claimed for job, _ in keys) and _age(case, path) > STALE:
        yield _leftover(path, "is a pack whose jobs are all over; the next dispatcher deletes it")


def _leftover(path: str, what: str) -> Finding:
    return Finding("pack", path, f"{path} {what}", f"rm -r {shlex.quote(path)}", harmless=True)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _age(case: Case, path: str) -> float:
    try:
        return case.now() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
