"""Pausing a spool or one of its queues, and knowing that every worker has noticed it.

A spool is paused while a file called `paused` exists in its root: no worker starts a job then. A queue is paused while
`queues/NAME.paused` exists: no worker starts a job of this queue. Anybody may make and delete these files, with `touch`
and `rm` as well; the text of the file is the reason.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.control import commands, own_job, registry
from queuectl.errors import SpoolError, StillUnderWay
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.job.redact import as_reason
from queuectl.layout import ENGINES
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.layout import Layout

BY_HAND = "by hand"
"""Beginning of the reason that a paused worker reports, if this file is the reason."""

_POLL = 0.05
_TELL_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a spool, or of a queue.

    Attributes:
        since: epoch seconds.
        reason: the text of the file, on one line; may be empty.
        mark: differs from the mark of every earlier pause.
        queue: the queue that is paused; None: the spool, or a rule.
        rule: the rule that is paused.
    """

    since: float
    reason: str
    mark: str = ""
    queue: str | None = None
    rule: str | None = None

    @property
    def report(self) -> str:
        """The pause as a worker reports it."""
        return f"{BY_HAND}: {self.reason}" if self.reason else BY_HAND

    @property
    def sentence(self) -> str:
        """The pause as a person is told of it."""
        what = f"queue {self.queue}" if self.queue else f"rule {self.rule}" if self.rule else "the spool"
        text = f"{what} is paused since {times.local(self.since)}"
        return f"{text}: {self.reason}" if self.reason else text


def read(layout: Layout, queue: str | None = None, rule: str | None = None) -> Pause | None:
    """Return the pause of a spool, of one queue, or of one rule; None when it is not paused.

    A folder or a broken link of that name counts, too.

    Raises:
        OSError: the spool cannot be read.
    """
    path = _file(layout, queue, rule)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    reason = as_reason(safe_open.read_text(path))
    return Pause(status.st_mtime, reason, files.identity(status), queue, rule)


def _file(layout: Layout, queue: str | None, rule: str | None = None) -> str:
    if rule is not None:
        return layout.rule_paused(rule)
    return layout.paused if queue is None else layout.queue_paused(queue)


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


def begin(layout: Layout, reason: str = "", queue: str | None = None, rule: str | None = None) -> Pause:
    """Write the file. What is paused already keeps its reason, unless a new one is given.

    Raises:
        SpoolError: the file cannot be written.
    """
    path = _file(layout, queue, rule)
    try:
        found = read(layout, queue, rule)
        if found is None or reason:
            files.replace(path, f"{reason}\n".encode() if reason else b"")
            found = read(layout, queue, rule)
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None
    return found or Pause(0.0, reason, queue=queue, rule=rule)


