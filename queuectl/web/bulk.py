"""Changes of many jobs: shown first, asked for once more, done in a thread, with what was refused."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from queuectl.api import listing, retry
from queuectl.errors import IndexBehind, QueuectlError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job.fields import WAITING, is_id
from queuectl.web import query
from queuectl.web.actions import LISTS
from queuectl.web.call import Refused
from queuectl.web.query import BadQuery
from queuectl.web.text import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.responses import Response

    from queuectl.api.spool import Spool
    from queuectl.index.filter import Filter
    from queuectl.web.call import Call
    from queuectl.web.site import Site

STEP = 200
"""Jobs that are changed between two looks at whether to stop."""

ASK_ABOVE = 100
"""Of more jobs the number must be typed."""

PATIENCE = 60.0
"""Seconds that a change waits for the index."""

KEPT = 20
MOST_TOLD = 50
FIRST = 10
"""Jobs that are named before it is done."""

PRIORITIES = frozenset({"", *map(str, range(1, 11))})
NONE = "there is no job to which this can be done"
_UNWANTED = {"held": "they are held", **{why: text.partition(";")[0] for why, text in retry.LEFT_OUT.items()}}


def _retry(spool: Spool, ids: list[str], fields: Mapping[str, Any]) -> Mapping[str, object]:
    return spool.retry_many(ids, **fields)


def _cancel(spool: Spool, ids: list[str], _: Mapping[str, Any]) -> Mapping[str, object]:
    return spool.cancel_many(ids, timeout=2.0)


def _hold(spool: Spool, ids: list[str], _: Mapping[str, Any]) -> Mapping[str, object]:
    return spool.hold_many(ids)


def _release(spool: Spool, ids: list[str], _: Mapping[str, Any]) -> Mapping[str, object]:
    return spool.release_many(ids)


def _delete(spool: Spool, ids: list[str], _: Mapping[str, Any]) -> Mapping[str, object]:
    try:
        return spool.forget_many(ids)
    finally:
        spool.sync_deletions()


VERBS: dict[str, tuple[Callable[..., Mapping[str, object]], tuple[str, ...]]] = {
    "retry": (_retry, listing.RETRIED),
    "cancel": (_cancel, listing.CANCELLED),
    "hold": (_hold, WAITING),
    "release": (_release, WAITING),
    "delete": (_delete, listing.REMOVED),
}
"""What is done to many jobs, and the states of those to which it can be done."""

USUAL = {"retry": ("failed", "dead")}
"""The states of those to which it is done if none is asked for, where these are fewer: as on the command line."""

MEANING = {
    "retry": ("retried", "They run again. The attempts of dead jobs start again at 0."),
    "cancel": ("cancelled", "Those that run are ended. All go to the dead jobs."),
    "hold": ("held", "They do not start until they are released."),
    "release": ("released", "They can start again."),
    "delete": ("deleted", "Their output is deleted, too. This cannot be undone."),
}
"""What has been done to a job after it, and what will be."""


@dataclass(slots=True)
class Order:
    """What was asked for.

    Attributes:
        path: that of the list.
        ids: the jobs that were chosen one by one; none: those of the filter.
        filter: the query of the list, as in its address.
        where: the filter that it makes.
        priority: a new one for the jobs that are retried, as it was typed; "": as it is.
    """

    verb: str
    path: str
    filter: str
    where: Filter
    ids: list[str] = field(default_factory=list)
    priority: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """New values for fields of the jobs."""
        return {"priority": int(self.priority)} if self.priority else {}

    @property
    def words(self) -> str:
        """Which jobs are meant, in words."""
        if self.ids:
            return "the chosen jobs"
        jobs = {"/dead": "dead jobs", "/line": "waiting jobs"}.get(self.path, "jobs")
        given = [f"{name} {value}" for name, value in parse_qsl(self.filter) if name != "sort"]
        return f"{jobs} with {', '.join(given)}" if given else f"all {jobs}"


@dataclass(slots=True)
class Bulk:
    """One change of many jobs, under way or over.

    Attributes:
        total: how many jobs there were at the start.
        done: how many have been dealt with.
        refused: the ids of those that were refused, and why; of very many the first.
        refusals: how many were refused.
        fault: what has ended it early; None: nothing.
    """

    number: int
    order: Order
    total: int = 0
    done: int = 0
    refusals: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    fault: str | None = None
    is_over: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)


def _order(typed: list[tuple[str, str]]) -> Order:
    """Read what is to be done to which jobs.

    Raises:
        Refused: it is not clear.
    """
    given = {name: value for name, value in typed if name != "id"}
    ids = [value for name, value in typed if name == "id"]
    verb, path, text = given.get("verb", ""), given.get("list", "/jobs"), given.get("filter", "")
    if verb not in VERBS or path not in LISTS:
        raise Refused(400, "say what to do, to which jobs")
    if not all(map(is_id, ids)):
        raise Refused(400, "one of the chosen jobs can be none")
    if given.get("which") == "chosen" and not ids:
        line = "no job is chosen: mark some in the list, or take all that fit"
        raise Refused(400, line, way_on=("Back to the list", path, text))
    if given.get("which") == "all":
        ids = []
    states = {"/dead": ("dead",), "/line": WAITING}.get(path, ())
    try:
        where = query.read(parse_qsl(text, keep_blank_values=True), states=states).where
    except BadQuery as error:
        raise Refused(400, str(error), way_on=("Back to the list", path, "")) from None
    return Order(verb, path, text, where, ids, given.get("priority", "").strip() if verb == "retry" else "")


def found(spool: Spool, order: Order) -> tuple[list[str], list[str]]:
    """Return the ids of the jobs to which it can be done now, and a sentence for each reason why others are left out."""
    return _chosen(spool, order) if order.ids else _fitting(spool, order)


def _chosen(spool: Spool, order: Order) -> tuple[list[str], list[str]]:
    rows, states = spool.rows(order.ids), VERBS[order.verb][1]
    fit = [one for one in order.ids if one in rows and rows[one].state in states]
    others = len(order.ids) - len(fit)
    them = "it" if others == 1 else "them"
    return fit, [f"{count(others, 'chosen job')} left out: this cannot be done to {them}."] * bool(others)


def _fitting(spool: Spool, order: Order) -> tuple[list[str], list[str]]:
    """Ask the filter anew: what has moved since the page was drawn is not done by its old place.

    It does not retry what a person has cancelled, held or given up, as on the command line.
    """
    states = VERBS[order.verb][1]
    both = [state for state in order.where.states or USUAL.get(order.verb, states) if state in states]
    if not both:
        return [], []
    where = order.where.of_states(*both)
    rows = spool.list(where=where.of_held if order.verb == "release" else where)
    unwanted = retry.given_up(rows) if order.verb == "retry" and where.reason is None else {}
    left_out = set().union(*unwanted.values())
    return [row.id for row in rows if row.id not in left_out], [
        f"{count(len(ids), 'job')} left out, because {_UNWANTED[why]}. To retry such jobs, choose them in the list."
        for why, ids in unwanted.items()
    ]


def ask(call: Call) -> Response:
    """Show what would be done to how many jobs."""
    return _ask(call, _order(call.form))


def _ask(
    call: Call, order: Order, problem: str | None = None, status: int = 200, *, wrong: str = ""
) -> Response:
    """Show it, with what is wrong, and the field in which it was typed."""
    with call.site.spool() as spool:
        ids, left_out = found(spool, order)
    return call.page(
        "bulk.html", status, order=order, number=len(ids), first=ids[:FIRST], left_out=left_out,
        meaning=MEANING[order.verb][1], must_type=len(ids) > ASK_ABOVE, problem=problem, wrong=wrong,
    )  # fmt: skip


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def start(call: Call) -> Response:
    """Begin to do it."""
    order = _order(call.form)
    given = {name: value for name, value in call.form if name != "id"}
    with call.site.spool() as spool:
        ids, _ = found(spool, order)
    if not ids:
        return _ask(call, order, NONE, 409)
    seen = _number(given.get("number", ""))
    if len(ids) > seen:
        return _ask(call, order, "more jobs fit now than were shown: look again", 409)
    if len(ids) > ASK_ABOVE and given.get("typed", "").strip() != str(seen):
        return _ask(call, order, f"type {len(ids)} to go on: so many jobs are meant", 422, wrong="typed")
    if order.priority not in PRIORITIES:
        return _ask(call, order, "priority is 1 to 10", 422, wrong="priority")
    site = call.site
    with site.lock:
        if any(not one.is_over for one in site.bulk.values()):
            busy = next(one.number for one in site.bulk.values() if not one.is_over)
            line = f"another change of many jobs is under way: number {busy}"
            raise Refused(409, line, way_on=("See how far it has come", f"/bulk/{busy}", ""))
        number = max(site.bulk, default=0) + 1
        made = Bulk(number, order, len(ids))
        site.bulk[number] = made
        while len(site.bulk) > KEPT:
            del site.bulk[min(site.bulk)]
    chosen = " ".join(ids[:MOST_TOLD]) + (" …" if len(ids) > MOST_TOLD else "")
    call.note(f"{order.verb} {len(ids)} jobs: {chosen if order.ids else order.words}")
    threading.Thread(target=_work, args=(site, made, ids), name=f"bulk-{number}", daemon=True).start()
    return call.go(f"/bulk/{number}")


def _work(site: Site, made: Bulk, ids: Sequence[str]) -> None:
    do, states = VERBS[made.order.verb]
    try:
        with site.spool() as spool:
            for place in range(0, len(ids), STEP):
                if made.stopped.is_set():
                    break
                part = list(ids[place : place + STEP])
                _patiently(made, lambda part=part: _change(spool, made, part, do, states))  # type: ignore[misc]  # bound at once
                made.done += len(part)
    except (QueuectlError, OSError) as error:
        made.fault = str(error)
    finally:
        made.is_over = True


def _change(
    spool: Spool, made: Bulk, part: list[str], do: Callable[..., Mapping[str, object]], states: Sequence[str]
) -> None:
    rows = spool.rows(part)
    fit = [one for one in part if one in rows and rows[one].state in states]
    gone = [one for one in part if one not in fit]
    results = do(spool, fit, made.order.fields) if fit else {}
    _count(made, [(one, "it has just been moved") for one in gone])
    _count(made, [(one, str(why)) for one, why in results.items() if isinstance(why, QueuectlError)])


def _patiently(made: Bulk, step: Callable[[], None]) -> None:
    """Do a step; while another process has the index, wait: a page asks again, and nobody would do so here.

    Raises:
        IndexBehind: for a minute it could not be had, or somebody has stopped the change.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return step()
        except IndexBehind:
            if time.monotonic() > until or made.stopped.wait(0.2):
                raise


