"""The pages in a real browser: they please, they live, they obey the keyboard, and no other site gets at them.

It needs Debian's `chromium`. `QUEUECTL_MUST_BROWSE=1` makes these tests fail without it; else they are skipped.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool

from support import drop_bytes, end_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

    Visit = Callable[..., Page]

pytestmark = pytest.mark.timeout(300)

CHROMIUM = "/usr/bin/chromium"
PATIENCE = 60_000
"""Milliseconds that the browser waits for something: other tests may keep the processors busy."""

PAGES = ["/", "/jobs", "/dead", "/line", "/workers", "/queues", "/batches", "/rules", "/new", "/job/import", "/job/import/edit",
         "/job/broken", "/job/broken/edit", "/job/second", "/job/import/file"]  # fmt: skip
DARK = ["/", "/jobs", "/dead", "/line", "/job/import", "/job/import/edit", "/job/broken/edit"]
"""Of these the colours are looked at in the dark as well: together they have every element that has one."""

WIDTHS = (1400, 800, 360)

WANTED = re.compile(r"status of (401|409|422)|ERR_FAILED")
"""What the browser itself writes of answers that tests ask for: a wrong form, an old session, a server that is away."""

HOSTILE = "\"><script>window.pwned=1</script><img src=x onerror=window.pwned=1>'</textarea>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with jobs in each state."""
    made = tmp_path_factory.mktemp("spool")
    made.chmod(0o700)
    spool = Spool(made)
    spool.enqueue("true", id="first", hold=True, tags=["x", "nightly"])
    spool.enqueue("true", id="second", after=["first"], batch="parts")
    spool.enqueue(f"echo {'long ' * 60}", id="l" + "o" * 62, queue="mail")
    spool.enqueue("x" * 400, id="unbroken", run_at=time.time() + 9000)
    spool.add_rule("night", {"cron": "0 2 * * *"}, {"command": "true"})
    runs = [
        {"outcome": "failed", "exit_code": 65, "error": "Exit code 65", "duration": 1.5, "worker": "worker-0"}
    ]
    record = {
        "command": f"sh import.sh # {HOSTILE}",
        "attempts": 1,
        "last_error": "Exit code 65",
        "exit_code": 65,
        "history": runs,
    }
    now = time.time()
    drop_bytes(
        made,
        "import.json",
        json.dumps({**record, "finished_at": now - 9, "started_at": now - 10}).encode(),
        "dead",
    )
    drop_bytes(made, "import.1.err", f"cat: data.csv: {HOSTILE}\n{'y' * 300}\n".encode(), "logs")
    drop_bytes(
        made,
        "well.json",
        json.dumps({"command": "true", "attempts": 1, "finished_at": now - 30, "duration": 1}).encode(),
        "done",
    )
    drop_bytes(made, "broken.json", b'{"command": "true", "priority": 11}', "dead")
    spool.refresh()
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server of the spool."""
    process = subprocess.Popen(
        [sys.executable, "-m", "queuectl", "--spool", str(folder), "web", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.terminate()
    process.wait(timeout=30)
    assert process.stderr is not None
    process.stderr.close()


@pytest.fixture(scope="module")
def link(folder: Path, server: subprocess.Popen[str]) -> Callable[[], str]:
    """A function that makes a new link to the server."""
    assert server.stderr is not None
    lines = [server.stderr.readline() for _ in range(2)]
    found = re.search(r"(http://127\.0\.0\.1:\d+/login\?token=)", lines[1])
    assert found, lines
    from queuectl.web.site import Site

    links = Site(str(folder)).links
    return lambda: found[1] + links.make()


@pytest.fixture(scope="module")
def chromium(link: object) -> Iterator[Browser]:
    """A browser. A name that leads to this machine is as good as one that another site has bent to it."""
    if not os.path.exists(CHROMIUM):
        if os.environ.get("QUEUECTL_MUST_BROWSE"):
            pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    args = ["--host-resolver-rules=MAP evil.test 127.0.0.1", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        args.append("--no-sandbox")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=args, timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def session(chromium: Browser, link: Callable[[], str]) -> tuple[str, Any]:
    """The beginning of all addresses, and what a browser keeps of a visit: its cookie."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(link())
    page.wait_for_url("**/")
    kept = context.storage_state()
    base = base_of(page)
    context.close()
    return base, kept


