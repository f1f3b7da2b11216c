"""Changes of many jobs: shown first, asked for once more, done in a thread, with what was refused."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from queuectl.api import listing
from queuectl.errors import IndexBehind, QueuectlError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job.fields import WAITING, is_id
from queuectl.web import query
from queuectl.web.call import Refused
from queuectl.web.query import BadQuery

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
    "retry": (_retry, ("failed", "dead")),
    "cancel": (_cancel, listing.CANCELLED),
    "hold": (_hold, WAITING),
    "release": (_release, WAITING),
    "delete": (_delete, listing.REMOVED),
}
"""What is done to many jobs, and the states of those to which it is done."""


@dataclass(slots=True)
class Order:
    """What was asked for.

    Attributes:
        path: that of the list.
        ids: the jobs that were chosen one by one; none: those of the filter.
        filter: the query of the list, as in its address.
        where: the filter that it makes.
        fields: new values for fields of the jobs that are retried.
    """

    verb: str
    path: str
    filter: str
    where: Filter
    ids: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Which jobs are meant, in words."""
        if self.ids:
            return "the chosen jobs"
        given = parse_qsl(self.filter)
        return ", ".join(f"{name} {value}" for name, value in given) or "all jobs of the list"


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
    if verb not in VERBS or path not in {"/jobs", "/dead", "/line"}:
        raise Refused(400, "say what to do, to which jobs")
    if not all(map(is_id, ids)):
        raise Refused(400, "one of the chosen jobs can be none")
    if given.get("which") == "chosen" and not ids:
        raise Refused(400, "no job is chosen: mark some in the list, or take all that fit")
    if given.get("which") == "all":
        ids = []
    states = {"/dead": ("dead",), "/line": WAITING}.get(path, ())
    try:
        where = query.read(parse_qsl(text, keep_blank_values=True), states=states).where
        fields = {"priority": _priority(given["priority"])} if given.get("priority", "").strip() else {}
    except BadQuery as error:
        raise Refused(400, str(error)) from None
    return Order(verb, path, text, where, ids, fields if verb == "retry" else {})


def _priority(text: str) -> int:
    if text.strip() not in set(map(str, range(1, 11))):
        raise BadQuery("priority is 1 to 10")
    return int(text)


def found(spool: Spool, order: Order) -> tuple[list[str], int]:
    """Return the ids of the jobs to which it can be done now, and how many others were chosen.

    The filter is asked anew each time: what has moved since the page was drawn is not done by its old place.
    """
    states = VERBS[order.verb][1]
    if order.ids:
        rows = spool.rows(order.ids)
        fit = [one for one in order.ids if one in rows and rows[one].state in states]
        return fit, len(order.ids) - len(fit)
    wanted = order.where.states or states
    both = [state for state in wanted if state in states]
    if not both:
        return [], 0
    where = order.where.of_states(*both)
    return [row.id for row in spool.list(where=where.of_held if order.verb == "release" else where)], 0


def ask(call: Call) -> Response:
    """Show what would be done to how many jobs."""
    return _ask(call, _order(call.form))


def _ask(call: Call, order: Order, problem: str | None = None, status: int = 200) -> Response:
    with call.site.spool() as spool:
        ids, others = found(spool, order)
    return call.page(
        "bulk.html", status, order=order, number=len(ids), first=ids[:10], others=others,
        must_type=len(ids) > ASK_ABOVE, problem=problem,
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
        return _ask(call, order, "there is no job to which this can be done", 409)
    seen = _number(given.get("number", ""))
    if len(ids) > seen:
        return _ask(call, order, "more jobs fit now than were shown: look again", 409)
    if len(ids) > ASK_ABOVE and given.get("typed", "").strip() != str(seen):
        return _ask(call, order, f"type {len(ids)} to go on: so many jobs are meant now", 422)
    site = call.site
    with site.lock:
        if any(not one.is_over for one in site.bulk.values()):
            busy = next(one.number for one in site.bulk.values() if not one.is_over)
            raise Refused(409, f"another change of many jobs is under way: number {busy}")
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
    return call.page("progress.html", bulk=made, live=(f"/part/bulk/{made.number}", "", 1000))


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
