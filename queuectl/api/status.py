"""The notes that `status` prints: one line for each thing that keeps jobs from running, or that a user should know."""

from __future__ import annotations

import os
import time
from itertools import islice

from queuectl.api import access, queues, spool_rule
from queuectl.config.settings import Settings
from queuectl.control import mounts, pause, permissions, registry
from queuectl.errors import ConfigError
from queuectl.job.redact import one_line
from queuectl.layout import ENGINES, is_misnamed
from queuectl.storage import growth
from queuectl.system import files, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase
    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout

_GROWTH_LIFE = 60.0
"""Seconds for which an object goes on to say how large the folders are. To count a hundred thousand names takes 60 ms."""

_FILES_CHECKED = 2000
"""How many files in pending/ are checked for names that no job can have: this takes 2 ms. The doctor checks all."""


def notes(spool: SpoolBase) -> list[str]:
    """Return the notes, the most important ones first."""
    if not spool.layout.exists():
        return [access.NONE.format(spool.layout.root), *_settings(spool, [])[1]]
    workers = registry.live_workers(spool.layout)
    settings, found = _settings(spool, workers)
    if paused := pause.read(spool.layout):
        found.append(f"{paused.sentence}; workers start nothing until: queuectl resume")
    found += _queues(spool, settings)
    found += _rules(spool)
    found += _files_not_taken(spool)
    found += _grown(spool, settings)
    if spool._index.path == ":memory:":
        found.append("the index cannot be written here, so every look reads all folders")
    # Asking about that folder makes it, and the settings of another user may name any path.
    if (folder := settings.incoming) and not spool._storage.read_only:
        from queuectl.intake import drop_folder

        found += drop_folder.problems(folder, spool.layout)
    found += _orphaned(spool.layout)
    found += _engines(spool, settings, workers)
    if number := spool._ask(spool._index.count_blocked):
        jobs = "1 job is" if number == 1 else f"{number} jobs are"
        found.append(f"{jobs} blocked by dead or missing jobs: queuectl list --blocked")
    if blocked := start_obstacle(spool.layout, settings):
        found.append(blocked)
    found += [f"{w.name} polls, as no events come: {w.polling}" for w in workers if w.polling]
    found += [f"{w.name} could not queue a job of a rule yet: {w.rules}" for w in workers if w.rules]
    return found


def _grown(spool: SpoolBase, settings: Settings) -> list[str]:
    """Return the notes about folders that only grow. They are counted again when somebody has changed the settings."""
    known, now = spool._growth, time.monotonic()
    if known is None or known[0] is not settings or now - known[1] > _GROWTH_LIFE:
        found = spool._ask(lambda: growth.notes(spool.layout, spool._index, settings))
        known = spool._growth = (settings, now, found)
    return known[2]


def _queues(spool: SpoolBase, settings: Settings) -> list[str]:
    """Return the notes about queues. Where none is used, nothing is loaded and nothing is counted."""
    if not queues.are_used(spool):
        return []
    from queuectl.storage import queue_state

    try:
        return spool._ask(
            lambda: queue_state.notes(queue_state.QueueView(spool.layout, spool._index, settings))
        )
    except ConfigError as error:
        return [str(error)]


def _engines(spool: SpoolBase, settings: Settings, workers: list[WorkerInfo]) -> list[str]:
    """Return the notes about engines. Where none is used, nothing is loaded."""
    if settings.slurm_dir is None and settings.engine not in ENGINES and not queues.are_used(spool):
        return []
    from queuectl.api import engines

    return engines.notes(spool, settings, workers)


def _rules(spool: SpoolBase) -> list[str]:
    """Return the notes about rules. Where there are none, nothing is loaded."""
    if not spool_rule.are_there(spool.layout):
        return []
    from queuectl.api import rules

    return [*rules.notes(spool.layout), *rules.notes_of_untold(spool)]


def _orphaned(layout: Layout) -> list[str]:
    """Return a note for each worker that is gone while processes of its runs are left."""
    found: dict[str, list[str]] = {}
    for name, job_id in registry.orphaned_runs(layout):
        found.setdefault(name, []).append(job_id)
    return [
        f"job {ids[0]} of {name}, which is gone, waits until the last process of its run ends"
        if len(ids) == 1
        else f"{len(ids)} jobs of {name}, which is gone, wait until the last processes of their runs end"
        for name, ids in found.items()
    ]


def _settings(spool: SpoolBase, workers: list[WorkerInfo]) -> tuple[Settings, list[str]]:
    """Return the settings, or the built-in ones if the file is not valid, and the notes about them."""
    try:
        settings = spool.settings()
    except ConfigError as error:
        goes_on = "; workers go on with the settings from before" if workers else ""
        return Settings(), [f"{error}{goes_on}"]
    older = [f"{w.name} goes on with older settings: {w.settings}" for w in workers if w.settings]
    return settings, [*spool._warnings, *older]


def _files_not_taken(spool: SpoolBase) -> list[str]:
    """Return the notes about files in pending/ that are not jobs, or not yet."""
    found = []
    if number := spool._intake.unfinished:
        plural = "s" if number > 1 else ""
        found.append(f"{number} file{plural} in pending/ not complete yet, left alone until complete")
    try:
        with os.scandir(spool.layout.pending) as entries:
            names = sorted(e.name for e in islice(entries, _FILES_CHECKED) if is_misnamed(e.name))
    except OSError:
        names = []
    if names:
        those = f"and {len(names) - 1} more are" if len(names) > 1 else "is"
        shown = one_line(files.printable_name(names[0]))
        found.append(f"pending/{shown} {those} ignored: a job's file is called NAME.json, in UTF-8")
    return found


def start_obstacle(layout: Layout, settings: Settings) -> str | None:
    """Return that workers cannot start jobs, and why: others may write into the spool, or the disk is full; else None.

    Raises:
        SpoolError: a folder cannot be read.
    """
    found = _danger(layout) or host.disk_shortage(layout.root, settings.min_free_space)
    return f"workers start nothing: {found}" if found else None


def _danger(layout: Layout) -> str | None:
    # The rules are about the owner of the spool. Another user who looks at it does not break them.
    if not permissions.other_owner(layout):
        unsafe = permissions.PermissionCheck(layout).look()
        if unsafe:
            return unsafe
        if mounted := mounts.obstacle(layout):
            return mounted
    return None