@pytest.fixture
def visit(chromium: Browser, session: tuple[str, Any]) -> Iterator[Visit]:
    """A function that opens a page, logged in. What the console says, and a request to elsewhere, fail the test.

    With `stopped_clock` the timers of the page wait for `page.clock.run_for`. The script `before` runs before those of
    the page.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    base, kept = session

    def look(path: str = "/", *, stopped_clock: bool = False, before: str = "", **options: Any) -> Page:
        context = chromium.new_context(storage_state=kept, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(before)
        page = context.new_page()
        page.on("console", lambda message: wrong.extend([message.text] * (not WANTED.search(message.text))))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.extend([] if asked.url.startswith(base) else [asked.url]))
        if stopped_clock:
            page.clock.install()
        page.goto(base + path)
        if stopped_clock:
            page.clock.pause_at(time.time() + 3600)
        return page

    yield look
    for context in contexts:
        context.close()
    assert wrong == []


def base_of(page: Page) -> str:
    return re.match(r"http://[^/]+", page.url)[0]  # type: ignore[index]  # it is one


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_pleases(visit: Visit, scheme: Any) -> None:
    """At each width nothing is wider than the screen; axe finds nothing; no text of a job has become a part of it."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit("/", color_scheme=scheme)
    base = base_of(page)
    shots = os.environ.get("QUEUECTL_SCREENSHOTS")
    is_quick = scheme == "dark" and not shots
    for path in DARK if is_quick else PAGES:
        page.goto(base + path)
        for width in (360,) if is_quick else WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            if width == 360 or path == "/jobs":
                found = Axe().run(page)
                assert found.violations_count == 0, (path, width, found.generate_report()[:3000])
            if shots:
                name = path.strip("/").replace("/", "-") or "overview"
                page.screenshot(path=f"{shots}/{name}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate(
            "window.pwned === undefined && !document.querySelector('main img, main script')"
        ), path


def test_a_link_is_used_once_and_the_cookie_is_hidden(chromium: Browser, link: Callable[[], str]) -> None:
    """From the link to the overview; and the link in another browser says what to type."""
    used = link()
    first, second = chromium.new_context(java_script_enabled=False), chromium.new_context()
    page = first.new_page()
    page.goto(used, timeout=PATIENCE)
    page.wait_for_url("**/", timeout=PATIENCE)
    assert page.locator("h1").inner_text(timeout=PATIENCE) == "Overview"
    [cookie] = first.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")

    other = second.new_page()
    answer = other.goto(used, timeout=PATIENCE)
    assert answer is not None
    assert answer.status == 401
    assert "queuectl web --url" in other.inner_text("main")
    first.close()
    second.close()


def test_another_site_gets_nothing(chromium: Browser, session: tuple[str, Any], folder: Path) -> None:
    """Its form is refused, its frame is empty, its name is not ours; and a link from it leads on by `Continue`."""
    base, kept = session
    context = chromium.new_context(storage_state=kept)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    evil = (
        f'<a href="{base}/jobs">link</a><form method="post" action="{base}/job/first/release"><button>send</button></form>'
        f'<iframe src="{base}/jobs"></iframe><p id="done">there</p>'
    )
    page.route("http://other.test/**", lambda route: route.fulfill(body=evil, content_type="text/html"))

    page.goto("http://other.test/")
    assert "Jobs" not in "".join(
        frame.content() for frame in page.frames[1:] if "other.test" not in frame.url
    )
    with page.expect_response(f"{base}/job/first/release") as answer:
        page.click("button")
    assert answer.value.status in {401, 403}
    assert Spool(folder).row("first").held
    page.goto("http://other.test/")
    page.click("a")
    page.wait_for_url(f"{base}/jobs")
    page.get_by_role("link", name="Continue").click()
    page.wait_for_url(f"{base}/")
    assert page.locator("h1").inner_text() == "Overview"

    rebound = page.goto(base.replace("127.0.0.1", "evil.test") + "/jobs")
    assert rebound is not None
    assert rebound.status == 421
    context.close()


