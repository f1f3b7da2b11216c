"""Read the files of one job: its record, as it is where it lies now, and the output of its runs."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.api import running
from queuectl.control import dispatched
from queuectl.errors import InvalidJob, JobNotFound
from queuectl.index.row import BY_HAND, SHOWN, accept_as_indexed
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.record import Job
from queuectl.layout import PROCESSING, is_engine
from queuectl.storage import job_logs
from queuectl.system import safe_open

if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.layout import Layout

_READ_ATTEMPTS = 3
"""How often an output file is read again that was moved to logs/ meanwhile."""


def current(spool: SpoolBase, job_id: str) -> Job:
    """Return one job as it is now, see `Spool.get`.

    Raises:
        JobNotFound: there is no job with that id.
    """
    with spool._lock:
        spool._look()
        return spool._ask(lambda: _fetched(spool, job_id))


def _fetched(spool: SpoolBase, job_id: str) -> Job:
    row = spool._find(job_id)
    if spool._intake.freshen([row]):
        row = spool._find(job_id)
    return load(spool, row)


def load(spool: SpoolBase, row: Row) -> Job:
    """Return a job, read from its file; the folder decides the state. A file that is no job gives one without a command.

    Raises:
        JobNotFound: it was deleted meanwhile.
    """
    path = os.path.join(spool.layout.root, row.place, row.name)
    try:
        job = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
    except FileNotFoundError:
        return _moved(spool, row)
    except (InvalidJob, safe_open.NotReadable, OSError) as error:
        reason = row.last_error or str(error)
        moment = (row.updated_at or row.arrived) / 1e6
        return Job(
            id=row.id, state=row.state, last_error=reason, updated_at=moment, created_at=row.arrived / 1e6
        )
    job.id = row.id
    if row.state in WAITING:
        if job.state in ("completed", "dead"):
            job.renew(row.arrived / 1e6)
        accept_as_indexed(job, row)
    job.state = row.state
    if row.state == "processing":
        job.worker = row.worker or row.place.removeprefix(PROCESSING + "/")
        running.show_run(spool.layout, job)
    if row.state == "dead" and not job.last_error:
        job.last_error = BY_HAND
    # Buried for another reason than its content: the row of a file that is no job has no command.
    if row.state == "dead" and row.last_error and not row.command:
        job.last_error = row.last_error
    return job


def _moved(spool: SpoolBase, row: Row) -> Job:
    """Load a job whose file was moved between the query of the index and the reading."""
    spool.refresh()
    again = spool._ask(lambda: spool._index.get(row.id))
    if again is None or (again.place, again.name) == (row.place, row.name):
        raise JobNotFound(row.id)
    return load(spool, again)


def says(spool: SpoolBase, row: Row, where: Filter) -> bool:
    """Return True if a job's command and error contain the texts. Of long ones, the index has the beginning only."""
    return _contains(spool, row, where.command, row.command, "shown_command") and _contains(
        spool, row, where.reason, row.last_error or "", "last_error"
    )


def _contains(spool: SpoolBase, row: Row, text: str | None, stored: str, attribute: str) -> bool:
    if not text or text.casefold() in stored.casefold():
        return True
    try:
        whole = getattr(load(spool, row), attribute) if len(stored) >= SHOWN else ""
    except JobNotFound:
        return False
    return text.casefold() in (whole or "").casefold()


def output(layout: Layout, job: Job, run: int | None, stream: str) -> str | None:
    """Return the path of the output of a run, see `Spool.output`."""
    number = run or job.runs + (job.state == "processing")
    if job.state == "processing" and number == job.next_run and is_engine(job.worker or ""):
        there = dispatched.read(layout, job.worker or "").get(job.id or "")
        path = there.output.removesuffix(".out") + f".{stream}" if there else None
        return path if path is not None and os.path.exists(path) else None
    return job_logs.output_file(layout, job, number, stream)


def last_output(spool: SpoolBase, job_id: str, lines: int, run: int | None, stream: str) -> str:
    """Return the last lines of the output of a run, see `Spool.last_output`."""
    return read_output(spool, job_id, run, stream, lines)


def read_output(spool: SpoolBase, job_id: str, run: int | None, stream: str, lines: int | None = None) -> str:
    """Return the output of a run, see `Spool.read_output`; only its last lines if a number is given."""
    if stream not in ("out", "err"):
        raise ValueError(f"no stream is called {stream!r}; there are out and err")
    for _ in range(_READ_ATTEMPTS):
        path = output(spool.layout, current(spool, job_id), run, stream)
        if path is None:
            break
        # The file may be moved to logs/ just now, or be deleted by hand.
        with suppress(FileNotFoundError), job_logs.opened(path) as file:
            file.seek(0 if lines is None else job_logs.last_lines(file, lines))
            text = file.read().decode("utf-8", "replace")
            # While a job runs, this is a file of its worker, and the next job will write into the same file.
            if output(spool.layout, current(spool, job_id), run, stream) == path:
                return text
    return ""
