"""No page elsewhere, no other name and no other method gets an answer from the pages of a spool, or changes anything."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asgi import HOST, Browser

from queuectl import Spool
from queuectl.web import app, guard, rendering, static_files
from queuectl.web.options import Options

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

PATHS = ["/", "/jobs", "/dead", "/line", "/workers", "/queues", "/batches", "/rules", "/new", "/job/a", "/job/a/edit",
         "/job/a/log", "/job/a/log/file", "/job/a/file", "/part/", "/part/jobs", "/part/job/a"]  # fmt: skip


@pytest.fixture
def browser(spool_dir: Path) -> Browser:
    """A visitor who is logged in, of a spool with one job."""
    Spool(spool_dir).enqueue("true", id="a")
    return Browser(spool_dir).login()


@pytest.mark.parametrize(
    "host",
    ["evil.test", "127.0.0.1.evil.test", "127.0.0.1.", "localhost.", "", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:99999",
     "127.0.0.1:8484:1", "[::1", "::1", "127.1", "0.0.0.0:8484", "user@localhost", "localhost/", "127.0.0.1:١", "-"],
)  # fmt: skip
def test_another_name_is_refused_before_anything_else(browser: Browser, host: str) -> None:
    """A page of another site can let its own name lead to 127.0.0.1. Static files are no exception. `-`: no name at all."""
    for path in ("/", "/alive", "/login?token=x", f"/static/{static_files.all_files()['app.css'].name}"):
        assert browser.ask("GET", path, [("host", host.encode().decode("latin-1"))]).status == 421


def test_two_names_are_refused(browser: Browser) -> None:
    """One program would believe the first one, and another the second."""
    assert browser.ask("GET", "/", [("host", HOST), ("host", HOST)]).status == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:9000", "[::1]", "[::1]:80", "127.0.0.1:9000"]
)
def test_the_names_of_this_machine_are_taken_with_any_port(browser: Browser, host: str) -> None:
    """`ssh -L` listens on a port of its own."""
    assert browser.get("/jobs", host=host).status == 200


def test_a_further_name_is_taken_if_it_was_given(spool_dir: Path) -> None:
    """As a proxy has one."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir, Options(host_names=frozenset({"Queue.example"}))).login()

    assert browser.get("/", host="queue.EXAMPLE").status == 200
    assert browser.get("/", host="other.example").status == 421


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/pause"])
def test_every_page_needs_a_session(spool_dir: Path, path: str) -> None:
    """Without a cookie, with a foreign one and with an ended one; the answer says what to type, and nothing of the spool."""
    Spool(spool_dir).enqueue("echo told", id="a")
    browser = Browser(spool_dir).login()
    ended = browser.cookie
    browser.site.sessions.end([ended.partition("=")[2]])
    for cookie in ("", ended, "queuectl=", f"queuectl={'x' * 43}", "other=1; queuectl=\x00"):
        browser.cookie = cookie
        answer = browser.get(path)
        assert (answer.status, "queuectl web --url" in answer.text, "told" in answer.text) == (
            401,
            True,
            False,
        )
        assert str(spool_dir) not in answer.text


def test_every_route_is_known_to_these_tests(browser: Browser) -> None:
    """A new one must be tried by them, too."""
    read, done = app.tables(browser.site)
    inside = {
        path.replace("{id}", "a") for path in read if not path.startswith("/part/") and "{number}" not in path
    }

    assert inside == {path for path in PATHS if not path.startswith("/part/")}
    assert all(
        browser.get(re.sub(r"{\w+}", "a", path)).status in {404, 405} for path in done if path not in read
    )


def test_an_acting_route_does_nothing_by_get(browser: Browser) -> None:
    """A browser fetches links before anybody clicks them."""
    assert browser.get("/job/a/delete").status == 405
    assert browser.get("/pause").status == 405
    assert browser.site.root
    assert Spool(browser.site.root).counts()["pending"] == 1


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.test"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"}, {"origin": "http://127.0.0.1"},
     {"origin": f"http://{HOST}.evil.test"}, {"origin": f"ftp://{HOST}"}, {"origin": ""},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"}],
)  # fmt: skip
def test_a_form_of_another_site_changes_nothing(browser: Browser, headers: dict[str, str]) -> None:
    """Whatever cookie the browser sends along."""
    answer = browser.post("/job/a/hold", {}, **headers)

    assert answer.status == 403
    assert not Spool(browser.site.root).row("a").held