def test_a_job_lives_on_the_page(visit: Visit, folder: Path, tmp_path: Path) -> None:
    """Waiting, running, its output as it grows, the next run, done: without a reload. And lists stand still."""
    jobs = visit("/jobs")
    before = jobs.locator("tbody tr").first.get_attribute("id")
    first, second = tmp_path / "first", tmp_path / "second"
    spool = Spool(folder)
    spool.enqueue(
        f"[ $QUEUECTL_ATTEMPT = 2 ] || {{ echo one; while [ ! -e {first} ]; do sleep 0.05; done; exit 3; }};"
        f"echo two; while [ ! -e {second} ]; do sleep 0.05; done; echo three",
        id="lives", timeout=120, backoff_base=1,
    )  # fmt: skip
    page = visit("/job/lives")
    page.evaluate("window.same = true")
    page.locator(".why li", has_text="no worker runs").wait_for()
    jobs.locator(".newer", has_text="newer").wait_for()
    assert jobs.locator("tbody tr").first.get_attribute("id") == before

    worker = subprocess.Popen([sys.executable, "-m", "queuectl", "--spool", str(folder), "worker", "start", "--foreground"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        page.locator("h1 + .state", has_text="running").wait_for()
        page.locator("#log", has_text="one").wait_for()
        first.touch()
        page.locator("#log", has_text="two").wait_for()
        page.locator("#run option[value='2']").wait_for(state="attached")
        second.touch()
        page.locator("#log", has_text="three").wait_for()
        page.locator("h1 + .state", has_text="done").wait_for()
        assert page.locator("#log").inner_text().split() == ["two", "three"]
        assert page.evaluate("window.same")
        page.locator("#run").select_option("1")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**run=1*")
        assert page.locator("#log").inner_text().split() == ["one"]
    finally:
        worker.terminate()
        worker.wait(timeout=60)
        end_workers(folder)


def flood(folder: Path, runs: int) -> None:
    record = {
        "command": "x",
        "attempts": runs,
        "history": [{"outcome": "completed", "exit_code": 0}] * runs,
    }
    drop_bytes(folder, "flood.json", json.dumps(record).encode(), "done")


def test_output_that_is_written_fast_is_followed_at_its_end(visit: Visit, folder: Path) -> None:
    """Fifty megabytes between two looks: the page leaves most out, says so, and shows the last line. Then another run."""
    flood(folder, 2)
    drop_bytes(folder, "flood.2.out", b"begin\n", "logs")
    page = visit("/job/flood", stopped_clock=True)
    assert page.locator("#log").inner_text() == "begin\n"
    with (folder / "logs" / "flood.2.out").open("ab") as file:
        file.write(b"x" * 25_000_000 + b"\n" + b"line\n" * 5_000_000)
        file.write(b"\x1b[31mred\x1b[0m \xe2\x80\xaeexe\x00<img src=x onerror=window.pwned=1>\xff\n")

    page.clock.run_for(5000)
    page.locator("#log", has_text="not all of the output is shown here").wait_for()
    page.clock.run_for(5000)
    page.locator("#log", has_text="red").wait_for()

    text = page.evaluate("document.getElementById('log').textContent")
    assert text.endswith("line\nred \\u202eexe\\x00<img src=x onerror=window.pwned=1>\ufffd\n")
    assert len(text) < 1 << 20
    assert page.evaluate(
        "window.pwned === undefined && document.getElementById('log').childNodes.length === 1"
    )
    (folder / "logs" / "flood.2.out").unlink()
    drop_bytes(folder, "flood.3.out", b"third\n", "logs")
    flood(folder, 3)
    page.clock.run_for(5000)
    page.locator("#run option[value='3']").wait_for(state="attached")
    page.clock.run_for(5000)
    page.locator("#log", has_text="third").wait_for()
    assert page.locator("#log").inner_text() == "third\n"


def test_what_is_typed_and_where_one_is_survives_updates(visit: Visit, folder: Path) -> None:
    """An update comes while somebody types, has opened something, and has chosen a job."""
    page = visit("/jobs")
    page.locator("summary", has_text="More filters").click()
    page.locator("input[name=id]").first.check()
    page.locator("#f-tag").fill("nightly")
    page.evaluate("document.getElementById('f-tag').setSelectionRange(2, 4)")
    Spool(folder).enqueue_many([{"command": "true", "tags": ["many"]} for _ in range(3)])

    page.locator(".newer", has_text="newer").wait_for()

    assert page.evaluate("[document.activeElement.id, document.activeElement.value, document.activeElement.selectionStart]") == [
        "f-tag", "nightly", 2]  # fmt: skip
    assert page.locator("input[name=id]").first.is_checked()
    assert page.locator("details.more").get_attribute("open") is not None
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?*tag=nightly*")
    assert page.locator("tbody tr").count() == 1
    page.go_back()
    page.locator("tbody tr").nth(1).wait_for()


def dead(folder: Path, job_id: str) -> None:
    record = {"command": "exit 65", "attempts": 1, "last_error": "Exit code 65", "exit_code": 65}
    drop_bytes(folder, f"{job_id}.json", json.dumps(record).encode(), "dead")
    Spool(folder).refresh()


def test_a_dead_job_is_found_changed_and_retried_by_keyboard(visit: Visit, folder: Path) -> None:
    """A letter goes somewhere and never acts; inside a field it is a letter."""
    dead(folder, "bykey")
    page = visit()
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.locator("#help").wait_for(state="hidden")
    page.keyboard.press("d")
    page.wait_for_url("**/dead")
    page.keyboard.press("j")
    page.wait_for_function("() => document.activeElement.textContent === 'bykey'")
    page.keyboard.press("Enter")
    page.wait_for_url("**/job/bykey")
    page.keyboard.press("r")
    page.wait_for_function("() => document.activeElement.textContent === 'Retry'")
    assert Spool(folder).row("bykey").state == "dead"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/edit")
    page.locator("#in-priority").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("7")
    page.locator("#in-command").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("echo ghdlnrc")
    Spool(folder).set("bykey", priority=8)
    page.locator("button", has_text="Save and retry").focus()
    page.keyboard.press("Enter")
    page.locator("#now-priority", has_text="8").wait_for()
    page.locator("button", has_text="Save and retry").focus()
    page.keyboard.press("Enter")
    page.locator("#said", has_text="bykey will run again").wait_for()

    job = Spool(folder).get("bykey")
    assert (job.state, job.command, job.priority) == ("pending", "echo ghdlnrc", 7)


def test_everything_works_without_javascript(visit: Visit, folder: Path) -> None:
    """By forms and links: look, change, retry, take back, change many."""
    for name in ("noscript", "noscript2"):
        dead(folder, name)
    page = visit("/dead", java_script_enabled=False)
    page.locator("#row-noscript").get_by_role("link", name="Change and retry").click()
    page.locator("#in-timeout").fill("soon")
    page.get_by_role("button", name="Save and retry").click()
    page.locator("#fault-timeout", has_text="soon").wait_for()
    page.locator("#in-timeout").fill("90")
    page.get_by_role("button", name="Save and retry").click()
    page.locator("#said", has_text="will run again").wait_for()
    page.get_by_role("button", name="Hold").click()
    page.locator("#said").get_by_role("button", name="Release").click()
    page.locator("#said", has_text="is released").wait_for()
    assert Spool(folder).get("noscript").timeout == 90

    page.goto(f"{base_of(page)}/jobs?command=exit+65&state=dead")
    page.locator("input[value=noscript2]").check()
    page.get_by_role("button", name="The chosen ones").click()
    page.get_by_role("button", name="Retry").click()
    page.locator("p", has_text="1 of 1").wait_for()
    page.goto(f"{base_of(page)}/rules")
    page.get_by_role("button", name="Run now").click()
    page.locator("#said", has_text="the jobs of rule night are queued").wait_for()
    page.get_by_role("link", name="All its jobs").click()
    page.locator("tbody th a").click()
    page.locator("#cancel summary").click()
    page.locator("#cancel .question button").click()
    page.locator("#said", has_text="is cancelled").wait_for()
    page.goto(f"{base_of(page)}/job/import?stream=err")
    assert page.locator("#log").inner_text().startswith("cat: data.csv")


def test_a_page_that_nobody_looks_at_asks_nothing(visit: Visit, folder: Path) -> None:
    """A tab in the background keeps no machine awake; when it is shown it has the news at once."""
    page = visit("/job/first", stopped_clock=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(200):  # a question may be under way while the clock is moved
        page.clock.run_for(2500)
        page.wait_for_timeout(20)
        if asked:
            break
    hide = """(is) => { Object.defineProperty(document, 'hidden', { get: () => is, configurable: true });
        document.dispatchEvent(new Event('visibilitychange')); }"""
    assert asked
    page.evaluate(hide, True)
    asked.clear()

    page.clock.run_for(120_000)
    assert asked == []

    Spool(folder).set("first", priority=9)
    with page.expect_response("**/part/**"):
        page.evaluate(hide, False)
    page.locator(".fields dd", has_text=re.compile("^9$")).wait_for()


def turn(page: Page, wanted: Locator) -> None:
    """Turn the clock of a page on until something is there: a question may be under way while it is moved."""
    for _ in range(100):
        page.clock.run_for(2500)
        page.wait_for_timeout(50)
        if wanted.count() and wanted.first.is_visible():
            return
    wanted.wait_for(timeout=1000)


def test_a_server_that_is_away_is_told_and_comes_back(
    visit: Visit, folder: Path, server: subprocess.Popen[str]
) -> None:
    """It refuses, or it answers nothing, as over a tunnel after a sleep: the page says so, and goes on by itself."""
    page = visit("/jobs", stopped_clock=True)
    title = page.title()
    page.route("**/part/**", lambda route: route.abort())
    turn(page, page.locator("#away", has_text="does not answer"))
    assert page.title() == f"(away) {title}"
    page.unroute("**/part/**")
    turn(page, page.locator("body:not(.away)"))

    server.send_signal(signal.SIGSTOP)
    try:
        turn(page, page.locator("#away"))
        assert page.locator("body.away").count() == 1
        Spool(folder).enqueue("true", tags=["many"])
    finally:
        server.send_signal(signal.SIGCONT)
    turn(page, page.locator(".newer", has_text="newer"))
    assert page.title() == title

    page.context.clear_cookies()
    turn(page, page.locator("main", has_text="queuectl web --url"))


def test_eight_tabs_open(visit: Visit) -> None:
    """No tab holds a connection: a browser has six for one server."""
    page = visit("/jobs")
    tabs = [page.context.new_page() for _ in range(7)]
    for tab in tabs:
        tab.goto(f"{base_of(page)}/batches", wait_until="commit")
    for tab in tabs:
        assert tab.locator("h1").inner_text() == "Batches"


def test_a_field_of_a_new_job_is_checked_when_it_is_left(visit: Visit, folder: Path) -> None:
    """The message stands beside it, and goes when the field is right; then the job is queued."""
    page = visit("/new")
    page.locator("#in-command").fill("echo new")
    page.locator("#in-priority").fill("11")
    page.locator("#in-priority").blur()
    page.locator("#fault-priority", has_text="1 to 10").wait_for()
    page.locator("#in-priority").fill("3")
    page.locator("#in-priority").blur()
    page.locator("#fault-priority").wait_for(state="hidden")
    page.locator("#in-id").fill("typed")
    page.get_by_role("button", name="Queue").click()
    page.locator("#said", has_text="queued job typed").wait_for()
    assert Spool(folder).get("typed").priority == 3


def test_colours_are_chosen_and_kept(visit: Visit) -> None:
    """On this page and the next one, whatever the system says."""
    page = visit("/jobs", color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.colours") == "dark"
    page.goto(f"{base_of(page)}/dead")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.locator("#theme").inner_text() == "Colours: dark"


def test_a_browser_with_a_wrong_clock_and_without_trusted_types_shows_the_same(
    visit: Visit, folder: Path
) -> None:
    """Traps 18 and 21. An age is the server's, so none is negative or in the future; and news comes all the same."""
    wrong = "const real = Date.now; Date.now = () => real() - 9e10; delete window.trustedTypes;"
    # Chromium has both, so its policy is switched off: there is no other way to be as a browser without it.
    page = visit("/job/import", before=wrong, bypass_csp=True)
    assert page.evaluate("window.trustedTypes === undefined && Date.now() < 1.75e12")
    ages = page.locator("main time[data-moment]")
    first = ages.first.inner_text()
    page.wait_for_function(
        "(was) => document.querySelector('main time[data-moment]').textContent !== was", arg=first
    )
    assert all(re.match(r"(\d+[smh] ?)+( ago)?$", text) for text in ages.all_inner_texts())

    Spool(folder).set("import", priority=7)
    page.locator(".fields dd", has_text=re.compile("^7$")).wait_for()
