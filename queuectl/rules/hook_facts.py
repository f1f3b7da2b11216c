"""What the command of a hook finds in its environment about the job, or the period, of which it tells."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob, SpoolError
from queuectl.index import ends
from queuectl.job import record as jobs
from queuectl.job.redact import one_line
from queuectl.job.times import micros
from queuectl.rules import digests
from queuectl.rules.job_trigger import EMPTY, TRIAL
from queuectl.storage import locate
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from queuectl.job.record import Job
    from queuectl.rules.job_rules import JobRules
    from queuectl.storage.transitions import Storage

LONGEST_ERROR = 1000
"""Characters of an error in a variable. The name of a missing program may have a million, and then nothing could be started."""


def why_not_needed(storage: Storage, rules: JobRules, job: Job) -> str | None:
    """Return why a claimed hook has nothing to tell any more; None: it has."""
    period = digests.period_of(job.about or "")
    if period is None or job.event in (None, EMPTY) or _ends_of(storage, rules, job, limit=1):
        return None
    return "nothing of that period is left to tell"


def variables(storage: Storage, rules: JobRules, job: Job, path: str) -> dict[str, str]:
    """Return the variables of a hook.

    Args:
        path: of the file into which the list of the jobs of a period is written.

    Raises:
        SpoolError: the file cannot be written.
    """
    about = job.about or ""
    found = {"QUEUECTL_EVENT": job.event or "", "QUEUECTL_ABOUT": about}
    period = digests.period_of(about)
    if period is not None:
        told = _ends_of(storage, rules, job)
        _write_list(storage, told, path)
        since, _, until = about.partition("/")
        found |= {
            "QUEUECTL_SINCE": since,
            "QUEUECTL_UNTIL": until,
            "QUEUECTL_COUNT": str(len(told)),
            "QUEUECTL_AFTER": path,
        }
    elif job.event not in (EMPTY, TRIAL) and about:
        found |= _of_job(storage, about)
    return found


def _ends_of(storage: Storage, rules: JobRules, job: Job, limit: int = -1) -> list[tuple[str, str, str]]:
    period = digests.period_of(job.about or "")
    if period is None:
        return []
    since, until = map(micros, period)
    rule, event = job.rule or "", job.event or ""
    trigger, changed = digests.meant_at(storage.layout, rule, since)
    trigger = trigger or rules.trigger_of(rule)
    meant = (
        ends.Ends(storage.index, event)  # its rule is gone
        if trigger is None or trigger.event != event
        else digests.meant(storage, trigger)
    )
    return meant.of_period(since, until if changed is None else min(until, changed), limit)


def _write_list(storage: Storage, told: list[tuple[str, str, str]], path: str) -> None:
    """Write a line for each job, as for the parents of a job: id, state, path of its record, and no path of its output."""
    root = storage.layout.root
    text = "".join(f"{job_id}\t{state}\t{os.path.join(root, place)}\t\n" for job_id, state, place in told)
    try:
        files.write_afresh(path, text.encode(errors="surrogateescape"))  # for this run alone
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None


def _of_job(storage: Storage, job_id: str) -> dict[str, str]:
    row = storage.index.get(job_id)
    state = locate.state_of(storage, job_id) or ""
    found = {"QUEUECTL_ABOUT_STATE": "done" if state == "completed" else state}
    record = os.path.join(storage.layout.root, row.place, row.name) if row else ""
    error = row.last_error if row else None
    with suppress(safe_open.NotReadable, InvalidJob, OSError):
        about = jobs.parse(safe_open.read_regular(record, jobs.READ_LIMIT)[0])
        error = about.last_error or error
        if about.exit_code is not None:
            found["QUEUECTL_ABOUT_EXIT_CODE"] = str(about.exit_code)
        out = storage.layout.log_file(job_id, about.runs, "out")
        if os.path.exists(out):
            found["QUEUECTL_ABOUT_OUT"] = out
    if record:
        found["QUEUECTL_ABOUT_FILE"] = record
    if error:
        found["QUEUECTL_ABOUT_ERROR"] = one_line(error)[:LONGEST_ERROR]
    return found
