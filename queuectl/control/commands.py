"""Commands to workers: notes in the spool that ask to stop or to cancel a job, and the signal to look for them now.

The registry's docstring lists the files.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from queuectl.control import registry
from queuectl.errors import SpoolError
from queuectl.fast_start import fast_json
from queuectl.system import files
from queuectl.system.host import boot_id
from queuectl.system.locks import held, is_locked
from queuectl.system.process import ProcessIdentity, ancestors, clock_of_starts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.control.registration import Registration
    from queuectl.layout import Layout

_PATIENCE = 10.0
"""Seconds to wait for others that write a cancel note. Each needs some milliseconds."""


_STOP_ALL = "stop-all"


def request_stop(layout: Layout, name: str, *, force: bool) -> bool:
    """Ask the present owner of a worker name to stop, by a note and SIGTERM; False when there is none.

    Args:
        force: end the running job and put it back, instead of finishing it.

    Raises:
        SpoolError: the note cannot be written, and the signal alone would not do.
    """
    record = registry.read_record(layout, name)
    identity = ProcessIdentity.of(record)
    if identity is None or not is_locked(layout.worker_file(name, "lock")):
        return False
    note = {"pid": identity.pid, "process_started": identity.started, "how": "force" if force else "graceful"}
    # SIGTERM may mean something else to somebody's own program; its worker reads the note within a second.
    # In another container the number is another one.
    by_note_only = record.get("mode") == registry.PROGRAM or not identity.is_visible
    try:
        _write_note(layout, name, "stop", note)
    except SpoolError:
        # On a full disk the signal alone must do. It can only ask for a graceful stop.
        if force or by_note_only:
            raise
    if by_note_only:
        return True
    return identity.is_running() if sys.platform == "win32" else identity.send(signal.SIGTERM)


def requested_stop(registration: Registration) -> str | None:
    """Return the stop that somebody requests of this very process, "graceful" or "force"; None for no stop."""
    note = registry.read_json(registration.layout.worker_file(registration.name, "stop"))
    me = registration.identity
    if note.get("pid") == me.pid and note.get("process_started") == me.started:
        return "force" if note.get("how") == "force" else "graceful"
    return None


def request_stop_of_all(layout: Layout, asked_at: float | None = None) -> None:
    """Ask all workers to stop that have been started and cannot be found yet. They read the note when they have a name.

    A note that cannot be written is left out: those that can be found are asked one by one.

    Args:
        asked_at: when the command that stops them was started, on the clock of process.start_time; None: just now.
    """
    before = clock_of_starts()
    note = {
        "before": before,
        "asked_at": before if asked_at is None else asked_at,
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "ancestors": ancestors(),
    }
    with suppress(OSError):
        files.replace(os.path.join(layout.workers, _STOP_ALL), fast_json.dumps(note))


def start_asked_at(layout: Layout) -> float:
    """Return when this process was asked to start workers, on the clock of process.start_time.

    A script may stop all workers and then become this process, by `exec`: then it is older than the stop, and what it
    was asked to start is not. A start that was typed while Python was loading for `worker stop` is the later one, too.
    """
    note = registry.read_json(os.path.join(layout.workers, _STOP_ALL))
    before_us = note.get("ancestors")
    is_by_script = isinstance(before_us, list) and os.getpid() in before_us
    with suppress(OSError):
        started = ProcessIdentity.mine().started
        return clock_of_starts() if is_by_script or _came_after(note, started) else started
    return clock_of_starts()


def _came_after(note: Mapping[str, Any], started: float) -> bool:
    """Whether this process was started after the command that wrote a note to stop all workers, and not by it.

    A script may start workers and then become `worker stop`, by `exec`: that was begun earlier, but asked for later. When
    it has ended meanwhile, it is no ancestor any more; a script that was typed still gives its number to its group.
    """
    asked_at = note.get("asked_at")
    is_later = isinstance(asked_at, int | float) and asked_at < started and note.get("boot_id") == boot_id()
    by = [*ancestors(), os.getpgrp()] if hasattr(os, "getpgrp") else ancestors()
    return is_later and note.get("pid") not in by


def is_stop_of_all_after(layout: Layout, since: float) -> bool:
    """Whether somebody has asked all workers to stop after this moment on the clock of process.start_time."""
    note = registry.read_json(os.path.join(layout.workers, _STOP_ALL))
    before = note.get("before")
    return isinstance(before, int | float) and since < before and note.get("boot_id") == boot_id()


def was_stop_requested_of(layout: Layout, name: str, pid: int) -> bool:
    """Whether the stop note of a worker name is meant for this process, which may have ended."""
    return registry.read_json(layout.worker_file(name, "stop")).get("pid") == pid


def request_cancel(layout: Layout, name: str, runs: Mapping[str, int]) -> None:
    """Ask a worker to end jobs that it has claimed, and wake it. What others have asked for in the note is kept.

    Args:
        runs: for each job the number of the run, counted over the job's whole life: a note that comes too late must
            not end a later run, which nobody wants ended.

    Raises:
        SpoolError: the note cannot be written.
    """
    path = os.path.join(layout.data, "cancel.lock")
    with held(path, patience=_PATIENCE, busy="other processes have been cancelling jobs"):
        claims = layout.claims(name)
        before = {
            job_id: run
            for job_id, run in cancel_requests(layout, name).items()
            if os.path.lexists(os.path.join(claims, f"{job_id}.json"))
        }
        _write_note(layout, name, "cancel", {"runs": {**before, **runs}})
    wake(layout, name)


def is_cancel_requested(layout: Layout, name: str, job_id: str, run: int) -> bool:
    """Whether somebody wants this run of a job ended, which the worker of this name runs, or ran when it died."""
    if not os.path.exists(layout.worker_file(name, "cancel")):
        return False
    return cancel_requests(layout, name).get(job_id) == run


def cancel_requests(layout: Layout, name: str) -> dict[str, int]:
    """Return the runs of a worker that somebody wants ended: their numbers by job id."""
    note = registry.read_json(layout.worker_file(name, "cancel"))
    runs = note.get("runs")
    if not isinstance(runs, dict):
        runs = {note.get("job"): note.get("run")}  # of an older queuectl
    return {job_id: run for job_id, run in runs.items() if isinstance(job_id, str) and isinstance(run, int)}


def delete_cancel(layout: Layout, name: str) -> None:
    """Delete the cancel note of a dead worker, when its jobs are recovered. The caller holds the lock of the name."""
    with suppress(OSError):
        os.unlink(layout.worker_file(name, "cancel"))


def wake_signal() -> int | None:
    """The signal that makes a worker look at once for a cancel or a pause; None on Windows, which has none."""
    return None if sys.platform == "win32" else signal.SIGUSR1


def wake(layout: Layout, *names: str) -> None:
    """Make workers look now for what they otherwise look for once a second: these, or without names all.

    A worker whose record does not say that it handles the signal gets none: it would die of it.
    """
    number = wake_signal()
    for name in names or registry.worker_names(layout):
        record = registry.read_record(layout, name)
        identity = ProcessIdentity.of(record)
        if identity is not None and number is not None and record.get("hurries") is True:
            identity.send(number)


def _write_note(layout: Layout, name: str, kind: str, note: dict[str, Any]) -> None:
    path = layout.worker_file(name, kind)
    try:
        files.replace(path, fast_json.dumps(note))
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None
