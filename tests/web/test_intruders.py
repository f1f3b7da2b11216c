"""What another user of the machine, a page elsewhere or a damaged file can try: each was tried once, and got through."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import pytest
import uvicorn
from asgi import HOST, Browser
from uvicorn.server import ServerState

from queuectl import QueuectlError, Spool, SpoolError
from queuectl.system import safe_open
from queuectl.web import app, bulk, listening, logs, server
from queuectl.web.options import Options
from queuectl.web.site import SPOOLS, Site

from support import drop_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SECRET = b'{"command": "x", "env": {"API_TOKEN": "s3cret"}, "priority": 11}'


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """A spool with a waiting job."""
    made = Spool(spool_dir)
    made.enqueue("true", id="a")
    return made


@pytest.fixture
def browser(spool: Spool) -> Browser:
    """A visitor who is logged in."""
    return Browser(spool.layout.root).login()


# -- connections


def connected(site: Site, talk: Callable[[int, list[str]], Awaitable[None]]) -> list[str]:
    """Talk to a server of this process by its port; return what would have been printed about faults."""
    faults: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(str(context)))
        config = uvicorn.Config(app.build(site), lifespan="off", log_config=None, ws="none")
        state = ServerState()
        listens = await loop.create_server(lambda: server._Protocol(config, state, {}), "127.0.0.1", 0)
        try:
            await asyncio.wait_for(talk(listens.sockets[0].getsockname()[1], faults), 60)
        finally:
            listens.close()

    asyncio.run(run())
    return faults


async def answered(port: int, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request that has a body which does not come; return once it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /alive HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
    assert b"204" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def test_a_body_that_nobody_waits_for_holds_no_connection(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 64. The page is answered at once, and a letter now and then would keep its connection for ever."""
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    closed: list[bool] = []

    async def talk(port: int, _: list[str]) -> None:
        reader, writer = await answered(port, b"Content-Length: 1000000")
        until = time.monotonic() + 10
        while not closed and time.monotonic() < until:
            writer.write(b"x")
            try:
                if await asyncio.wait_for(reader.read(1), 0.05) == b"":
                    closed.append(True)
            except ConnectionError:
                closed.append(True)
            except TimeoutError:
                continue  # the connection is still there
        writer.close()

    connected(browser.site, talk)

    assert closed == [True]


