"""The pages that show the spool as a whole: overview, workers, queues, batches, rules; and logging in and out."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response

from queuectl.system import file_times
from queuectl.web import plots, rendering, static_files
from queuectl.web.call import Refused
from queuectl.web.lists import said
from queuectl.web.query import BadQuery, once
from queuectl.web.text import plain_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.api.spool import Spool
    from queuectl.web.call import Call
    from queuectl.web.site import Site

BARS = 60
SPANS = {"hour": (3600, 60.0), "day": (86400, 1800.0)}
"""How far a plot goes back, in seconds, and the seconds of a bar."""

PLOT_LIFE = {"hour": 5.0, "day": 60.0}
"""Seconds for which a plot is not counted again."""

TIMES_LIFE = 5.0
MOST_SHOWN = 200
_LOG_LINES = 5


def overview(call: Call) -> Response:
    """What runs, what comes next, what has ended, and how it went."""
    given = once(call.pairs, ("plot", "said", "about"))
    name = given.get("plot", "hour")
    if name not in SPANS:
        raise BadQuery(f"plot is one of {', '.join(SPANS)}")
    with call.site.spool() as spool:
        values: dict[str, Any] = {
            "counts": spool.counts(),
            "workers": spool.workers(),
            "next_up": spool.next_up(6),
            "last": spool.last_ended(8),
            "notes": call.notes(spool),
            "paused": spool.paused(),
            "times": call.lately("times", TIMES_LIFE, spool.recent),
        }
        values |= _throughput(call, spool, name)
    if pause := values["paused"]:  # it has a place of its own, with a button
        values["notes"] = [note for note in values["notes"] if not note.startswith(pause.sentence)]
    return call.page("overview.html", **values, said=said(given), live=("/part/", call_query(call), 2000))


def call_query(call: Call) -> str:
    """Return the parameters of a page for its part, without what was just said."""
    from queuectl.web.query import query_of

    return query_of({name: value for name, value in call.pairs if name not in {"said", "about"}})


def _throughput(call: Call, spool: Spool, name: str) -> dict[str, Any]:
    length, step = SPANS[name]
    now = time.time()
    counted = call.lately(f"plot {name}", PLOT_LIFE[name], lambda: spool.throughput(now - length, step))
    first = (now - length) // step * step
    numbers = [counted.get(first + place * step, (0, 0)) for place in range(round(length / step) + 1)]
    well, bad = (sum(found) for found in zip(*numbers, strict=True))
    most = max((done + dead for done, dead in numbers), default=0)
    return {
        "plot": plots.bars(numbers),
        "plot_most": most,
        "plot_name": name,
        "plot_done": well,
        "plot_dead": bad,
    }


def workers(call: Call) -> Response:
    """Each worker: what it runs, since when, and the end of its own log."""
    given = once(call.pairs, ("said", "about"))
    with call.site.spool() as spool:
        found = spool.workers()
        logs = {worker.name: _log_of(spool, worker.name) for worker in found}
        notes = call.notes(spool)
    return call.page(
        "workers.html",
        workers=found,
        logs=logs,
        notes=notes,
        said=said(given),
        live=("/part/workers", "", 2000),
    )


def _log_of(spool: Spool, name: str) -> str:
    from queuectl.storage import job_logs

    text = ""
    with suppress(OSError):
        text = job_logs.tail(spool.layout.worker_file(name, "log"), 4096)
    return "\n".join(plain_output(text).rstrip().split("\n")[-_LOG_LINES:])


def queues(call: Call) -> Response:
    """Each queue: its jobs, its limits, whether it is paused."""
    given = once(call.pairs, ("said", "about"))
    with call.site.spool() as spool:
        found, notes = spool.queues(), call.notes(spool)
    return call.page(
        "queues.html", queues=found[:MOST_SHOWN], more=max(0, len(found) - MOST_SHOWN), notes=notes, said=said(given),
        live=("/part/queues", "", 2000),
    )  # fmt: skip


def batches(call: Call) -> Response:
    """Each batch: how many of its jobs are in which state."""
    once(call.pairs, ())
    with call.site.spool() as spool:
        found, notes = spool.batches(), call.notes(spool)
    return call.page(
        "batches.html", batches=found[:MOST_SHOWN], more=max(0, len(found) - MOST_SHOWN), notes=notes,
        live=("/part/batches", "", 2000),
    )  # fmt: skip


def rules(call: Call) -> Response:
    """Each rule: what it says, when it is due next, what came of it."""
    given = once(call.pairs, ("said", "about"))
    with call.site.spool() as spool:
        found, notes = spool.rules(), call.notes(spool)
    shown = [(rule, next(iter(rule.next(1)), None)) for rule in found[:MOST_SHOWN]]
    return call.page(
        "rules.html", rules=shown, more=max(0, len(found) - MOST_SHOWN), notes=notes, said=said(given),
        live=("/part/rules", "", 2000),
    )  # fmt: skip


def part(page: Callable[[Call], Response]) -> Callable[[Call], Response]:
    """Return what answers with the inner part of a page, or with 304 if the browser has it already."""

    def inner(call: Call) -> Response:
        call.state = state(call.site)
        mark = stamp(call)
        if mark is not None and call.seen == mark:
            return Response(status_code=304, headers={"ETag": mark})
        call.path = call.path.removeprefix("/part") or "/"
        call.is_part = True
        answer = page(call)
        if mark is not None and not call.is_old:  # else the browser would keep what is older than its mark
            answer.headers["ETag"] = mark
        return answer

    return inner


def stamp(call: Call) -> str | None:
    """Return the ETag of a part of a page; None: the spool changes just now.

    Every ten seconds it is another one: what comes due by the clock changes no folder.
    """
    if call.state is None:
        return None
    whole = f"{call.state} {time.time_ns() // 10_000_000_000} {call.user.form_token}"
    return f'"{hashlib.sha256(whole.encode()).hexdigest()[:32]}"'


def state(site: Site) -> str | None:
    """Return a mark of the state of the spool, which changes with it; None: it changes just now."""
    now = time.time_ns()
    root = site.root
    names = ["", "pending", "processing", "done", "dead", "data/workers", "queues", "rules", "data/rules"]
    with suppress(OSError), os.scandir(os.path.join(root, "processing")) as entries:
        names += sorted(f"processing/{entry.name}" for entry in entries)
    parts: list[object] = []
    for name in names:
        try:
            status = os.stat(os.path.join(root, name))
        except OSError:
            parts.append(None)
            continue
        if file_times.may_hide_changes(status.st_mtime_ns, now):
            return None
        parts.append((status.st_mtime_ns, status.st_ino))
    parts += [(bulk.number, bulk.done, bulk.is_over) for bulk in list(site.bulk.values())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def login(call: Call) -> Response:
    """Spend a one-time link, and begin a session."""
    site = call.site
    if call.is_ahead:
        raise Refused(403, "a link is used by whoever opens it, and not by looking at it")
    tokens = [value for name, value in call.pairs if name == "token"]
    if site.options.user_header is not None or len(tokens) != 1 or not site.links.spend(tokens[0]):
        return HTMLResponse(
            rendering.render(site, call.user, "unknown.html", path="", known=False, was_link=True), 401
        )
    _drop_redirects(site)
    # The link that was used is told to nobody, not even to this server.
    answer = HTMLResponse(
        rendering.render(site, call.user, "welcome.html", path="", known=False),
        headers={"Referrer-Policy": "no-referrer"},
    )
    answer.set_cookie(
        site.cookie,
        site.sessions.begin(),
        max_age=7 * 86400,
        path=site.options.base_path or "/",
        secure=bool(site.options.socket and site.options.host_names),
        httponly=True,
        samesite="strict",
    )
    return answer


def _drop_redirects(site: Site) -> None:
    """Delete the files by which a browser was led to a link that is used now."""
    with suppress(OSError):
        for name in os.listdir(site.folder):
            if name.startswith("open-"):
                os.unlink(os.path.join(site.folder, name))


def alive(_call: Call) -> Response:
    """Say that the server is there, and nothing else."""
    return Response(status_code=204)


def static(call: Call) -> Response:
    """One of the files that the pages load."""
    found = static_files.by_address().get(call.params["name"])
    if found is None:
        return PlainTextResponse("there is nothing\n", 404)
    return Response(
        found.data, media_type=found.type, headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )
