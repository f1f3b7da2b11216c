"""One request as the pages see it, and one answer: forms are read, people are known, errors become a page with one line."""

from __future__ import annotations

import asyncio
import hmac
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from queuectl.errors import JobNotFound, QueuectlError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job.fields import is_id
from queuectl.job.redact import one_line
from queuectl.web import guard, rendering
from queuectl.web.query import BadQuery
from queuectl.web.site import NOTES, NOTES_LIFE, SPOOLS, User, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from starlette.types import Receive, Scope, Send

    from queuectl.api.spool import Spool
    from queuectl.web.site import Site

    T = TypeVar("T")
    Page = Callable[["Call"], Response]

MOST_FIELDS = 2000
"""Fields of a form: a page of jobs has fifty."""

RETRY_AFTER = "2"
"""Seconds after which a program that got no answer may ask again, as the pages do."""

_FORM = "application/x-www-form-urlencoded"
_pause = asyncio.sleep
_threads = ThreadPoolExecutor(SPOOLS, thread_name_prefix="page")


class Refused(Exception):
    """A request that is answered by one line: the status, the line, and a command that helps.

    Args:
        way_on: a link to go on by: its words, its path and its query.
    """

    def __init__(
        self, status: int, line: str, hint: str | None = None, *, way_on: tuple[str, str, str] | None = None
    ) -> None:
        super().__init__(line)
        self.status, self.line, self.hint, self.way_on = status, line, hint, way_on


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        pairs: the parameters of the address.
        form: the fields of the form that was sent; without the form's token.
        params: the parts of the path.
        seen: what the browser has of this part of a page already: its ETag.
        is_part: whether only the inner part of the page is asked for.
        is_ahead: whether nobody has opened the page yet: a program looks at a link, or fetches it ahead.
        cookies: the values of our cookie.
        state: a mark of the state of the spool, if it is known.
        is_old: whether something on the page is older than that.
    """

    site: Site
    user: User
    path: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    form: list[tuple[str, str]] = field(default_factory=list)
    params: Mapping[str, str] = field(default_factory=dict)
    seen: str | None = None
    is_part: bool = False
    is_ahead: bool = False
    cookies: list[str] = field(default_factory=list)
    state: str | None = None
    is_old: bool = False

    def lately(self, key: str, life: float, count: Callable[[], T]) -> T:
        """Return what was counted under this key less than `life` seconds ago, see `Site.lately`."""
        found, state = self.site.lately(key, life, count, self.state)
        self.is_old |= state != self.state
        return found

    def notes(self, spool: Spool) -> list[str]:
        """Return what a user should know besides the counts, as it was a moment ago."""
        found = self.lately(NOTES, NOTES_LIFE, spool.notes)
        self.is_old |= spool.behind is not None
        return [spool.behind, *found] if spool.behind else found

    def url(self, path: str, query: str = "") -> str:
        """Return the address of a page of ours."""
        return f"{self.site.options.base_path}{path}{'?' if query else ''}{query}"

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Answer with a page."""
        return HTMLResponse(
            rendering.render(self.site, self.user, template, path=self.path, part=self.is_part, **values),
            status,
        )

    def go(self, path: str, query: str = "") -> RedirectResponse:
        """Answer with another page, after something was done."""
        return RedirectResponse(self.url(path, query), 303)

    def note(self, what: str) -> None:
        """Write into the log of actions what was done."""
        self.site.note(self.user, what)

    def fields(self) -> dict[str, str]:
        """Return the fields of the form.

        Raises:
            Refused: one of them is given twice.
        """
        found: dict[str, str] = {}
        for name, value in self.form:
            if name in found:
                raise Refused(400, f"the field {name[:40]!r} is given twice")
            found[name] = value.replace("\r\n", "\n")
        return found


def job_id_of(call: Call) -> str:
    """Return the id in the path.

    Raises:
        JobNotFound: no job can have it.
    """
    job_id = call.params["id"]
    if not is_id(job_id):
        raise JobNotFound(job_id[:64])
    return job_id


