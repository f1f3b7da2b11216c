"""One server of pages: started once for a spool, found by `web --url`, ended by a signal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
import webbrowser
from contextlib import contextmanager, suppress
from html import escape
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from queuectl.api import access
from queuectl.control.permissions import PermissionCheck, refuse_unsafe
from queuectl.errors import QueuectlError, SpoolError
from queuectl.job.redact import one_line
from queuectl.layout import Layout
from queuectl.system import files, safe_open
from queuectl.system.locks import Lock
from queuectl.web import app, bulk, listening
from queuectl.web.guard import LARGEST_HEADERS, LARGEST_QUERY, PATIENCE
from queuectl.web.site import Site

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from queuectl.web.options import Options

CONNECTIONS = 64
"""Browsers keep six to a server; further ones are told to come back."""

CHECK_PERIOD = 1.0
"""Seconds between two looks at who can write into the spool."""

MOST_OPEN = 2 * CONNECTIONS
"""Connections that are kept at all. Each takes a descriptor, and the spool needs some, too."""

_END_WITHIN = 2


class _OneLine(logging.Handler):
    """Tells the terminal of a fault in one line. A traceback says nothing to whoever runs the server."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError | h11.LocalProtocolError):
            return  # the server ends, and does not wait for a slow download; or a client has sent what is no HTTP
        reason = f": {type(error).__name__}: {error}" if error else ""
        print(f"error: {one_line(record.getMessage().strip() + reason)[:400]}", file=sys.stderr)


def _log_in_lines() -> None:
    """Let the libraries of the server tell of faults as queuectl does."""
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_OneLine(logging.ERROR)], False


