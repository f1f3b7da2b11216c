"""The pages say what is so: of every state, of nothing at all, of what is damaged; and no job's text becomes markup."""

from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from asgi import Browser, shown

from queuectl import Spool
from queuectl.control import dispatched
from queuectl.web import text

from support import drop, drop_bytes, wait_until

if TYPE_CHECKING:
    from pathlib import Path

LISTS = ["/", "/jobs", "/dead", "/line", "/workers", "/queues", "/batches", "/rules"]
PAYLOADS = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    '"><svg onload=pwned=1>',
    "' onmouseover='pwned=1",
    "</textarea><script>pwned=1</script>",
    "</title></style></script><script>pwned=1</script>",
    "javascript:pwned=1",
    "{{ 7*191 }}{% for x in y %}",
    "&lt;script&gt;&#60;b&#62;",
    "<!--", "-->", "]]>", "<b", "`${pwned=1}`",
    "a\u202eb\u200bc\x1b[31mred\x1b[0m\x07",
]  # fmt: skip


class Elements(HTMLParser):
    """The tags and attributes of a page, as a browser reads them."""

    found: list[tuple[str, dict[str, str | None]]]

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.append((tag, dict(attrs)))


def refuse_markup(html: str) -> None:
    """Fail if a page has an element or an attribute that no template has."""
    for tag, attributes in Elements(html).found:
        assert tag not in {"img", "iframe", "object", "embed", "style", "base", "b", "marquee"}, tag
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in {"href", "action", "src", "formaction"}:
                assert (value or "").startswith(("/", "#")), (tag, name, value)
                assert not (value or "").startswith("//")
    fields = re.sub(
        r"(?s)<textarea[^>]*>.*?</textarea>|<input[^>]*>", "", html
    )  # they hold what is there, exactly
    assert not {"\u202e", "\u200b", "\x1b"} & set(fields)


@pytest.fixture
def browser(spool_dir: Path) -> Browser:
    """A visitor of a spool that is there and has no jobs."""
    Spool(spool_dir).refresh()
    return Browser(spool_dir).login()


def test_empty_pages_say_what_to_do_next(browser: Browser) -> None:
    """No job, no worker, no rule yet: a sentence, and no empty table."""
    for path in LISTS:
        page = browser.get(path)
        assert page.status == 200
        assert '<table class="jobs"' not in page.text
        assert 'class="empty"' in page.text


def hostile(text: str, **more: Any) -> dict[str, Any]:
    return {
        "command": f"echo {text}", "cwd": f"/{text}", "env": {text.replace("=", "-") or "x": text}, "unique": text,
        "extra": text, text: text, "nested": {text: [text]}, "last_error": text, "worker": text, "output": text,
        "not_run": text, "source": text, "history": [{"outcome": text, "error": text, "worker": text, "run": 1}], **more,
    }  # fmt: skip


@pytest.mark.parametrize("text", [" ".join(PAYLOADS[at::4]) for at in range(4)], ids=range(4))
def test_no_text_of_a_job_becomes_markup(spool_dir: Path, browser: Browser, text: str) -> None:
    """In every field of dropped files, in the name of a file, in output, in reasons, in a rule, in the address."""
    drop(spool_dir, "wait", **hostile(text))
    drop(spool_dir, "held", **hostile(text, hold=True))
    for folder, job_id in (("done", "well"), ("dead", "bad")):
        drop_bytes(spool_dir, f"{job_id}.json", json.dumps(hostile(text, attempts=1)).encode(), folder)
        drop_bytes(spool_dir, f"{job_id}.1.out", text.encode() * 3, "logs")
    drop_bytes(spool_dir, "none.json", text.encode(), "dead")
    (spool_dir / "paused").write_text(text, encoding="utf-8")
    (spool_dir / "rules").mkdir(exist_ok=True, mode=0o700)
    (spool_dir / "rules" / "r.yaml").write_text(
        f"when: {{cron: {json.dumps(text)}}}\njob: {{command: x}}\n", encoding="utf-8"
    )
    (spool_dir / "config.yaml").write_text(f"{json.dumps(text)}: 1\n", encoding="utf-8")

    from urllib.parse import quote

    paths = [*LISTS, *(f"/job/{one}" for one in ("wait", "held", "well", "bad", "none")), "/job/bad/edit", "/job/none/edit",
             f"/jobs?command={quote(text)}", f"/dead?reason={quote(text)}", f"/jobs?{quote(text)}=1", f"/jobs?said={quote(text)}",
             f"/job/{quote(text, safe='')}", f"/{quote(text, safe='')}", f"/jobs?q={quote(text)}"]  # fmt: skip
    for path in paths:
        answer = browser.get(path)
        assert answer.status < 500, path
        if answer.status != 303:
            refuse_markup(answer.text)
    assert text[:5] in shown(browser.get("/job/well").text) or not text.isprintable()
    log = browser.get("/job/well/log")
    assert log.headers["content-type"] == "application/json"
    assert browser.get("/job/well/log/file").headers["content-type"] == "text/plain; charset=utf-8"


def test_what_cannot_be_seen_is_marked(spool_dir: Path, browser: Browser) -> None:
    """A text that runs backwards, a NUL and colours: as numbers in fields, colours taken out of output."""
    drop(spool_dir, "a", command="echo \u202etxt.exe")
    record = {"command": "x", "attempts": 1, "history": [{"outcome": "succeeded"}]}
    drop_bytes(spool_dir, "b.json", json.dumps(record).encode(), "done")
    drop_bytes(spool_dir, "b.1.out", b"\x1b[1;31mred\x1b[0m \x00 \x1b]0;title\x07after\rover\r\n", "logs")

    assert "\\u202etxt.exe" in browser.get("/job/a").text
    assert browser.get("/job/b/log").json["text"] == "red \\x00 after\nover\n"
    assert browser.get("/job/b/log/file").body.startswith(b"\x1b[1;31mred")


def test_secrets_are_masked_on_every_page_but_the_file(spool_dir: Path, browser: Browser) -> None:
    """The file is shown after a question only, by a form, and that is noted."""
    spool = Spool(spool_dir)
    spool.enqueue(
        {
            "command": "true",
            "id": "a",
            "env": {"API_TOKEN": "s3cret", "URL": "http://u:s3cret@h/"},
            "password": "s3cret",
        }
    )

    for path in (*LISTS, "/job/a", "/job/a/edit", "/job/a/file", "/part/job/a"):
        assert "s3cret" not in browser.get(path).text
    assert "API_TOKEN=***" in browser.get("/job/a").text
    answer = browser.post("/job/a/file")
    assert "s3cret" in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    browser.post("/job/a/set", {"env": "API_TOKEN=n3w", "mark": "x"})
    log = (spool_dir / "data" / "web" / "actions.log").read_text(encoding="utf-8")
    assert "file a" in log
    assert not [word for word in ("s3cret", "n3w") if word in log]


def test_a_job_says_why_it_is_as_it_is(spool_dir: Path, browser: Browser) -> None:
    """A dead one its reason and the end of its output; a waiting one what it waits for, with links."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="first", hold=True)
    spool.enqueue("true", id="second", after=["first"], batch="parts")
    record = {"command": "sh import.sh", "attempts": 1, "last_error": "Exit code 65", "exit_code": 65,
              "history": [{"outcome": "failed", "exit_code": 65}]}  # fmt: skip
    drop_bytes(spool_dir, "import.json", json.dumps(record).encode(), "dead")
    drop_bytes(spool_dir, "import.1.err", b"cat: data.csv: No such file\n", "logs")

    page = browser.get("/dead").text
    assert "cat: data.csv: No such file" in page
    assert re.search(r'<strong>1</strong> <a href="/dead\?reason=Exit\+code\+65">', page)
    assert "cat: data.csv" in browser.get("/job/import").text
    page = browser.get("/job/second").text
    assert "it waits for first" in page
    assert 'href="/job/first"' in page
    assert 'href="/jobs?batch=parts"' in page
    assert 'href="/job/second"' in browser.get("/job/first").text
    line = shown(browser.get("/line").text)
    assert "first true 5 held" in line
    assert "second true 5 for other jobs" in line
    assert "parts 1 0 0 0" in shown(browser.get("/batches").text)


def test_the_line_and_what_is_not_in_it_yet_are_all_that_wait(spool_dir: Path, browser: Browser) -> None:
    """However many wait: a held job behind a hundred others, and one whose moment has come while no worker runs."""
    spool = Spool(spool_dir)
    spool.enqueue_many([{"command": "true", "id": f"a{number}"} for number in range(100)])
    spool.enqueue("true", id="held", hold=True)
    spool.enqueue("true", id="later", run_at=time.time() + 3600)
    spool.enqueue("true", id="come", run_at=(moment := time.time() + 0.05))
    wait_until(lambda: time.time() > moment)

    line = browser.get("/line").text

    assert line.count('<tr id="row-a') == 50
    assert {name for name in ("held", "later", "come") if f'id="row-{name}"' in line} == {
        "held",
        "later",
        "come",
    }


def test_overview_counts_and_names_what_runs(spool_dir: Path, browser: Browser) -> None:
    """Every state, the pause with a button, what ended last, and how it went."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="wait")
    now = time.time()
    record = {
        "command": "true",
        "attempts": 1,
        "created_at": now - 5,
        "started_at": now - 3,
        "finished_at": now - 1,
        "duration": 2,
    }
    drop_bytes(spool_dir, "well.json", json.dumps(record).encode(), "done")
    drop_bytes(spool_dir, "bad.json", json.dumps({**record, "last_error": "Exit code 1"}).encode(), "dead")
    spool.pause("deploy", patience=0)

    text = shown(browser.get("/").text)

    assert "1 ◌ waiting 0 ● running 0 ↻ failed 1 ✔ done 1 ✖ dead" in text
    assert "1 done, 1 dead." in text
    assert "ran 2.0s" in text
    assert text.count("the spool is paused since") == 1
    assert "deploy" in text
    assert "No worker runs" in text
    assert browser.get("/?plot=day").status == 200


