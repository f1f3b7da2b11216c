"""The page of one job: why it is as it is, its output, its runs, its fields, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from queuectl.api import dependencies
from queuectl.errors import QueuectlError
from queuectl.job import times
from queuectl.job.fault_location import find_fault
from queuectl.job.fields import WAITING
from queuectl.job.record import KNOWN, READ_LIMIT
from queuectl.job.redact import masked, masked_env
from queuectl.system import safe_open
from queuectl.web import logs
from queuectl.web.call import Refused, job_id_of
from queuectl.web.lists import said
from queuectl.web.query import BadQuery, once, query_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job
    from queuectl.web.call import Call

MOST_CHILDREN = 50
_MOMENTS = ("created_at", "updated_at", "started_at", "finished_at", "run_at", "expires_at", "next_retry_at")
_ELSEWHERE = {"id", "command", "state", "history", "history_left_out", "output", "env", "last_error"}
"""Fields that the page shows in another place than the list of fields."""


def job_page(call: Call, *, problem: str | None = None, status: int = 200) -> Response:
    """Everything about a job."""
    job_id = job_id_of(call)
    given = once(call.pairs, ("run", "stream", "said", "about")) if problem is None else {}
    run, stream = logs.run_of(given.get("run")), given.get("stream", "")
    if stream not in {"", "out", "err"}:
        raise BadQuery("stream is out or err")
    with call.site.spool() as spool:
        job = spool.get(job_id)
        values: dict[str, Any] = {"job": job, "row": spool.row(job_id)}
        values |= _output(spool, job, run, stream)
        values |= _around(spool, job)
        values["notes"] = call.notes(spool)
    live_query = query_of({name: given[name] for name in ("run", "stream") if name in given})
    period = 1000 if job.state == "processing" else 2000
    return call.page(
        "job.html",
        status,
        **values,
        **described(job),
        problem=problem,
        said=said(given),
        live=(f"/part/job/{job_id}", live_query, period),
    )


def _around(spool: Spool, job: Job) -> dict[str, Any]:
    """Return why it waits, what it waits for, what waits for it, and its file."""
    job_id = job.id or ""
    path = spool.file_of(job_id)
    children = spool.waited_for_by(job_id)
    fault = None
    if not job.command:
        try:
            fault = find_fault(safe_open.read_regular(path, READ_LIMIT)[0])
        except (safe_open.NotReadable, OSError):
            fault = None
    return {
        "why": spool.why_waiting(job_id),
        "waits_for": spool.waits_for(job_id)[: dependencies.SHOWN] if job.state in WAITING else [],
        "children": children[:MOST_CHILDREN],
        "more_children": max(0, len(children) - MOST_CHILDREN),
        "file": path.removeprefix(spool.layout.root).lstrip("/"),
        "fault": fault,
    }


def _output(spool: Spool, job: Job, run: int | None, stream: str) -> dict[str, Any]:
    """Return the end of the output. If no stream was chosen: of that which tells most and has any."""
    usual = ["err", "out"] if job.state in {"dead", "failed"} else ["out", "err"]
    problem, part = None, None
    try:
        for one in [stream] if stream else usual:
            found = logs.last_part(spool, job.id or "", run, one)
            if part is None or found.size:
                part, stream = found, one
            if found.size:
                break
    except QueuectlError as error:
        problem = str(error)
    current = job.runs + (job.state == "processing")
    return {
        "stream": stream or "out",
        "run": run or current,
        "is_current": run is None or run == current,
        "runs": list(range(max(1, current - 19), current + 1)),
        "log": None if part is None else logs.shown(part),
        "log_problem": problem,
    }


def described(job: Job) -> dict[str, Any]:
    """Return the fields of a job for its page, secrets masked."""
    record = masked(job.to_dict(), KNOWN)
    shown: list[tuple[str, Any]] = [
        (name, _field(name, value)) for name, value in record.items() if name not in _ELSEWHERE
    ]
    for name in _MOMENTS:
        if (moment := getattr(job, name, None)) is not None:
            shown = [(key, (value, moment) if key == name else value) for key, value in shown]
    return {
        "command": job.shown_command,
        "fields": shown,
        "env": sorted(masked_env(job.env or {}).items()),
        "history": list(_history(job))[::-1],
        "is_held": job.state in WAITING and job.hold,
    }


def _field(name: str, value: object) -> str:
    from queuectl.fast_start import fast_json

    if isinstance(value, str):
        return times.local(times.parse_moment(value)) if name in _MOMENTS else value
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return " ".join(map(str, value))
    return fast_json.dumps(value).decode()


def _history(job: Job) -> Iterator[dict[str, Any]]:
    """Yield the runs. Anybody may have edited the file, so any field may be missing or odd."""
    for number, entry in job.numbered_history():
        started = entry.get("started_at")
        try:
            moment = None if started is None else times.parse_moment(started)
        except ValueError:
            moment = None
        took = entry.get("duration")
        yield {
            "number": number,
            "outcome": str(entry.get("outcome") or "ended"),
            "exit_code": "" if entry.get("exit_code") is None else str(entry["exit_code"]),
            "started": moment,
            "took": float(took) if isinstance(took, int | float) and 0 <= took < 1e10 else None,
            "worker": str(entry.get("worker") or ""),
            "error": str(entry.get("error") or ""),
        }


def ask_file(call: Call) -> Response:
    """Ask before the file is shown as it is: it may hold secrets, which the pages mask."""
    job_id = job_id_of(call)
    with call.site.spool() as spool:
        spool.row(job_id)
    return call.page("file.html", job_id=job_id)


def raw_file(call: Call) -> Response:
    """The file of a job as it is."""
    job_id = job_id_of(call)
    with call.site.spool() as spool:
        path = spool.file_of(job_id)
        try:
            data = safe_open.read_regular(path, READ_LIMIT)[0]
        except safe_open.NotReadable as error:
            raise Refused(409, f"the file of {job_id} cannot be shown: {error}") from None
        except OSError as error:
            raise Refused(
                409, f"the file of {job_id} cannot be read: {(error.strerror or '').lower()}"
            ) from None
    call.note(f"file {job_id}")
    return Response(data, media_type="text/plain; charset=utf-8")
