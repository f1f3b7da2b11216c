"""The table of routes, and the application that a server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from queuectl.web import actions, bulk, edits, forms, job_page, lists, logs, pages
from queuectl.web.call import Call, Endpoint, Refused, tell
from queuectl.web.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from queuectl.web.call import Page
    from queuectl.web.site import Site

OPEN: dict[str, Page] = {"/login": pages.login, "/alive": pages.alive, "/static/{name}": pages.static}
"""What is answered to people who are not logged in."""

SHOWN: dict[str, Page] = {
    "/": pages.overview,
    "/jobs": lists.jobs,
    "/dead": lists.dead,
    "/line": lists.line,
    "/workers": pages.workers,
    "/queues": pages.queues,
    "/batches": pages.batches,
    "/rules": pages.rules,
    "/job/{id}": job_page.job_page,
    "/bulk/{number}": bulk.progress,
}
"""Pages whose inner part is refreshed: it is below /part."""

READ: dict[str, Page] = {
    "/job/{id}/log": logs.log,
    "/job/{id}/log/file": logs.log_file,
    "/job/{id}/file": job_page.ask_file,
}

DONE: dict[str, Page] = {
    "/job/{id}/file": job_page.raw_file,
    **{f"/job/{{id}}/{verb}": actions.on_job(verb) for verb in actions.VERBS},
    "/job/{id}/set": edits.save,
    "/pause": actions.pause,
    "/resume": actions.resume,
    "/queue/{name}/pause": actions.pause_queue,
    "/queue/{name}/resume": actions.resume_queue,
    "/rule/{name}/pause": actions.on_rule("pause"),
    "/rule/{name}/resume": actions.on_rule("resume"),
    "/bulk": bulk.ask,
    "/bulk/go": bulk.start,
    "/bulk/{number}/stop": bulk.stop,
}
"""What the buttons do; not with --read-only."""

ENQUEUED: dict[str, Page] = {
    "/new": forms.create,
    "/check": forms.check,
    "/job/{id}/edit": edits.save_text,
    "/rule/{name}/run": actions.on_rule("run"),
}
"""What can bring in a new job or a new command; not with --no-enqueue either."""


def tables(site: Site) -> tuple[dict[str, Page], dict[str, Page]]:
    """Return what is read and what is done: the pages by path. What must not be done is not there."""
    read = {**SHOWN, **{f"/part{path}": pages.part(page) for path, page in SHOWN.items()}, **READ}
    done: dict[str, Page] = {"/logout": logout}
    if site.options.read_only:
        return read, done
    read["/job/{id}/edit"] = edits.edit
    done |= DONE
    if site.may_enqueue:
        read["/new"] = forms.new
        done |= ENQUEUED
    return read, done


def routes(site: Site) -> list[Route]:
    """Return all routes of a site."""
    read, done = tables(site)
    made = [Route(path, Endpoint(site, page, open=True), methods=["GET"]) for path, page in OPEN.items()]
    made += [Route(path, Endpoint(site, page), methods=["GET"]) for path, page in read.items()]
    made += [
        Route(path, Endpoint(site, page, is_harmless=path == "/logout"), methods=["POST"])
        for path, page in done.items()
    ]
    return made


def logout(call: Call) -> Response:
    """End the session."""
    call.site.sessions.end(call.cookies)
    answer = call.page("unknown.html", known=False, has_left=True)
    answer.delete_cookie(call.site.cookie, path=call.site.options.base_path or "/")
    return answer


def build(site: Site) -> ASGIApp:
    """Return the application: the routes behind the guard."""

    def missing(status: int, line: str) -> Callable[[Request, Exception], Response]:
        return lambda request, _: tell(site, request, Refused(status, line))

    app = Starlette(
        routes=routes(site),
        exception_handlers={
            404: missing(404, "there is no such page"),
            405: missing(405, "this page takes no such request"),
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, site.options)