def test_lists_are_read_in_parts_and_stand_still(spool_dir: Path, browser: Browser) -> None:
    """Forward and back; what comes meanwhile is counted, and moves no row."""
    spool = Spool(spool_dir)
    spool.enqueue_many([{"command": "true", "id": f"a{number}"} for number in range(120)])

    def rows(html: str) -> list[str]:
        return re.findall(r'<tr id="row-(\w+)"', html)

    first = browser.get("/jobs").text
    older = re.findall(r'href="(/jobs\?after=\d+)" rel="next"', first)[0]
    second = browser.get(older).text
    back = re.findall(r'href="(/jobs\?before=\d+)" rel="prev"', second)[0]
    assert rows(first) == [f"a{number}" for number in range(119, 69, -1)]
    assert rows(second) == [f"a{number}" for number in range(69, 19, -1)]
    assert rows(browser.get(back).text) == rows(first)
    part = re.findall(r'data-part="([^"]*)"', first)[0].replace("&amp;", "&")
    spool.enqueue_many([{"command": "true", "id": f"b{number}"} for number in range(7)])
    again = browser.get(part).text
    assert rows(again) == rows(first)
    assert "7 newer" in again
    assert "<!doctype" not in again


def test_filters_are_in_the_address_and_are_those_of_the_commands(spool_dir: Path, browser: Browser) -> None:
    """A tag, a queue, a text, a time in words."""
    spool = Spool(spool_dir)
    spool.enqueue("echo red", id="a", tags=["x", "y"], queue="mail")
    spool.enqueue("echo blue", id="b", tags=["x"])

    for query, found in (("tag=x+y", ["a"]), ("queue=mail", ["a"]), ("command=BLUE", ["b"]), ("since=1d", ["b", "a"]),
                         ("until=1d", []), ("state=done", []), ("held=no", ["b", "a"]), ("tag=x&sort=arrived", ["a", "b"])):  # fmt: skip
        page = browser.get(f"/jobs?{query}")
        assert re.findall(r'<tr id="row-(\w+)"', page.text) == found, query
    assert browser.get("/jobs?q=b").headers["location"] == "/job/b"
    assert browser.get("/jobs?q=echo+r&tag=x").headers["location"] == "/jobs?tag=x&command=echo+r"


@pytest.mark.parametrize(
    "query",
    ["state=xyz", "before=-1", "before=1e9", "before=1&before=2", "before=1&after=2", "since=soon", "sort=priority", "exit=x", "held=maybe",
     "nothing=1", "tag=%00", "after=1.2", "after=" + "9" * 40, "command=" + "x" * 1001, "state=dead&state=dead", "at=x"],
)  # fmt: skip
def test_a_wrong_address_is_one_line_on_its_page(browser: Browser, query: str) -> None:
    """With the form to mend it."""
    answer = browser.get(f"/jobs?{query}")

    assert answer.status == 400
    assert 'role="alert"' in answer.text
    assert 'role="search"' in answer.text


