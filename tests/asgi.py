"""A browser without a browser: it calls the pages in this process, keeps their cookie, and sends their forms."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from queuectl.web import app
from queuectl.web.options import Options
from queuectl.web.site import Site

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from starlette.types import Message

HOST = "127.0.0.1:8484"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON says it."""
        return json.loads(self.body)


class Browser:
    """One visitor of a site of pages.

    Args:
        root: the spool.
        site: a site that another visitor sees as well.
    """

    def __init__(
        self, root: str | os.PathLike[str], options: Options | None = None, site: Site | None = None
    ) -> None:
        self.site = site or Site(str(root), options or Options(), login_pause=0)
        self.site.make_folder()
        self.app = app.build(self.site)
        self.cookie = ""

    def login(self) -> Browser:
        """Use a new link."""
        answer = self.get(f"/login?token={self.site.links.make()}")
        assert answer.status == 200
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    @property
    def token(self) -> str:
        """The token of this visitor's forms."""
        session = self.site.sessions.find([self.cookie.partition("=")[2]])
        return session.form_token if session else ""

    def get(self, path: str, **headers: str) -> Answer:
        """Open a page."""
        return self.ask("GET", path, headers.items())

    def post(
        self, path: str, form: Mapping[str, str] | Iterable[tuple[str, str]] = (), **headers: str
    ) -> Answer:
        """Send a form as a page of ours does."""
        fields = [*(form.items() if hasattr(form, "items") else form), ("token", self.token)]
        mine = {
            "origin": f"http://{HOST}",
            "sec-fetch-site": "same-origin",
            "content-type": "application/x-www-form-urlencoded",
        }
        return self.ask("POST", path, {**mine, **headers}.items(), urlencode(fields).encode())

    def follow(self, answer: Answer) -> Answer:
        """Go where an answer leads."""
        assert answer.status == 303, answer.text
        return self.get(answer.headers["location"])

    def ask(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        parts: int = 1,
    ) -> Answer:
        """Send a request as it is; a header `host` takes the place of ours."""
        found = [(name.lower().replace("_", "-"), value) for name, value in headers]
        if not any(name == "host" for name, _ in found):
            found.append(("host", HOST))
        if self.cookie:
            found.append(("cookie", self.cookie))
        return asyncio.run(
            self._ask(method, path, [pair for pair in found if pair != ("host", "-")], body, parts)
        )

    async def _ask(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes, parts: int
    ) -> Answer:
        from urllib.parse import unquote

        split = urlsplit(path)
        size = -(-len(body) // parts) or 1
        blocks = [body[at : at + size] for at in range(0, max(1, len(body)), size)]
        sent: list[Message] = []
        more = asyncio.Event()

        async def receive() -> Message:
            if blocks:
                return {"type": "http.request", "body": blocks.pop(0), "more_body": bool(blocks)}
            await more.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(split.path), "raw_path": split.path.encode(), "query_string": split.query.encode(),
            "root_path": "", "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "server": ("127.0.0.1", 8484), "client": ("127.0.0.1", 5000),
        }  # fmt: skip
        await self.app(scope, receive, send)
        head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]))


def shown(html: str) -> str:
    """The text of a page, without its tags."""
    import html as parts

    return " ".join(parts.unescape(re.sub(r"<[^>]*>", " ", html)).split())