def test_those_who_read_a_large_output_slowly_hold_neither_memory_nor_threads(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are threads have read 1 KB of 64 MB: of each output a little is read ahead, and others get pages."""
    record = {"command": "x", "attempts": 1, "history": [{"outcome": "completed", "exit_code": 0}]}
    drop_bytes(spool_dir, "big.json", json.dumps(record).encode(), "done")
    drop_bytes(spool_dir, "big.1.out", b"", "logs")
    os.truncate(spool_dir / "logs" / "big.1.out", 64 << 20)
    Spool(spool_dir).refresh()
    read: list[int] = []
    blocks = logs._blocks

    def counted(*args: Any) -> Iterator[bytes]:
        for block in blocks(*args):
            read.append(len(block))
            yield block

    monkeypatch.setattr(logs, "_blocks", counted)
    readers = SPOOLS + 4

    async def talk(port: int, _: list[str]) -> None:
        loop = asyncio.get_running_loop()
        ask = f"GET %s HTTP/1.1\r\nHost: localhost\r\nCookie: {browser.cookie}\r\n\r\n"
        slow = []
        for _number in range(readers):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await loop.sock_connect(one, ("127.0.0.1", port))
            await loop.sock_sendall(one, (ask % "/job/big/log/file").encode())
            slow.append(one)
        for one in slow:
            assert await loop.sock_recv(one, 1024)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _number in range(3):
            writer.write((ask % "/jobs").encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert b" 200 " in head
            assert length
            await reader.readexactly(int(length[1]))
        writer.close()
        for one in slow:
            one.close()

    connected(browser.site, talk)

    assert max(read) <= logs._PART
    assert sum(read) < readers * (8 << 20)


def test_bytes_that_are_no_http_after_an_answer_print_no_traceback(browser: Browser) -> None:
    """Each user of the machine could fill the terminal of the server with them."""

    async def talk(port: int, _: list[str]) -> None:
        reader, writer = await answered(port, b"Transfer-Encoding: chunked")
        writer.write(b"zz\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    assert connected(browser.site, talk) == []


@pytest.mark.parametrize("cap", [2, 99])
def test_connections_that_send_nothing_keep_nobody_out(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, cap: int
) -> None:
    """Any user of the machine can open so many: the one that has waited longest is closed for the next visitor."""
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    monkeypatch.setattr(server, "MOST_OPEN", cap + 1)

    async def talk(port: int, _: list[str]) -> None:
        idle = []
        for _number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /alive HTTP/1.1\r\nHost: 127.0")
            idle.append((reader, writer))
            await asyncio.sleep(0.01)  # each has waited for another time
        visitors = [await answered(port, b"X: y") for _ in range(4)]
        with suppress(ConnectionError):
            assert await asyncio.wait_for(idle[0][0].read(), 10) == b""
        for _reader, writer in (*idle, *visitors):
            writer.close()

    assert connected(browser.site, talk) == []


def test_connections_beyond_twice_the_limit_are_closed(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a descriptor, and without any left the spool cannot be read. None of these waits for a request."""
    monkeypatch.setattr(server, "MOST_OPEN", 2)
    monkeypatch.setattr(server._Protocol, "_let_one_go", lambda _: False)

    async def talk(port: int, _: list[str]) -> None:
        kept = [await answered(port, b"X: y") for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        for one in (*kept, (reader, writer)):
            one[1].close()

    assert connected(browser.site, talk) == []


def test_a_request_with_two_lengths_is_refused(browser: Browser) -> None:
    """A proxy may believe the one, and the server the other: then what follows is a request that the proxy never saw."""
    form = [("content-type", "application/x-www-form-urlencoded"), ("origin", f"http://{HOST}")]
    both = [*form, ("content-length", "5"), ("transfer-encoding", "chunked")]

    assert browser.ask("POST", "/pause", both, f"token={browser.token}".encode()).status == 400
    assert Spool(browser.site.root).paused() is None


def test_a_form_of_which_the_rest_does_not_come_prints_nothing(
    browser: Browser, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody closed the window while it was sent."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b"token=", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"host": HOST, "origin": f"http://{HOST}", "content-type": "application/x-www-form-urlencoded",
               "cookie": browser.cookie}  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": "/pause", "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def run() -> None:
        await browser.app(scope, receive, send)

    asyncio.run(run())

    assert sent[0]["status"] == 400
    assert capfd.readouterr().err == ""
    assert Spool(browser.site.root).paused() is None


def test_faults_of_the_libraries_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback tells the person at the terminal nothing, and one for a slow download at the end is no fault."""
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
    server._log_in_lines()

    logging.getLogger("uvicorn.error").error("Exception\n", exc_info=ValueError("two\nlines"))
    logging.getLogger("uvicorn.error").error("Exception\n", exc_info=asyncio.CancelledError())
    logging.getLogger("uvicorn.error").error(
        "Exception\n", exc_info=h11.LocalProtocolError("any user sends such")
    )
    logging.getLogger("asyncio").error("no descriptors")

    assert capfd.readouterr().err == ("error: Exception: ValueError: two\\nlines\nerror: no descriptors\n")


# -- links for logging in


def test_guessing_does_not_keep_the_pages_waiting(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends wrong links waits, and nobody else does: there are eight threads."""
    guesses = 3 * SPOOLS
    waiting: list[float] = []
    statuses: list[int] = []
    browser.site.login_pause = 1.0

    async def run() -> None:
        enough = asyncio.Event()

        async def wait(seconds: float) -> None:
            waiting.append(seconds)
            await enough.wait()

        monkeypatch.setattr("queuectl.web.call._pause", wait)
        wrong = [asyncio.create_task(browser._ask("GET", "/login?token=x", [("host", HOST)], b"", 1)) for _ in range(guesses)]  # fmt: skip
        cookie = [("host", HOST), ("cookie", browser.cookie)]
        statuses.append((await asyncio.wait_for(browser._ask("GET", "/jobs", cookie, b"", 1), 30)).status)
        enough.set()
        await asyncio.gather(*wrong)

    asyncio.run(run())

    assert statuses == [200]
    assert waiting == [1.0] * guesses


@pytest.mark.parametrize(("method", "headers"), [("HEAD", {}), ("GET", {"sec-purpose": "prefetch;prerender"}),
                                                 ("GET", {"purpose": "prefetch"})])  # fmt: skip
def test_looking_at_a_link_does_not_use_it_up(browser: Browser, method: str, headers: dict[str, str]) -> None:
    """Chat programs and browsers ask for links that nobody has opened yet."""
    path = f"/login?token={browser.site.links.make()}"

    ahead = browser.ask(method, path, headers.items())

    assert (ahead.status, "set-cookie" in ahead.headers) == (403, False)
    assert browser.get(path).status == 200


def test_links_are_not_made_in_a_folder_of_others(spool: Spool, tmp_path: Path) -> None:
    """A link in the place of the folder would lead them elsewhere, and change the mode of what it leads to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (Path(spool.layout.root) / "data" / "web").symlink_to(elsewhere)

    with pytest.raises(SpoolError, match="is a link"):
        Site(spool.layout.root).make_folder()
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_a_socket_is_not_made_in_a_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He could put another one in its place, whatever its mode."""
    monkeypatch.setattr(safe_open, "has_other_owner", lambda _: True)

    with pytest.raises(QueuectlError, match="of another user"):
        listening.on_path(str(tmp_path / "socket"))
    assert not (tmp_path / "socket").exists()


# -- those who may only look, and servers without new jobs


def test_a_damaged_file_is_not_shown_to_everybody(spool_dir: Path, browser: Browser) -> None:
    """It cannot be masked, as nobody knows what in it is a secret. Only the form that mends it shows it."""
    drop_bytes(spool_dir, "bad.json", SECRET, "dead")
    Spool(spool_dir).refresh()

    for path in ("/dead", "/job/bad", "/part/job/bad", "/jobs"):
        assert "s3cret" not in browser.get(path).text
    assert "priority" in browser.get("/job/bad").text
    assert "Line 1, column 62 of its file" in browser.get("/job/bad").text
    assert "s3cret" in browser.get("/job/bad/edit").text


def test_who_may_only_look_gets_no_form(spool_dir: Path, spool: Spool) -> None:
    """The form of a damaged file would show it as it is."""
    drop_bytes(spool_dir, "bad.json", SECRET, "dead")
    options = Options(
        socket="s", user_header="x-user", allow=frozenset({"ann"}), allow_read=frozenset({"bob"})
    )
    visitor = Browser(spool.layout.root, options)

    for path in ("/new", "/job/a/edit", "/job/bad/edit"):
        assert visitor.ask("GET", path, [("x-user", "ann")]).status == 200
        refused = visitor.ask("GET", path, [("x-user", "bob")])
        assert (refused.status, "s3cret" in refused.text) == (403, False)


def test_no_enqueue_runs_no_rule(spool: Spool) -> None:
    """Its jobs are new ones."""
    spool.add_rule("night", {"cron": "0 2 * * *"}, {"command": "true"})
    visitor = Browser(spool.layout.root, Options(may_enqueue=False)).login()

    assert visitor.post("/rule/night/run").status == 404
    assert "/rule/night/run" not in visitor.get("/rules").text
    assert visitor.post("/rule/night/pause").status == 303
    assert [row.id for row in spool.list()] == ["a"]


# -- many jobs


def test_more_jobs_than_were_shown_are_not_changed(spool: Spool, browser: Browser) -> None:
    """Between the look and the button others came, or somebody changed the filter in the form."""
    form = {"verb": "delete", "list": "/jobs", "filter": "state=pending", "which": "all"}
    assert "Delete 1 job" in browser.post("/bulk", form).text
    spool.enqueue("true", id="b")

    for number in ("1", "", "-1", "x"):
        answer = browser.post("/bulk/go", {**form, "number": number})
        assert (answer.status, "more jobs fit now" in answer.text) == (409, True)
        assert 'name="number" value="2"' in answer.text
    assert spool.counts()["pending"] == 2
    assert browser.site.bulk == {}


def test_the_log_of_actions_names_the_chosen_jobs(spool_dir: Path, browser: Browser) -> None:
    """Afterwards somebody wants to know which they were."""
    form = [("verb", "hold"), ("list", "/jobs"), ("which", "chosen"), ("id", "a"), ("number", "1")]
    assert browser.post("/bulk/go", form).status == 303
    bulk.end_all(browser.site, 10)

    assert (spool_dir / "data/web/actions.log").read_text(encoding="utf-8").endswith(" - hold 1 jobs: a\n")


# -- files in the place of others


def test_a_fifo_in_the_place_of_the_log_of_actions_stops_nothing(
    spool_dir: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opened as a file it would wait for a reader, and all pages with it. What could not be written is printed."""
    os.mkfifo(spool_dir / "data" / "web" / "actions.log")

    assert browser.post("/job/a/hold").status == 303
    assert "hold a" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:40] + b"\xff" * 9 + data[49:]]
)
def test_a_damaged_compressed_output_is_told(
    spool_dir: Path, spool: Spool, damage: Callable[[bytes], bytes]
) -> None:
    """On the page of its job, and at the end of what was saved; the terminal of the server gets no traceback."""
    record = {"id": "z", "command": "x", "attempts": 1, "history": [{"outcome": "failed"}]}
    drop_bytes(spool_dir, "z.json", json.dumps(record).encode(), "done")
    whole = b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(5000))
    drop_bytes(spool_dir, "z.1.out.gz", damage(gzip.compress(whole)), "logs")
    spool.refresh()
    browser = Browser(spool.layout.root).login()

    page = browser.get("/job/z")
    assert page.status == 200
    assert "the compressed output of z is damaged" in page.text


def test_an_answer_that_is_a_file_tells_of_damage_at_its_end(tmp_path: Path) -> None:
    """Its head has been sent by then, so nothing else can."""
    path = tmp_path / "z.gz"
    path.write_bytes(gzip.compress(b"good\n" + os.urandom(200_000))[:-9])

    saved = b"".join(logs._unpacked(str(path)))

    assert saved.startswith(b"good\n")
    assert b"\n[queuectl: the rest of this file is damaged: " in saved


def test_a_look_that_fails_closes_the_pages_and_is_tried_again(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the look at who can write into the spool ended, the spool could be opened later, and nobody would notice."""
    found: list[Any] = [OSError(13, "Permission denied"), SpoolError("gone"), None]
    seen: list[str | None] = []

    class Check:
        def look(self) -> str | None:
            one = found.pop(0)
            if one is not None:
                raise one
            return None

    async def wait(_: float) -> None:
        seen.append(browser.site.refused)
        if not found:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", wait)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(server._watch(browser.site, Check()))  # type: ignore[arg-type]  # it looks as one does

    assert ["Permission denied" in (seen[0] or ""), seen[1], seen[2]] == [True, "gone", None]
