"""Pausing a spool, and knowing that every worker has noticed it.

A spool is paused while a file called `paused` exists in its root: no worker starts a job then. Anybody may make and
delete it, with `touch` and `rm` as well; its text is the reason.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl._dataclasses import dataclass
from queuectl.control import commands, own_job, registry
from queuectl.errors import SpoolError, StillUnderWay
from queuectl.job import times
from queuectl.job.redact import as_reason
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout

BY_HAND = "by hand"
"""Beginning of the reason that a paused worker reports, if this file is the reason."""

_POLL = 0.05
_TELL_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a spool.

    Attributes:
        since: epoch seconds.
        reason: the text of the file, on one line; may be empty.
        mark: differs from the mark of every earlier pause.
    """

    since: float
    reason: str
    mark: str = ""

    @property
    def report(self) -> str:
        """The pause as a worker reports it."""
        return f"{BY_HAND}: {self.reason}" if self.reason else BY_HAND

    @property
    def sentence(self) -> str:
        """The pause as a person is told of it."""
        text = f"the spool is paused since {times.local(self.since)}"
        return f"{text}: {self.reason}" if self.reason else text


def read(layout: Layout) -> Pause | None:
    """Return the pause of a spool; None when it is not paused. A folder or a broken link of that name counts, too.

    Raises:
        OSError: the spool cannot be read.
    """
    try:
        status = os.lstat(layout.paused)
    except FileNotFoundError:
        return None
    reason = as_reason(safe_open.read_text(layout.paused))
    return Pause(status.st_mtime, reason, f"{status.st_ino}.{status.st_ctime_ns}")


class PauseCheck:
    """A worker's check of the pause, once a second.

    Attributes:
        seen: the mark of the pause that was found last; None if there was none.
    """

    def __init__(self, layout: Layout) -> None:
        self.seen: str | None = None
        self._layout = layout

    def look(self) -> str | None:
        """Return why no job may be started; None when the spool is not paused."""
        found = read(self._layout)
        self.seen = found.mark if found else None
        return found.report if found else None


def begin(layout: Layout, reason: str = "") -> Pause:
    """Write the file. A spool that is paused already keeps its reason, unless a new one is given.

    Raises:
        SpoolError: the file cannot be written.
    """
    try:
        found = read(layout)
        if found is None or reason:
            files.replace(layout.paused, f"{reason}\n".encode() if reason else b"")
            found = read(layout)
    except OSError as error:
        raise SpoolError.from_os("write", layout.paused, error) from None
    return found or Pause(0.0, reason)


def end(layout: Layout) -> bool:
    """Delete the file; False when the spool was not paused.

    Raises:
        SpoolError: the file cannot be removed.
    """
    try:
        files.delete(layout.paused)
        files.sync_folder(layout.root)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SpoolError.from_os("remove", layout.paused, error) from None
    return True


def pause(layout: Layout, reason: str, *, patience: float) -> list[str]:
    """Pause a spool, and wait until each worker has noticed. A worker that starts later checks before its first job.

    Args:
        patience: seconds to wait.

    Returns:
        the names of the workers that have not noticed by then.

    Raises:
        SpoolError: the file cannot be written.
    """
    begin(layout, reason)
    commands.wake(layout)
    end_at = time.monotonic() + patience
    unaware = [worker.name for worker in registry.live_workers(layout)]
    while (unaware := [name for name in unaware if _may_start(layout, name)]) and time.monotonic() < end_at:
        time.sleep(_POLL)
    return unaware


def resume(layout: Layout) -> bool:
    """Let the workers go on; False when the spool was not paused.

    Raises:
        SpoolError: the file cannot be removed.
    """
    was_paused = end(layout)
    if was_paused:
        commands.wake(layout)
    return was_paused


def _may_start(layout: Layout, name: str) -> bool:
    """Whether a worker lives and has not noticed this pause. That it noticed an earlier one means nothing."""
    found = None
    with suppress(OSError):
        found = read(layout)
    if found is not None and registry.worker_info(layout, name).pause_seen == found.mark:
        return False
    # A worker that was asked to stop counts as well: it may not have read that note yet.
    return any(worker.name == name for worker in registry.live_workers(layout))


def drain(layout: Layout, reason: str, *, timeout: float | None, tell: Callable[[list[str]], None]) -> None:
    """Pause a spool, and wait until no job runs.

    Args:
        timeout: seconds to wait; None waits without end.
        tell: called every few seconds with the ids of the jobs that still run.

    Raises:
        StillUnderWay: some jobs still run after that time.
        QueuectlError: this process belongs to a running job, whose end it would wait for; nothing is paused.
        SpoolError: the file cannot be written.
    """
    own_job.refuse_to_wait(layout, "and drain would wait until that job ends", hint="queuectl pause")
    began = time.monotonic()
    end_at = None if timeout is None else began + timeout
    begin(layout, reason)
    commands.wake(layout)
    tell_at = began + _TELL_EVERY
    while True:
        # In this order: a worker that has noticed the pause cannot have started a job between the two lines.
        unaware = [worker.name for worker in registry.live_workers(layout) if _may_start(layout, worker.name)]
        jobs = running_jobs(layout)
        if not unaware and not jobs:
            return
        now = time.monotonic()
        if end_at is not None and now >= end_at:
            raise StillUnderWay(_remaining(jobs, unaware), jobs, hint="queuectl worker list")
        if now >= tell_at:
            tell_at = now + _TELL_EVERY
            tell(jobs)
        time.sleep(_POLL if now - began < _TELL_EVERY else 4 * _POLL)


def running_jobs(layout: Layout) -> list[str]:
    """Return the ids of the jobs that run, including those whose worker has died."""
    jobs = [job.id for worker in registry.live_workers(layout) for job in worker.jobs]
    return [*jobs, *(job_id for _, job_id in registry.orphaned_runs(layout))]


def _remaining(jobs: list[str], unaware: list[str]) -> str:
    if jobs:
        more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        return f"still running: {', '.join(jobs[:3])}{more}; the spool stays paused"
    return f"{', '.join(unaware)} may still start a job; the spool stays paused"
