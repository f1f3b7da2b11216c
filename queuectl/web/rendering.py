"""From values to HTML. Every value is escaped, and each character that would deceive a reader is marked first."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from queuectl.web import static_files, text
from queuectl.web.query import SORTS, query_of

if TYPE_CHECKING:
    from queuectl.web.site import Site, User

FOLDER = os.path.join(os.path.dirname(__file__), "templates")
PAGES = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/dead", "Dead"),
    ("/line", "Line"),
    ("/workers", "Workers"),
    ("/queues", "Queues"),
    ("/batches", "Batches"),
    ("/rules", "Rules"),
)
"""The links at the top of each page."""


_AS_IT_IS = (Markup, text.Exact)


def _shown(value: Any) -> Any:
    """Return a value as it goes into a template, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, _AS_IT_IS):
        return text.marked(value)
    return value


@cache
def environment() -> Environment:
    """Return the templates, compiled once."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        span=text.span, ago=text.ago, num=text.number, bytes=text.size, cut=text.cut, moment=text.local,
        distance=text.distance, exact=text.Exact, iso=_iso, part=_part,
    )  # fmt: skip
    made.globals.update(STATES=text.STATES, SORTS=SORTS, PAGES=PAGES, count=text.count, query=query_of)
    return made


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _part(name: str) -> str:
    """Return a name as a part of the path of an address."""
    return quote(name, safe="")


def short_path(path: str) -> str:
    """Return a path with the home folder written as ~."""
    home = os.path.expanduser("~")
    return f"~{path[len(home) :]}" if home != "/" and path.startswith(home + os.sep) else path


def render(site: Site, user: User, template: str, *, path: str, part: bool = False, **values: Any) -> str:
    """Return a page, or only the part of it that is refreshed.

    Args:
        path: that of the page, for the link to it that is marked.
        part: only what is inside `main`.
    """
    base = site.options.base_path
    given = {
        "known": True,
        "live": None,
        "problem": None,
        "said": None,
        "notes": [],
        **values,
    }
    return environment().get_template(template).render(
        layout="part.html" if part else "base.html",
        site=site,
        user=user,
        path=path,
        root=short_path(site.root),
        may_act=user.may_act,
        may_enqueue=user.may_act and site.may_enqueue,
        url=lambda to, asked="": f"{base}{to}{'?' if asked else ''}{asked}",
        asset=lambda name: f"{base}/static/{static_files.all_files()[name].name}",
        now=time.time(),
        **given,
    )  # fmt: skip


def unknown(site: Site) -> HTMLResponse:
    """Answer somebody who is not logged in."""
    from queuectl.web.site import User

    nobody = User("", "", may_act=False)
    return HTMLResponse(render(site, nobody, "unknown.html", path="", known=False), 401)
