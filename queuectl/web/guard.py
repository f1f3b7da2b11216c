"""What is refused before anything else looks at a request, and the headers that each answer has.

The functions are pure: a scope of ASGI in, a refusal or nothing out. `Guard` puts them around the application.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from queuectl.web.options import Options

LARGEST_BODY = 1 << 20
LARGEST_HEADERS = 16 << 10
LARGEST_QUERY = 8 << 10
PATIENCE = 20.0
"""Seconds in which the body of a request must arrive."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types queuectl"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer that has none of its own: a file that may be kept, and the answer to a link, have one.

With the policy no-referrer a browser sends `Origin: null` with each form, also with ours.
"""

METHODS = ("GET", "HEAD", "POST")


class Refusal(NamedTuple):
    """Why a request is not answered: the status, and one line."""

    status: int
    line: str
    headers: Mapping[str, str] | None = None


def values(scope: Scope, name: str) -> list[str]:
    """Return the values of a header, in the order in which they came."""
    wanted = name.lower().encode("latin-1")
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]


def refuse(scope: Scope, options: Options) -> Refusal | None:
    """Return why a request must not reach the application; None if nothing is wrong with it."""
    return (
        refuse_host(scope, options)
        or refuse_size(scope)
        or refuse_header(scope, options)
        or refuse_method(scope)
        or refuse_foreign(scope)
    )


def refuse_host(scope: Scope, options: Options) -> Refusal | None:
    """Refuse a name that is not this server's: a page elsewhere can let its own name lead to this machine."""
    hosts = values(scope, "host")
    if len(hosts) == 1 and _name_of(hosts[0]) in options.names:
        return None
    return Refusal(
        421, "this server is not asked under that name; another one is allowed by --host-name NAME"
    )


def _name_of(host: str) -> str | None:
    """Return the name in a Host header without its port, in lower case; None if it is no such header."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.lower()
    return name.lower() if port.isascii() and port.isdecimal() and 0 < int(port[:9]) < 1 << 16 else None


def refuse_size(scope: Scope) -> Refusal | None:
    """Refuse a request whose head is larger than any browser's."""
    if len(scope.get("query_string", b"")) > LARGEST_QUERY:
        return Refusal(414, "the address is too long")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEADERS:
        return Refusal(431, "the headers are too long")
    sizes = values(scope, "content-length")
    if sizes and not (sizes[0].isascii() and sizes[0].isdecimal() and int(sizes[0][:12]) <= LARGEST_BODY):
        return Refusal(413, "the form is larger than 1 MiB")
    if sizes and values(scope, "transfer-encoding"):
        return Refusal(400, "the form has two lengths")  # a proxy may believe the other one
    return None


def refuse_header(scope: Scope, options: Options) -> Refusal | None:
    """Refuse a header that only a proxy may set, if it comes another way than from the proxy, or twice."""
    name = options.user_header
    if name is None:
        return None
    found = values(scope, name)
    if options.socket is None and found:
        return Refusal(400, f"the header {name} is taken from the proxy only")
    if len(found) > 1:
        return Refusal(400, f"the header {name} was sent twice")
    return None


def refuse_method(scope: Scope) -> Refusal | None:
    """Refuse what browsers do not send to pages."""
    if scope["method"] in METHODS:
        return None
    return Refusal(405, "this method is not used here", {"Allow": ", ".join(METHODS)})


def refuse_foreign(scope: Scope) -> Refusal | None:
    """Refuse a change that a page of another site has sent with the browser of this user."""
    if scope["method"] in {"GET", "HEAD"}:
        return None
    host = values(scope, "host")[0].lower()
    origins = [origin.lower() for origin in values(scope, "origin")]
    if origins not in ([f"http://{host}"], [f"https://{host}"]):
        return Refusal(403, "this form comes from another site")
    if values(scope, "sec-fetch-site") not in ([], ["same-origin"]):
        return Refusal(403, "this form comes from another site")
    return None


class BodyTooLarge(Exception):
    """The body of a request is larger than it may be."""


class BodyTooLate(Exception):
    """The body of a request has not arrived in time."""


class Guard:
    """The application with its guard: each request is checked first, and each answer gets the headers.

    Args:
        patience: seconds in which the body of a request must arrive.
    """

    def __init__(self, app: ASGIApp, options: Options, *, patience: float = PATIENCE) -> None:
        self._app, self._options, self._patience = app, options, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(_with_headers(message))

        refusal = refuse(scope, self._options) or self._below_base(scope)
        if refusal is None:
            try:
                await self._app(scope, _limited(receive, self._patience), send_with_headers)
            except BodyTooLarge:
                refusal = Refusal(413, "the form is larger than 1 MiB")
            except BodyTooLate:
                refusal = Refusal(408, "the request did not arrive in time")
        if refusal is not None and not begun:
            headers = {**(refusal.headers or {}), "Connection": "close"}
            answer = PlainTextResponse(f"{refusal.line}\n", refusal.status, headers)
            await answer(scope, receive, send_with_headers)

    def _below_base(self, scope: Scope) -> Refusal | None:
        """Take the base path off the path that is asked for."""
        base = self._options.base_path
        if not base:
            return None
        path: str = scope["path"]
        if path != base and not path.startswith(f"{base}/"):
            return Refusal(404, f"the pages are below {base}/")
        scope["path"] = path[len(base) :] or "/"
        return None


def _with_headers(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    there = {name.lower() for name, _ in message.get("headers", ())}
    added = [
        (name.lower().encode(), value.encode())
        for name, value in HEADERS.items()
        if name.lower().encode() not in there
    ]
    return {**message, "headers": [*message.get("headers", ()), *added]}


def _limited(receive: Receive, patience: float) -> Receive:
    """Return what receives the body of a request, and gives up when it is too large or too slow."""
    size = 0
    is_whole = False
    until = time.monotonic() + patience

    async def limited() -> Message:
        nonlocal size, is_whole
        if is_whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise BodyTooLate from None
        size += len(message.get("body", b""))
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        if size > LARGEST_BODY:
            raise BodyTooLarge
        return message

    return limited