def test_a_form_without_origin_or_token_changes_nothing(browser: Browser) -> None:
    """Each of the three checks stands for itself."""
    fields = f"token={browser.token}".encode()
    kind = ("content-type", "application/x-www-form-urlencoded")
    origin = ("origin", f"http://{HOST}")

    assert browser.ask("POST", "/job/a/hold", [kind], fields).status == 403
    assert browser.ask("POST", "/job/a/hold", [kind, origin], b"").status == 403
    assert browser.ask("POST", "/job/a/hold", [kind, origin], b"token=x").status == 403
    assert browser.ask("POST", "/job/a/hold", [kind, origin], fields + b"&" + fields).status == 403
    assert browser.ask("POST", "/job/a/hold", [("content-type", "text/plain"), origin], fields).status == 400
    assert not Spool(browser.site.root).row("a").held
    assert browser.ask("POST", "/job/a/hold", [kind, origin], fields).status == 303
    assert Spool(browser.site.root).row("a").held


def test_the_token_of_another_session_is_refused(browser: Browser) -> None:
    """It is not enough to have been here once."""
    other = Browser(browser.site.root, site=browser.site).login()
    form = f"token={other.token}".encode()
    kind = ("content-type", "application/x-www-form-urlencoded")

    assert browser.ask("POST", "/job/a/hold", [kind, ("origin", f"http://{HOST}")], form).status == 403


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused_and_no_other_site_is_let_in(browser: Browser, method: str) -> None:
    """No answer has a header of CORS."""
    answer = browser.ask(
        method, "/jobs", [("origin", "http://evil.test"), ("access-control-request-method", "POST")]
    )

    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", [*PATHS, "/login", "/alive", "/nothing", "/static/nothing", "/job/..%2f", "/jobs?state=x"]
)
def test_every_answer_has_the_headers(browser: Browser, path: str) -> None:
    """Also errors, and answers to people who are not logged in."""
    for cookie in (browser.cookie, ""):
        browser.cookie = cookie
        headers = browser.get(path).headers
        assert {name: headers.get(name.lower()) for name in guard.HEADERS} == guard.HEADERS
    assert "'unsafe" not in guard.CSP
    assert "http" not in guard.CSP


def test_refusals_have_the_headers_too(browser: Browser) -> None:
    """A frame of another site shows nothing of them."""
    for answer in (
        browser.get("/", host="evil.test"),
        browser.ask("PUT", "/"),
        browser.post("/pause", origin="http://x"),
    ):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"] == guard.CSP


def test_templates_hold_no_script_and_no_style() -> None:
    """The policy would stop them; and each attribute is in quotes, or a job's text could add another one."""
    for path in Path(rendering.FOLDER).glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son[a-z]+\s*=|javascript:|\|\s*safe|Markup", text
        ), path
        assert not re.search(r"\s[a-z-]+={{", text), path


def test_the_script_makes_no_markup_of_text() -> None:
    """What comes in is compared with the page element by element, and output is one text."""
    script = (Path(rendering.FOLDER).parent / "static" / "app.js").read_text(encoding="utf-8")

    assert not re.search(
        r"innerHTML\s*=|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script
    )
    assert script.count("createHTML(") == 1


def test_each_page_is_a_plain_function() -> None:
    """It waits for the disk: an asynchronous one would let all other tabs wait with it."""
    pages = [
        *app.OPEN.values(),
        *app.SHOWN.values(),
        *app.READ.values(),
        *app.DONE.values(),
        *app.ENQUEUED.values(),
    ]

    assert not [page for page in pages if inspect.iscoroutinefunction(page)]


def test_markup_is_made_in_one_place() -> None:
    """Everywhere else a text is escaped, whatever it is."""
    folder = Path(rendering.FOLDER).parent
    makers = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"\bMarkup\(", path.read_text(encoding="utf-8"))
    }

    assert makers == {"plots.py"}


