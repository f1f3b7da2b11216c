"""Lists of jobs in pages: all jobs, dead ones, the line of those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.errors import QueuectlError
from queuectl.job.fields import WAITING, is_id
from queuectl.web import query
from queuectl.web.query import BadQuery, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from queuectl.api.paging import Page
    from queuectl.api.row import Row
    from queuectl.api.spool import Spool
    from queuectl.web.call import Call

ROWS = 50
SEARCH_PERIOD = 10_000
"""Milliseconds after which a page asks again whose search takes all of its patience each time."""

PATIENCE = 0.05
"""Seconds of a search in one answer. What is not found by then is searched by the next page."""

REASONS_LIFE = 4.0
ENDS_LIFE = 30.0
MOST_NEWER = 99


def jobs(call: Call) -> Response:
    """All jobs, or those that the filters in the address select."""
    return _list(call, "jobs.html", "/jobs")


def dead(call: Call) -> Response:
    """The dead jobs, with the reasons."""
    return _list(call, "dead.html", "/dead", states=("dead",))


def line(call: Call) -> Response:
    """The jobs that wait, in the order in which they will run."""
    return _list(call, "line.html", "/line", states=WAITING, sort="next")


def _list(
    call: Call, template: str, path: str, *, states: Sequence[str] = (), sort: str = "-arrived"
) -> Response:
    pairs = list(call.pairs)
    asked = [value.strip() for name, value in pairs if name == "q"]
    if asked and path == "/jobs":
        return _looked_for(call, asked[0])
    values: dict[str, Any] = {"list_path": path, "said": _said(pairs)}
    pairs = [(name, value) for name, value in pairs if name not in {"said", "about"}]
    try:
        view = query.read(pairs, states=states, sort=sort)
        with call.site.spool() as spool:
            values |= _page(spool, view)
            values["reasons"] = _reasons(call, spool, view) if path == "/dead" else []
            values["notes"] = call.notes(spool)
            values["ends"] = _ends(call, spool, values["page"].rows) if path == "/dead" else {}
            values["waiting"] = _delayed(spool) if path == "/line" else []
            values["paused_queues"] = _paused_queues(spool, [*values["page"].rows, *values["waiting"]])
    except (BadQuery, ValueError) as error:
        given = {name: value for name, value in pairs if name in query._NAMES}
        return call.page(
            template, 400, **values, view=View(given), page=None, newer=0, reasons=[], ends={}, waiting=[], paused_queues=set(),
            problem=str(error), more_newer=False,
        )  # fmt: skip
    part_query = view.but(after=view.after, before=view.before, at=view.at or _standing(view, values["page"]))
    period = 2000 if values["page"].is_searched else SEARCH_PERIOD
    return call.page(template, **values, view=view, live=(f"/part{path}", part_query, period))


def _reasons(call: Call, spool: Spool, view: View) -> list[tuple[str, int]]:
    """Return why these jobs are dead, as it was some seconds ago."""
    return call.lately(f"reasons {view.but()}", REASONS_LIFE, lambda: spool.reasons(view.where))


def _standing(view: View, page: Page) -> str | None:
    """Return the place from which a page goes on to be shown, so that jobs that come move no row under a hand."""
    if view.after or view.before or not view.where.sort.startswith("-"):
        return None
    return page.first


def _page(spool: Spool, view: View) -> dict[str, Any]:
    """Return a page of a list, and how many jobs have come before it since it was opened."""
    after, newer = view.after, 0
    if view.at is not None and view.where.sort.startswith("-"):
        *front, last = view.at.split(".")
        after = ".".join([*front, str(int(last) + 1)])
        newer = len(spool.page(view.where, before=view.at, limit=MOST_NEWER, patience=PATIENCE).rows)
    page = spool.page(view.where, after=after, before=view.before, limit=ROWS, patience=PATIENCE)
    return {"page": page, "newer": newer, "more_newer": newer == MOST_NEWER}


def _looked_for(call: Call, asked: str) -> Response:
    """Go to the job of this id, or to the list of the jobs with this text in their commands."""
    if is_id(asked):
        with call.site.spool() as spool:
            if spool.rows([asked]):
                return call.go(f"/job/{asked}")
    pairs = [(name, value) for name, value in call.pairs if name not in {"q", "command", *query.PLACES}]
    view = query.read(pairs)
    return call.go("/jobs", view.but(command=asked))


def _ends(call: Call, spool: Spool, rows: Sequence[Row], jobs_at_most: int = 10) -> dict[str, str]:
    """Return the last lines of the output of the first dead jobs of a page. A run that is over prints no more."""
    found = {}
    for row in rows[:jobs_at_most]:
        key = f"end {row.id} {row.attempts} {row.finished_at}"
        found[row.id] = call.lately(key, ENDS_LIFE, lambda job_id=row.id: _end(spool, job_id))  # type: ignore[misc]  # bound at once
    return {job_id: text for job_id, text in found.items() if text}


def _end(spool: Spool, job_id: str, lines: int = 3) -> str:
    from queuectl.web.text import plain_output

    for stream in ("err", "out"):
        try:
            part = spool.output_part(job_id, stream=stream, start=-1, most=4096)
        except QueuectlError:
            break  # its page tells what is wrong with the file
        if part.data.strip():
            return "\n".join(plain_output(part.text).rstrip().split("\n")[-lines:])
    return ""


def _delayed(spool: Spool) -> list[Row]:
    """Return waiting jobs that have no place in the line: held, waiting for others, or for a moment.

    A job whose moment has come gets its place from a worker, and none may be running.
    """
    from queuectl.index.filter import Filter

    rows = spool.list(where=Filter(states=WAITING, sort="-next", limit=ROWS))
    return [row for row in rows if row.due_at is not None or row.waits_for not in {"worker", "queue"}]


def _paused_queues(spool: Spool, rows: Sequence[Row]) -> set[str]:
    """Return which of the queues that these jobs wait for are paused: waiting for room there would be in vain."""
    names = {row.queue for row in rows if row.waits_for == "queue"}
    return {name for name in names if spool.paused(queue=name) is not None}


SAID = {
    "retried": "{} will run again",
    "cancelled": "{} is cancelled",
    "ending": "{} is being ended; it will not be tried again",
    "held": "{} is held",
    "released": "{} is released",
    "deleted": "{} is deleted",
    "changed": "{} is changed",
    "unchanged": "nothing was changed",
    "queued": "queued job {}",
    "skipped": "not queued: job {} has the unique key",
    "paused": "the spool is paused",
    "resumed": "the spool goes on",
    "rule-ran": "the jobs of rule {} are queued",
    "rule-paused": "rule {} is paused",
    "rule-resumed": "rule {} goes on",
    "queue-paused": "queue {} is paused",
    "queue-resumed": "queue {} goes on",
}
"""What was done, by the word in the address after it: no other text of an address is shown as a message of ours."""

UNDO = {"held": ("release", "Release"), "released": ("hold", "Hold"), "paused": ("resume", "Resume")}


def _said(pairs: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    return said(dict(pairs))


def said(given: dict[str, str]) -> dict[str, Any] | None:
    """Return what is told of an action that was just done; None: nothing was."""
    word, about = given.get("said", ""), given.get("about", "")
    if word not in SAID or (about and not is_id(about)):
        return None
    return {"line": SAID[word].format(about), "about": about, "undo": UNDO.get(word)}