def _count(made: Bulk, refused: list[tuple[str, str]]) -> None:
    made.refusals += len(refused)
    made.refused += refused[: MOST_TOLD - len(made.refused)]


def progress(call: Call) -> Response:
    """How far it has come."""
    query.once(call.pairs, ())
    made = _made(call)
    done = MEANING[made.order.verb][0]
    return call.page("progress.html", bulk=made, done=done, live=(f"/part/bulk/{made.number}", "", 1000))


def stop(call: Call) -> Response:
    """Let it end after the jobs that are being changed."""
    made = _made(call)
    made.stopped.set()
    call.note(f"stop {made.number}")
    return call.go(f"/bulk/{made.number}")


def _made(call: Call) -> Bulk:
    text = call.params["number"]
    number = _number(text)
    if number not in call.site.bulk:
        raise Refused(404, "there is no such change of many jobs; the server forgets them when it ends")
    return call.site.bulk[number]


def end_all(site: Site, patience: float) -> None:
    """Stop what is under way, as the server ends.

    Args:
        patience: seconds to wait for it.
    """
    until = time.monotonic() + patience
    for one in list(site.bulk.values()):
        one.stopped.set()
    while any(not one.is_over for one in list(site.bulk.values())) and time.monotonic() < until:
        time.sleep(0.02)
