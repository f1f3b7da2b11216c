"""A mail server and a web server of the tests' own, on loopback, that keep what they get and answer as they are told."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Mailbox:
    """What the mail server has got, and how it answers.

    Attributes:
        letters: the content of each mail.
        receivers: those of each mail.
        answers: the answer to a receiver, by address; all others are taken.
    """

    def __init__(self) -> None:
        self.letters: list[str] = []
        self.receivers: list[list[str]] = []
        self.answers: dict[str, str] = {}
        self.port = 0

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        """Answer to one receiver."""
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        """Keep a mail."""
        self.letters.append(envelope.content.decode())
        self.receivers.append(list(envelope.rcpt_tos))
        return "250 OK"


@contextmanager
def mail_server(**options: Any) -> Iterator[Mailbox]:
    """Run an SMTP server; its options are those of aiosmtpd."""
    from aiosmtpd.controller import Controller

    sessions: list[Any] = []

    class Noting(Controller):  # type: ignore[misc,unused-ignore]
        def factory(self) -> Any:
            sessions.append(super().factory())  # type: ignore[no-untyped-call]
            return sessions[-1]

    async def hang_up() -> None:
        # Else a connection that its client has just left is never closed, and a warning fails a later test.
        for session in sessions:
            if session.transport is not None:
                session.transport.abort()
        await asyncio.sleep(0.01)

    box = Mailbox()
    box.port = free_port()
    controller = Noting(box, hostname="127.0.0.1", port=box.port, **options)
    controller.start()
    try:
        yield box
    finally:
        asyncio.run_coroutine_threadsafe(hang_up(), controller.loop).result(10)
        controller.stop()


@contextmanager
def talker(*answers: bytes, wait: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that gives these answers, one for each line that it gets, the first at once; yield its port and the lines.

    Args:
        wait: keep the connection open after the last answer, and say nothing more.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for number, answer in enumerate(answers):
                if number:
                    got.append(lines.readline())
                connection.sendall(answer)
            if wait:
                is_over.wait(30)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        is_over.set()
        listener.close()
        thread.join(10)


class Posts:
    """What the web server has got, and how it answers.

    Attributes:
        facts: the content of each POST.
        headers: the header fields of each, by name in lower case.
        answers: the codes of the next answers; then 200.
    """

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.url = ""


@contextmanager
def web_server() -> Iterator[Posts]:
    posts = Posts()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.facts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            posts.headers.append({name.lower(): value for name, value in self.headers.items()})
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            posts.paths.append(f"{self.command} {self.path}")
            code = posts.answers.pop(0) if posts.answers else 200
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", f"{posts.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"no such hook\n" if code >= 400 else b"ok\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing on stderr."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    posts.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