@dataclass(slots=True)
class Endpoint:
    """A page as an application of ASGI.

    Args:
        page: answers a call, in a thread: it may wait for the disk.
        open: whether it is for people who are not logged in as well.
        is_harmless: whether those who may only look can send its form.
    """

    site: Site
    page: Page
    open: bool = False
    is_harmless: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Refused as refused:
            answer = tell(self.site, request, refused)
        if answer.status_code == 503:
            answer.headers["Retry-After"] = RETRY_AFTER
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self.site.refused and not self.open:
            raise Refused(503, self.site.refused)
        user = None if self.open else find_user(self.site, request)
        if user is None and not self.open:
            return rendering.unknown(self.site)
        user = user or User("", "", may_act=False)
        call = Call(self.site, user, request.url.path, params=request.path_params)
        call.cookies = cookies(self.site, request)
        call.seen = request.headers.get("if-none-match")
        call.is_ahead = request.method == "HEAD" or any(
            "prefetch" in request.headers.get(name, "").lower() for name in ("sec-purpose", "purpose")
        )
        call.pairs = _pairs(request.scope.get("query_string", b""), "address")
        if request.method == "POST":
            call.form = await _form(request, user, is_harmless=self.is_harmless)
        answer: Response = await asyncio.get_running_loop().run_in_executor(_threads, self._run, call)
        if answer.status_code == 401:
            # A link that is none: whoever guesses waits, and holds no thread meanwhile.
            await _pause(self.site.login_pause)
        return answer

    def _run(self, call: Call) -> Response:
        try:
            return self.page(call)
        except BadQuery as error:
            raise Refused(400, str(error), way_on=("The page as it usually is", call.path, "")) from None
        except QueuectlError as error:
            raise Refused(status_of(error), str(error), error.hint) from None
        except Refused:
            raise
        except (
            Exception
        ) as error:  # a fault of ours: one line for the reader, and one for whoever runs the server
            print(
                f"error: {call.path}: {type(error).__name__}: {one_line(str(error))[:300]}", file=sys.stderr
            )
            raise Refused(500, f"this page has failed: {type(error).__name__}") from error


def _pairs(data: bytes, what: str) -> list[tuple[str, str]]:
    try:
        text = data.decode("ascii" if what == "address" else "utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:  # no UTF-8, or too many fields
        raise Refused(400, f"the {what} cannot be read") from None


def refuse_reader(user: User) -> None:
    """Refuse somebody who may only look.

    Raises:
        Refused: he may change nothing.
    """
    if not user.may_act:
        raise Refused(403, "you may look, and change nothing")


async def _form(request: Request, user: User, *, is_harmless: bool) -> list[tuple[str, str]]:
    if not is_harmless:
        refuse_reader(user)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise Refused(400, "a form is expected")
    try:
        body = await request.body()
    except guard.BodyTooLarge:
        raise Refused(413, "the form is larger than 1 MiB") from None
    except ClientDisconnect:
        raise Refused(400, "the form did not arrive whole") from None
    except guard.BodyTooLate:
        raise Refused(408, "the form did not arrive in time") from None
    fields = _pairs(body, "form")
    tokens = [value for name, value in fields if name == "token"]
    if len(tokens) != 1 or not hmac.compare_digest(tokens[0].encode(), user.form_token.encode()):
        raise Refused(403, "this form is from an earlier visit: open the page again, and send it from there")
    return [(name, value) for name, value in fields if name != "token"]


def find_user(site: Site, request: Request) -> User | None:
    """Return who asks; None: nobody that we know.

    Raises:
        Refused: the proxy names somebody who may not see the pages.
    """
    options = site.options
    if options.user_header is not None:
        names = guard.values(request.scope, options.user_header)
        name = names[0].strip() if names else ""
        if not name or name not in options.allow | options.allow_read:
            raise Refused(403, "you are not among the users of these pages")
        return User(name, site.form_token_of(name), name in options.allow and not options.read_only)
    session = site.sessions.find(cookies(site, request))
    return None if session is None else User("", session.form_token, may_act=not options.read_only)


def cookies(site: Site, request: Request) -> list[str]:
    """Return the values of our cookie; a browser may have several of one name."""
    found = []
    for header in guard.values(request.scope, "cookie"):
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == site.cookie:
                found.append(value)
    return found[:8]


def tell(site: Site, request: Request, refused: Refused) -> Response:
    """Answer with one line about what is wrong. Who is not logged in is not even told which pages there are."""
    try:
        user = find_user(site, request)
    except Refused as unknown:
        user, refused = None, unknown
    if user is None and refused.status in {404, 405}:
        return rendering.unknown(site)
    text = rendering.render(
        site, user or User("", "", may_act=False), "error.html", path=request.url.path, known=user is not None,
        status=refused.status, line=refused.line, hint=refused.hint, way_on=refused.way_on,
    )  # fmt: skip
    return HTMLResponse(text, refused.status)