def end(layout: Layout, queue: str | None = None, rule: str | None = None) -> bool:
    """Delete the file; False when there was none.

    Raises:
        SpoolError: the file cannot be removed.
    """
    path = _file(layout, queue, rule)
    try:
        files.delete(path)
        files.sync_folder(os.path.dirname(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SpoolError.from_os("remove", path, error) from None
    return True


def pause(layout: Layout, reason: str, *, patience: float, queue: str | None = None) -> list[str]:
    """Pause a spool, or one queue, and wait until each worker has noticed. A worker that starts later checks before its first job.

    Args:
        patience: seconds to wait.

    Returns:
        the names of the workers that have not noticed by then.

    Raises:
        SpoolError: the file cannot be written.
    """
    begin(layout, reason, queue)
    commands.wake(layout)
    end_at = time.monotonic() + patience
    unaware = [worker.name for worker in registry.live_workers(layout)]
    while (unaware := _unaware(layout, unaware, queue)) and time.monotonic() < end_at:
        time.sleep(_POLL)
    return unaware


def resume(layout: Layout, queue: str | None = None) -> bool:
    """Let the workers go on; False when the spool, or the queue, was not paused.

    Raises:
        SpoolError: the file cannot be removed.
    """
    was_paused = end(layout, queue)
    if was_paused:
        commands.wake(layout)
    return was_paused


def _unaware(layout: Layout, names: list[str], queue: str | None) -> list[str]:
    return [name for name in names if _may_start(layout, name, queue)]


def _may_start(layout: Layout, name: str, queue: str | None) -> bool:
    """Whether a worker lives and has not noticed this pause. That it noticed an earlier one means nothing."""
    found = None
    with suppress(OSError):
        found = read(layout, queue)
    if found is not None:
        seen = registry.worker_info(layout, name)
        marks = (seen.pause_seen or "") if queue is None else (seen.queues_seen or "")
        if found.mark in marks.split():
            return False
    # A worker that was asked to stop counts as well: it may not have read that note yet.
    return any(worker.name == name for worker in registry.live_workers(layout))


def drain(
    layout: Layout,
    reason: str,
    *,
    timeout: float | None,
    tell: Callable[[list[str]], None],
    queue: str | None = None,
    running: Callable[[], list[str]] | None = None,
) -> None:
    """Pause a spool, or one queue, and wait until none of its jobs runs.

    Args:
        timeout: seconds to wait; None waits without end.
        tell: called every few seconds with the ids of the jobs that still run.
        running: returns the ids of the jobs of the queue that run; None: all that run are waited for.

    Raises:
        StillUnderWay: some jobs still run after that time.
        QueuectlError: this process belongs to a running job, whose end it would wait for; nothing is paused.
        SpoolError: the file cannot be written.
    """
    running = running or (lambda: running_jobs(layout))
    own = own_job.find(layout)
    if own is not None and (queue is None or own.job_id in running()):
        words = "queuectl pause" if queue is None else f"queuectl pause --queue {queue}"
        own_job.refuse_to_wait(layout, "and drain would wait until that job ends", hint=words)
    began = time.monotonic()
    end_at = None if timeout is None else began + timeout
    begin(layout, reason, queue)
    commands.wake(layout)
    tell_at = began + _TELL_EVERY
    while True:
        # In this order: a worker that has noticed the pause cannot have started a job between the two lines.
        unaware = _unaware(layout, [worker.name for worker in registry.live_workers(layout)], queue)
        jobs = running()
        if not unaware and not jobs:
            return
        now = time.monotonic()
        if end_at is not None and now >= end_at:
            what = "the spool" if queue is None else f"queue {queue}"
            engine = uncollected(layout, jobs)
            hint = f"queuectl worker start --engine {engine}" if engine else "queuectl worker list"
            nobody = f", and no dispatcher of {engine} runs" if engine else ""
            raise StillUnderWay(_remaining(jobs, unaware, what) + nobody, jobs, hint=hint)
        if now >= tell_at:
            tell_at = now + _TELL_EVERY
            tell(jobs)
        time.sleep(_POLL if now - began < _TELL_EVERY else 4 * _POLL)


def running_jobs(layout: Layout) -> list[str]:
    """Return the ids of the jobs that run, including those whose worker has died.

    All that are out on an engine are among them. When its dispatcher has noticed a pause, the others are back.
    """
    jobs = [job.id for worker in registry.live_workers(layout) for job in worker.jobs]
    there = [job_id for engine in ENGINES for job_id in registry.claimed_for(layout, engine)]
    return [*jobs, *there, *(job_id for _, job_id in registry.orphaned_runs(layout))]


def uncollected(layout: Layout, jobs: Sequence[str]) -> str | None:
    """Return the engine on which some of these jobs are, while nobody collects what becomes of them; None: there is none."""
    alive = {worker.name for worker in registry.live_workers(layout)}
    missing = (engine for engine in ENGINES if engine not in alive)
    return next(
        (engine for engine in missing if not set(jobs).isdisjoint(registry.claimed_for(layout, engine))), None
    )


def _remaining(jobs: list[str], unaware: list[str], what: str) -> str:
    if jobs:
        more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        return f"still running: {', '.join(jobs[:3])}{more}; {what} stays paused"
    return f"{', '.join(unaware)} may still start a job; {what} stays paused"