@pytest.mark.parametrize(
    "path", ["/job/..%2fconfig.yaml", "/job/%00", "/job/..", "/job/" + "a" * 65, "/job/nothing", "/job/a%2f..%2fb", "/static/..%2fapp.py",
             "/static/app.css", "/static/", "/job/nothing/log", "/job/nothing/log/file", "/part/job/nothing", "/bulk/1", "/bulk/x"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(browser: Browser, path: str) -> None:
    """Nothing of a path comes from the browser."""
    assert browser.get(path).status == 404


def test_a_part_that_has_not_changed_is_not_sent_again(spool_dir: Path, browser: Browser) -> None:
    """A page that is looked at costs a few `stat` calls; a change is seen at once."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")

    def again() -> str | None:
        mark = browser.get("/part/jobs").headers.get("etag")
        return (
            mark
            if mark and browser.ask("GET", "/part/jobs", [("if-none-match", mark)]).status == 304
            else None
        )

    mark = wait_until(again)
    assert mark is not None
    spool.enqueue("true", id="b")

    answer = browser.ask("GET", "/part/jobs", [("if-none-match", mark)])

    assert answer.status == 200
    assert "row-b" in answer.text


def test_a_spool_that_goes_and_comes_back(spool_dir: Path, browser: Browser) -> None:
    """One line meanwhile; and no folder is made in its place."""
    Spool(spool_dir).enqueue("true", id="a")
    shutil.move(spool_dir, f"{spool_dir}.away")

    answer = browser.get("/jobs")
    assert answer.status == 503
    assert "there is no spool" in answer.text
    assert not spool_dir.exists()
    shutil.move(f"{spool_dir}.away", spool_dir)
    assert "row-a" in browser.get("/jobs").text


def test_a_damaged_index_is_made_anew(spool_dir: Path, browser: Browser) -> None:
    """Nobody who looks has to know that there is one."""
    Spool(spool_dir).enqueue("true", id="a")
    browser.site.close()
    (spool_dir / "data" / "queuectl.db").write_bytes(b"x" * 10_000)

    assert "row-a" in browser.get("/jobs").text


def test_a_fault_of_ours_is_one_line(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no traceback goes to the browser."""

    def fail(_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Spool, "notes", fail)
    answer = browser.get("/jobs")

    assert answer.status == 500
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert capsys.readouterr().err.count("\n") == 1


def test_queues_and_rules_are_shown_with_what_is_wrong(spool_dir: Path, browser: Browser) -> None:
    """A limit, a pause, a rule that cannot be used."""
    spool = Spool(spool_dir)
    spool.set_queue("mail", limit=2)
    spool.enqueue("true", id="a", queue="mail")
    spool.add_rule("night", {"cron": "0 2 * * *"}, {"command": "true"})
    (spool_dir / "rules" / "odd.yaml").write_text(
        "when: {cron: never}\njob: {command: x}\n", encoding="utf-8"
    )

    assert "mail 1" in shown(browser.get("/queues").text)
    assert "2 at a time" in browser.get("/queues").text
    rules = shown(browser.get("/rules").text)
    assert "at 02:00 every day" in rules
    assert "odd" in rules
    assert 'class="state state-dead"' in browser.get("/rules").text


def test_what_takes_long_is_counted_once_for_all_tabs(browser: Browser) -> None:
    """And again when it is old; what many addresses have asked for is not kept for ever."""
    asked: list[str] = []

    def count() -> int:
        asked.append("")
        return len(asked)

    site = browser.site
    assert [site.lately("a", life, count)[0] for life in (3600, 3600, -1)] == [1, 1, 2]
    for number in range(500):
        site.lately(str(number), 3600, count)
    assert len(site._counted) <= 201


def test_jobs_of_a_cluster_say_where_they_are(spool_dir: Path) -> None:
    """The node and the cluster's number of what runs, the cluster's reason for what waits there; and a filter for them."""
    spool = Spool(spool_dir)
    spool.set_queue("gpu", engine="slurm")
    spool.enqueue("true", id="here")
    drop_bytes(spool_dir, "later.json", b'{"command": "true", "queue": "gpu"}')
    for name in ("runs", "waits"):
        drop_bytes(spool_dir, f"{name}.json", b'{"command": "true", "queue": "gpu"}', "processing/slurm")
    (spool_dir / "data" / "workers").mkdir(exist_ok=True)
    dispatched.write(spool.layout, "slurm", {"runs": dispatched.RunThere("n7", "41_2", "", 1.0)})
    dispatched.write_waiting(spool.layout, "slurm", [(dispatched.WaitThere("43", "AssocMax<b>"), ["waits"])])
    spool.refresh()
    browser = Browser(spool_dir).login()

    text = shown(browser.get("/jobs?engine=slurm").text)
    assert "on slurm , job 41_2, node n7" in text
    assert "on slurm , job 43, waits there: AssocMax<b>" in text
    assert "row-here" not in browser.get("/jobs?engine=slurm").text
    assert "row-later" in browser.get("/jobs?engine=slurm").text
    assert "node n7" in shown(browser.get("/job/runs").text)
    assert "waits there: AssocMax<b>" in shown(browser.get("/job/waits").text)
    assert "no dispatcher of slurm runs" in shown(browser.get("/queues").text)


def test_a_text_that_is_cut_says_so(spool_dir: Path, browser: Browser) -> None:
    """A command of four lines looks like one of three else. And a field is written as in the file."""
    assert text.cut("a\nb\nc") == "a b c"
    assert text.cut("a\nb\nc\nd") == "a b c…"
    assert text.cut("x" * 121) == "x" * 119 + "…"
    Spool(spool_dir).enqueue("true", id="held", hold=True)
    assert "hold true" in shown(browser.get("/job/held").text)