class _Protocol(H11Protocol):
    """HTTP, with an end to waiting: a client that sends a letter a minute holds no connection.

    That is so for the head of a request, and for the body of one that has been answered without it. While a body is
    read, the guard counts the time.
    """

    _late: asyncio.TimerHandle | None = None
    _since = 0.0
    _is_let_go = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        is_one_gone = len(self.connections) >= CONNECTIONS and self._let_one_go()
        if len(self.connections) > MOST_OPEN and not is_one_gone:
            transport.abort()
        else:
            self._watch()

    def _let_one_go(self) -> bool:
        """Close the connection that has waited longest for a request: it may be one of many that send none.

        Any user of the machine can open so many. Without this nobody else would get an answer meanwhile.
        """
        others = [one for one in self.connections if isinstance(one, _Protocol) and one is not self]
        waiting = [one for one in others if one._is_free()]
        if not waiting:
            return False
        longest = min(waiting, key=lambda one: one._since)
        longest._is_let_go = True  # so that the next visitor does not take this one, too
        longest.transport.abort()
        return True

    def _is_free(self) -> bool:
        """Whether nothing is done for this connection: it sends a request, or none, and may be closed for another."""
        cycle: RequestResponseCycle | None = self.cycle
        return not self._is_let_go and (cycle is None or cycle.response_complete)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            # Bytes that are no HTTP, after an answer has begun: there is no second one.
            self.transport.abort()
        if not self._is_free():
            self._since = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        is_awaited = state is h11.IDLE or (state is h11.SEND_BODY and self.cycle.response_complete)
        if not is_awaited:
            self._unwatch()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(PATIENCE, self.transport.close)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    """A server that ends by itself after a signal, and leaves the exit code to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self._stop) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _stop(self, *_: object) -> None:
        self.should_exit = True


def serve(root: str, options: Options, tell: Callable[[str], None], *, open_browser: bool = False) -> None:
    """Serve the pages of a spool until a signal comes.

    Args:
        tell: is called with each line for the person at the terminal.

    Raises:
        QueuectlError: the spool is served already, or it is not this user's, or nothing can be listened on.
    """
    layout = Layout(root)
    access.make(layout, "web")
    refuse_unsafe(layout)
    site = Site(layout.root, options)
    site.make_folder()
    lock = _only_one(site)
    try:
        made = listening.on_path(options.socket) if options.socket else listening.on_port(options.port)
        try:
            port = None if options.socket else made.getsockname()[1]
            _write_record(site, port)
            site.cookie = cookie_name(site, port)
            _greet(site, port, tell, open_browser=open_browser)
            asyncio.run(_run(site, _made(site), made, PermissionCheck(layout)))
        finally:
            made.close()
            if options.socket:
                with suppress(OSError):
                    os.unlink(options.socket)
    finally:
        site.close()
        with suppress(OSError):
            os.unlink(_record_of(site.folder))
        lock.release()


def _made(site: Site) -> _Server:
    return _Server(
        uvicorn.Config(
            app.build(site),
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,  # it would hold the token of a link
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_END_WITHIN,
            h11_max_incomplete_event_size=LARGEST_HEADERS + LARGEST_QUERY,
        )
    )


async def _run(site: Site, server: _Server, made: socket.socket, check: PermissionCheck) -> None:
    _log_in_lines()
    watching = asyncio.create_task(_watch(site, check))
    try:
        await server.serve(sockets=[made])
    finally:
        watching.cancel()
        await asyncio.to_thread(bulk.end_all, site, 0.5)


async def _watch(site: Site, check: PermissionCheck) -> None:
    """Look each second whether others can write into the spool: then nothing is shown and nothing is done."""
    while True:
        try:
            site.refused = await asyncio.to_thread(check.look)
        except (SpoolError, OSError) as error:  # what cannot be looked at is not shown either
            site.refused = str(error)
        await asyncio.sleep(CHECK_PERIOD)


def cookie_name(site: Site, port: int | None) -> str:
    """Return the name of the cookie. All ports of a machine share their cookies, so each server has a name of its own."""
    if port is not None:
        return f"queuectl-{port}"
    return f"queuectl-{hashlib.sha256(site.root.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _only_one(site: Site) -> Lock:
    path = os.path.join(site.folder, "lock")
    try:
        lock = Lock.acquire(path, patience=0.5)  # `web --url` holds it for an instant
    except OSError as error:
        raise SpoolError.from_os("open", path, error) from None
    if lock is None:
        found = _record(site.folder)
        where = f"at {found['socket']}" if found.get("socket") else f"on port {found.get('port', '?')}"
        raise QueuectlError(f"this spool is served already, {where}", hint="queuectl web --url")
    return lock


def _record_of(folder: str) -> str:
    return os.path.join(folder, "server.json")


def _record(folder: str) -> dict[str, Any]:
    try:
        found = json.loads(safe_open.read_text(_record_of(folder)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(site: Site, port: int | None) -> None:
    record = {
        "pid": os.getpid(),
        "port": port,
        "socket": site.options.socket,
        "base": site.options.base_path,
        "users": site.options.user_header is not None,
    }
    try:
        files.replace(_record_of(site.folder), json.dumps(record).encode())
    except OSError as error:
        raise SpoolError.from_os("write", _record_of(site.folder), error) from None


def _greet(site: Site, port: int | None, tell: Callable[[str], None], *, open_browser: bool) -> None:
    from queuectl.web.rendering import short_path

    tell(f"serving {short_path(site.root)} (Ctrl+C ends it; jobs and workers do not need it)")
    if site.options.user_header is not None:
        tell(f"users come through the proxy to {site.options.socket}")
        return
    if open_browser and port is not None:
        _open(site, port)
        tell("the browser opens by itself")
        return
    tell(f"open within 10 minutes, once: {address(_record(site.folder), site.links.make())}")


def address(record: dict[str, Any], token: str) -> str:
    """Return the address of a one-time link, for a server with this record."""
    base = record.get("base") or ""
    port = record.get("port")
    return (
        f"http://127.0.0.1:{port}{base}/login?token={token}"
        if port
        else f"http://localhost{base}/login?token={token}"
    )


def link(root: str) -> str:
    """Return another one-time link to the server that runs.

    Raises:
        QueuectlError: none runs, or it knows its users by a proxy.
    """
    layout = Layout(root)
    access.refuse_others(layout, "web --url")
    site = Site(layout.root)
    path = os.path.join(site.folder, "lock")
    lock = Lock.acquire(path) if os.path.exists(path) else None
    if lock is not None:
        lock.release()
    if lock is not None or not os.path.exists(path):
        raise QueuectlError("no server of this spool runs", hint="queuectl web")
    found = _record(site.folder)
    if found.get("users"):
        raise QueuectlError(f"users come through the proxy to {found.get('socket')}, without a link")
    return address(found, site.links.make())


def _open(site: Site, port: int) -> None:
    """Let a browser open the link by a file: the token must not be on a command line, which all users can read."""
    site.links.sweep()
    path = os.path.join(site.folder, f"open-{secrets.token_hex(8)}.html")
    where = escape(address({"port": port, "base": site.options.base_path}, site.links.make()))
    text = f'<!doctype html><meta charset="utf-8"><title>queuectl</title><meta http-equiv="refresh" content="0;url={where}"><a href="{where}">queuectl</a>'
    files.write_new(path, text.encode(), sync=False)
    threading.Thread(target=webbrowser.open, args=(f"file://{path}",), daemon=True).start()
