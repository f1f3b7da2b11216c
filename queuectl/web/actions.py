"""What the buttons do: exactly what the commands do, by the same calls. After each, one line says what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import JobNotFound, MoveError, QueuectlError
from queuectl.job.fields import is_id, is_queue
from queuectl.web import job_page
from queuectl.web.call import Refused, job_id_of
from queuectl.web.site import status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from queuectl.api.spool import Spool
    from queuectl.web.call import Call

    Verb = Callable[[Spool, str], str]

LISTS = ("/jobs", "/dead", "/line")
"""Where one can go back to after an action."""

_PATIENCE = 2.0
"""Seconds that an answer waits for the end of a job, or until workers have noticed a pause."""


def _retry(spool: Spool, job_id: str) -> str:
    spool.retry(job_id)
    return "retried"


def _cancel(spool: Spool, job_id: str) -> str:
    return spool.cancel(job_id, timeout=_PATIENCE)


def _hold(spool: Spool, job_id: str) -> str:
    return "held" if spool.hold(job_id) else "unchanged"


def _release(spool: Spool, job_id: str) -> str:
    return "released" if spool.release(job_id) else "unchanged"


def _delete(spool: Spool, job_id: str) -> str:
    spool.forget(job_id)
    return "deleted"


VERBS: dict[str, Verb] = {
    "retry": _retry,
    "cancel": _cancel,
    "hold": _hold,
    "release": _release,
    "delete": _delete,
}
"""What is done to one job: the word for it, and the call, which returns the word for what was done."""


def on_job(verb: str) -> Callable[[Call], Response]:
    """Return the page that does this to one job."""

    def act(call: Call) -> Response:
        job_id = job_id_of(call)
        back = call.fields().get("back", "")
        try:
            with call.site.spool() as spool:
                said = VERBS[verb](spool, job_id)
        except JobNotFound:
            raise
        except QueuectlError as error:
            call.note(f"{verb} {job_id}: refused")
            return job_page.job_page(call, problem=_line(error), status=status_of(error))
        call.note(f"{verb} {job_id}")
        to = back if back in LISTS else "/jobs" if verb == "delete" else f"/job/{job_id}"
        return call.go(to, f"said={said}&about={job_id}")

    return act


def _line(error: QueuectlError) -> str:
    return f"{error} (on the command line: {error.hint})" if error.hint else str(error)


def pause(call: Call) -> Response:
    """Pause the spool."""
    reason = call.fields().get("reason", "")[:200]
    with call.site.spool() as spool:
        spool.pause(reason, patience=_PATIENCE)
    call.note(f"pause: {reason}")
    return call.go("/", "said=paused")


def resume(call: Call) -> Response:
    """Let the spool go on."""
    with call.site.spool() as spool:
        spool.resume()
    call.note("resume")
    return call.go("/", "said=resumed")


def _queue_of(call: Call) -> str:
    name = call.params["name"]
    if not is_queue(name):
        raise Refused(404, "no queue can have this name")
    return name


def pause_queue(call: Call) -> Response:
    """Pause one queue."""
    name = _queue_of(call)
    with call.site.spool() as spool:
        spool.pause(queue=name, patience=_PATIENCE)
    call.note(f"pause queue {name}")
    return call.go("/queues", f"said=queue-paused&about={name}")


def resume_queue(call: Call) -> Response:
    """Let one queue go on."""
    name = _queue_of(call)
    with call.site.spool() as spool:
        spool.resume(queue=name)
    call.note(f"resume queue {name}")
    return call.go("/queues", f"said=queue-resumed&about={name}")


def on_rule(verb: str) -> Callable[[Call], Response]:
    """Return the page that runs, pauses or resumes a rule."""

    def act(call: Call) -> Response:
        name = call.params["name"]
        if not is_id(name):
            raise Refused(404, "no rule can have this name")
        try:
            with call.site.spool() as spool:
                said = _to_rule(spool, verb, name)
        except MoveError as error:
            raise Refused(409, str(error), error.hint) from None
        call.note(f"{verb} rule {name}")
        return call.go("/rules", f"said={said}&about={name}")

    return act


def _to_rule(spool: Spool, verb: str, name: str) -> str:
    if verb == "run":
        spool.run_rule(name)
        return "rule-ran"
    if verb == "pause":
        spool.pause_rule(name)
        return "rule-paused"
    spool.resume_rule(name)
    return "rule-resumed"