def test_too_much_is_refused(browser: Browser) -> None:
    """A query, headers, a form, with a length that is told and one that is not."""
    big = b"x" * (guard.LARGEST_BODY + 1)
    kind = [("content-type", "application/x-www-form-urlencoded"), ("origin", f"http://{HOST}")]

    assert browser.get(f"/jobs?command={'x' * 9000}").status == 414
    assert browser.get("/jobs", x="y" * 17_000).status == 431
    assert browser.ask("POST", "/new", [*kind, ("content-length", str(len(big)))], big).status == 413
    assert browser.ask("POST", "/new", [*kind, ("content-length", "9" * 30)], b"").status == 413
    assert browser.ask("POST", "/new", [*kind, ("content-length", "-1")], b"").status == 413
    assert browser.ask("POST", "/new", kind, big, parts=20).status == 413
    assert browser.ask("POST", "/new", kind, b"&".join([b"a=1"] * 3000)).status == 400
    assert browser.ask("POST", "/new", kind, b"command=%ff&token=" + browser.token.encode()).status == 400
    assert browser.ask("POST", "/new", [("content-type", "application/json"), kind[1]], b"{}").status == 400
    assert Spool(browser.site.root).counts()["pending"] == 1


def test_a_form_that_does_not_arrive_is_given_up(browser: Browser) -> None:
    """A client that sends a byte a minute holds no thread."""
    sent: list[Message] = []
    asked: list[bool] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        if asked:
            await asyncio.sleep(3600)
        asked.append(True)
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def reader(_scope: Scope, take: Receive, _send: Send) -> None:
        while True:
            await take()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", HOST.encode())],
    }
    asyncio.run(guard.Guard(reader, Options(), patience=0.05)(scope, receive, send))

    assert sent[0]["status"] == 408


def test_pages_below_a_base_path(spool_dir: Path) -> None:
    """All links and the cookie have it; what is not below it is not there."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir, Options(base_path="/queue"))
    answer = browser.get(f"/queue/login?token={browser.site.links.make()}")
    browser.cookie = answer.headers["set-cookie"].partition(";")[0]
    page = browser.get("/queue/jobs")

    assert "Path=/queue" in answer.headers["set-cookie"]
    assert page.status == 200
    assert not [
        link
        for link in re.findall(r'(?:href|action|src|data-part)="([^"]*)"', page.text)
        if not link.startswith(("/queue/", "#"))
    ]
    assert browser.get("/jobs").status == browser.get("/queuejobs").status == 404
    assert browser.post("/queue/job/a/hold").headers["location"].startswith("/queue/job/a?")


def test_read_only_has_no_route_and_no_form_that_changes_anything(spool_dir: Path) -> None:
    """They are not there, rather than forbidden."""
    Spool(spool_dir).enqueue("true", id="a")
    browser = Browser(spool_dir, Options(read_only=True)).login()
    everything = app.tables(Browser(spool_dir).site)[1]

    for path in [path.replace("{id}", "a") for path in everything if path != "/logout"]:
        assert browser.post(path).status in {404, 405}, path
    for path in ("/", "/jobs", "/dead", "/line", "/queues", "/rules", "/job/a"):
        assert re.findall(r'method="post" action="([^"]*)"', browser.get(path).text) == ["/logout"]
    assert browser.get("/new").status == browser.get("/job/a/edit").status == 404
    assert "read-only" in browser.get("/").text
    assert browser.post("/logout").status == 200


def test_without_enqueueing_no_command_comes_in(spool_dir: Path) -> None:
    """No new job, no text of a file, and no field that decides which program runs."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    (spool_dir / "dead" / "bad.json").write_text("{", encoding="utf-8")
    browser = Browser(spool_dir, Options(may_enqueue=False)).login()
    mark = re.findall(r'name="mark" value="(\w+)"', browser.get("/job/a/edit").text)[0]

    assert browser.get("/new").status == browser.post("/new", {"command": "id"}).status == 404
    assert browser.post("/check", {"command": "id"}).status == 404
    assert browser.post("/job/bad/edit", {"text": "{}"}).status == 405
    assert browser.get("/job/bad/edit").status == 403
    for field in ("command", "cwd", "env"):
        assert f'name="{field}"' not in browser.get("/job/a/edit").text
        assert browser.post("/job/a/set", {field: "x=1", "mark": mark}).status == 400
    assert browser.post("/job/a/set", {"priority": "7", "mark": mark}).status == 303
    assert (spool.get("a").command, spool.get("a").priority) == ("true", 7)
