"""The buttons do what the commands do, once, to the job that is meant; and what cannot be done is said on its page."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from asgi import Browser, shown

from queuectl import Filter, Spool
from queuectl.web import bulk

from support import drop_bytes, wait_until, where_is


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """A spool with a waiting job `wait` and a dead one `bad`."""
    made = Spool(spool_dir)
    made.enqueue("true", id="wait", env={"API_TOKEN": "s3cret", "MODE": "a"}, tags=["x"])
    dead(spool_dir, "bad")
    return made


@pytest.fixture
def browser(spool: Spool) -> Browser:
    """A visitor who is logged in."""
    return Browser(spool.layout.root).login()


def dead(folder: Path, job_id: str, **more: Any) -> None:
    record = {
        "id": job_id,
        "command": "exit 65",
        "attempts": 1,
        "last_error": "Exit code 65",
        "exit_code": 65,
        **more,
    }
    drop_bytes(folder, f"{job_id}.json", json.dumps(record).encode(), "dead")


def mark_of(browser: Browser, job_id: str) -> str:
    found = re.search(r'name="mark" value="(\w+)"', browser.get(f"/job/{job_id}/edit").text)
    assert found
    return found[1]


def actions(folder: Path) -> list[str]:
    return [
        line.split(" ", 2)[2]
        for line in (folder / "data/web/actions.log").read_text(encoding="utf-8").splitlines()
    ]


def test_a_job_is_held_released_retried_cancelled_and_deleted(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """Each goes back to a page that says what happened, and is noted."""
    for path, said, state in (
        ("/job/wait/hold", "wait is held", "release"),
        ("/job/wait/release", "wait is released", "worker"),
        ("/job/bad/retry", "bad will run again", "worker"),
        ("/job/wait/cancel", "wait is cancelled", None),
        ("/job/wait/delete", "wait is deleted", None),
    ):
        assert said in shown(browser.follow(browser.post(path)).text)
        job_id = path.split("/")[2]
        assert [row.waits_for for row in spool.rows([job_id]).values()] == (
            [] if path.endswith("delete") else [state]
        )

    assert actions(spool_dir) == ["hold wait", "release wait", "retry bad", "cancel wait", "delete wait"]


def test_an_action_can_be_taken_back(spool: Spool, browser: Browser) -> None:
    """Beside what was done is the button of its opposite."""
    page = browser.follow(browser.post("/job/wait/hold")).text
    undo = page[page.index('id="said"') : page.index("</form>", page.index('id="said"'))]

    assert 'action="/job/wait/release"' in undo
    for _ in range(2):  # a second time changes nothing
        assert 'action="/resume"' in browser.follow(browser.post("/pause", {"reason": "deploy"})).text
    assert "deploy" in str(spool.paused())
    browser.post("/resume")
    assert spool.paused() is None


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/job/wait/retry", "is pending"),
        ("/job/bad/cancel", "is dead"),
        ("/job/bad/hold", "is dead"),
        ("/job/bad/release", "is dead"),
    ],
)
def test_what_cannot_be_done_is_said_on_the_page_of_the_job(browser: Browser, path: str, line: str) -> None:
    """In one line, with the status 409, and nothing has changed."""
    answer = browser.post(path)

    assert answer.status == 409
    assert line in re.findall(r'role="alert" id="problem"><p>(.*?)</p>', answer.text)[0]
    assert "<h1>" in answer.text


def test_each_button_of_the_line_acts_and_leads_back_to_it(spool: Spool, browser: Browser) -> None:
    """They share one form: each says by itself where it goes."""
    page = browser.get("/line").text
    buttons = re.findall(r'formaction="([^"]*)"', page)
    hidden = dict(
        re.findall(
            r'<input type="hidden" name="(back|token)" value="([^"]*)"', page[page.index("<table") - 300 :]
        )
    )

    assert buttons == ["/job/wait/hold", "/job/wait/cancel"]
    assert hidden == {"token": browser.token, "back": "/line"}
    assert (
        browser.post(buttons[0], {"back": hidden["back"]}).headers["location"] == "/line?said=held&about=wait"
    )
    assert 'formaction="/job/wait/release"' in browser.get("/line").text
    browser.post(buttons[1], {"back": "/line"})
    assert spool.row("wait").state == "dead"


def test_back_leads_to_our_lists_only(browser: Browser) -> None:
    """A form that was made elsewhere sends nobody away."""
    assert (
        browser.post("/job/wait/hold", {"back": "/line"}).headers["location"] == "/line?said=held&about=wait"
    )
    for back in ("//evil.test", "https://evil.test", "/job/x"):
        assert browser.post("/job/wait/hold", {"back": back}).headers["location"].startswith("/job/wait?")


def test_a_job_that_is_gone_is_not_found(browser: Browser) -> None:
    """And a path is no id."""
    assert [browser.post(f"/job/{one}/retry").status for one in ("none", "..%2fconfig", "%00", "a" * 65)] == [
        404
    ] * 4


def test_queues_and_rules_are_paused_and_run(spool: Spool, browser: Browser) -> None:
    """By the buttons beside them."""
    spool.enqueue("true", id="a", queue="mail")
    spool.add_rule("night", {"cron": "0 2 * * *"}, {"command": "true"})

    assert browser.follow(browser.post("/queue/mail/pause")).status == 200
    assert spool.paused(queue="mail")
    browser.post("/queue/mail/resume")
    assert not spool.paused(queue="mail")
    browser.post("/rule/night/pause")
    assert spool.rule("night").paused
    browser.post("/rule/night/resume")
    assert "rule night are queued" in shown(browser.follow(browser.post("/rule/night/run")).text)
    assert [row.command for row in spool.list(where=Filter(rule="night"))] == ["true"]
    assert browser.post("/rule/none/run").status == 409
    assert browser.post("/queue/..%2fx/pause").status == browser.post("/queue/a b/pause").status == 404


def test_a_new_job_is_queued_as_it_was_typed(spool: Spool, browser: Browser) -> None:
    """Lines of a command end as on this machine; an empty field is what the settings say."""
    answer = browser.post("/new", {
        "command": "echo a\r\necho b", "id": "mine", "priority": "7", "tags": "x y", "timeout": "10m", "run_at": "",
        "env": "A=1\r\nB=x=y", "max_retries": "2",
    })  # fmt: skip

    assert "queued job mine" in shown(browser.follow(answer).text)
    job = spool.get("mine")
    assert (job.command, job.priority, job.tags, job.timeout, job.env, job.max_retries) == (
        "echo a\necho b", 7, ["x", "y"], 600, {"A": "1", "B": "x=y"}, 2)  # fmt: skip


@pytest.mark.parametrize(
    ("form", "field", "message"),
    [({"command": ""}, "command", "needs a command"), ({"command": "x", "priority": "11"}, "priority", "1 to 10"),
     ({"command": "x", "timeout": "soon"}, "timeout", ""), ({"command": "x", "env": "novalue"}, "env", "NAME=VALUE"),
     ({"command": "x", "id": "../x"}, "id", ""), ({"command": "x", "id": "wait"}, "id", "taken"),
     ({"command": "x", "max_retries": "many"}, "max_retries", "whole number"), ({"command": "x", "after": "nothing"}, None, "nothing"),
     ({"command": "x" * 1_000_001}, None, "")],
)  # fmt: skip
def test_a_wrong_field_keeps_what_was_typed(
    browser: Browser, form: dict[str, str], field: str | None, message: str
) -> None:
    """With the message beside the field, and nothing queued."""
    before = Spool(browser.site.root).counts()
    answer = browser.post("/new", {**form, "batch": "kept"})

    assert answer.status in {409, 413, 422}
    if field is not None:
        fault = re.findall(rf'id="fault-{field}"[^>]*>(.*?)</p>', answer.text)[0]
        assert fault
        assert message in fault
        assert re.search(rf'name="{field}"[^>]* aria-invalid="true"', answer.text)
    assert answer.status == 413 or 'value="kept"' in answer.text
    assert Spool(browser.site.root).counts() == before


def test_the_form_says_what_an_empty_field_gets(spool: Spool, browser: Browser) -> None:
    """The values of this spool's settings, and the folder in which the server runs, as nobody can see it otherwise."""
    (Path(spool.layout.root) / "config.yaml").write_text("timeout: 77\n", encoding="utf-8")
    page = shown(browser.get("/new").text)

    for line in ("0: no limit. Empty: 77.", "adds 1. Empty: 5.", f"directory. Empty: {os.getcwd()}."):
        assert line in page
    assert "Empty: 77" not in browser.get("/job/wait/edit").text
    answer = browser.post("/new", {"command": "true", "id": "late", "run_at": "2h", "expires_at": "2d"})
    assert answer.status == 303
    assert spool.get("late").run_at


def test_a_field_that_is_none_or_comes_twice_is_refused(browser: Browser) -> None:
    """Nobody guesses which one was meant."""
    assert browser.post("/new", [("command", "x"), ("command", "y")]).status == 400
    assert browser.post("/new", {"command": "x", "state": "dead"}).status == 400
    assert browser.post("/job/wait/set", {"id": "other", "mark": "x"}).status == 400


def test_a_taken_unique_key_is_told(spool: Spool, browser: Browser) -> None:
    """Nothing is queued, and the page is that of the job with the key."""
    spool.enqueue("true", id="first", unique="k")

    page = browser.follow(browser.post("/new", {"command": "true", "unique": "k"})).text

    assert "not queued: job first has the unique key" in shown(page)


def test_fields_are_checked_before_they_are_sent(browser: Browser) -> None:
    """For the page's script: which field is wrong, and why."""
    assert browser.post("/check", {"command": "x", "priority": "3"}).json == {
        "ok": True,
        "field": None,
        "message": None,
    }
    wrong = browser.post("/check", {"priority": "11"}).json
    assert (wrong["ok"], wrong["field"], "1 to 10" in wrong["message"]) == (False, "priority", True)


def test_a_dead_job_is_changed_and_retried(spool: Spool, browser: Browser) -> None:
    """In one step; its history is kept."""
    form = {"command": "true", "priority": "9", "mark": mark_of(browser, "bad"), "then": "retry"}

    assert "will run again" in browser.follow(browser.post("/job/bad/set", form)).text
    job = spool.get("bad")
    assert (job.state, job.command, job.priority) == ("pending", "true", 9)


def test_masked_values_stay_unless_others_are_typed(spool: Spool, browser: Browser) -> None:
    """*** does not become the secret; what is typed anew does; a line that is taken away is gone."""
    page = browser.get("/job/wait/edit").text
    assert "s3cret" not in page
    browser.post("/job/wait/set", {"env": "API_TOKEN=***\r\nMODE=b", "mark": mark_of(browser, "wait")})
    assert spool.get("wait").env == {"API_TOKEN": "s3cret", "MODE": "b"}
    browser.post(
        "/job/wait/set", {"env": "API_TOKEN=***\nMODE=b", "priority": "6", "mark": mark_of(browser, "wait")}
    )
    assert spool.get("wait").env == {"API_TOKEN": "s3cret", "MODE": "b"}
    browser.post("/job/wait/set", {"env": "API_TOKEN=new", "mark": mark_of(browser, "wait")})
    assert spool.get("wait").env == {"API_TOKEN": "new"}


def test_an_edit_that_changes_nothing_writes_nothing(spool_dir: Path, browser: Browser) -> None:
    """The form as it came, sent back."""
    page = browser.get("/job/wait/edit").text
    fields = dict(re.findall(r'<input id="in-\w+" name="(\w+)" value="([^"]*)"', page))
    before = (spool_dir / "pending" / "wait.json").stat()

    answer = browser.post("/job/wait/set", {**fields, "mark": mark_of(browser, "wait")})

    assert "said=unchanged" in answer.headers["location"]
    assert (spool_dir / "pending" / "wait.json").stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_that_is_no_job_is_mended_as_text(spool_dir: Path, spool: Spool, browser: Browser) -> None:
    """The line of the fault is shown; a text that is still none is not saved."""
    drop_bytes(spool_dir, "broken.json", b'{"command": "true", "priority": 11}', "dead")
    page = browser.get("/job/broken/edit").text
    mark = re.findall(r'name="mark" value="(\w+)"', page)[0]
    assert "line 1, column" in page

    wrong = browser.post("/job/broken/edit", {"text": '{"command": 5}', "mark": mark})
    assert wrong.status == 422
    assert "&#34;command&#34;: 5" in wrong.text
    assert browser.post("/job/broken/edit", {"text": "{}", "mark": "0"}).status == 409
    done = browser.post(
        "/job/broken/edit", {"text": '{"command": "true", "priority": 1}', "mark": mark, "then": "retry"}
    )
    assert done.headers["location"] == "/job/broken?said=retried&about=broken"
    assert spool.get("broken").state == "pending"


def test_what_runs_cannot_be_edited(spool_dir: Path, browser: Browser) -> None:
    """One line, and no form."""
    drop_bytes(spool_dir, "well.json", b'{"command": "true", "attempts": 1}', "done")

    answer = browser.get("/job/well/edit")

    assert answer.status == 409
    assert "cannot be changed" in answer.text


# -- many jobs


def go(browser: Browser, page: str, **more: str) -> Any:
    """Send the form of a dry run."""
    form = page[page.index('action="/bulk/go"') :]
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    return browser.post(
        "/bulk/go",
        [*((name, value.replace("&amp;", "&")) for name, value in fields if name != "token"), *more.items()],
    )


def over(browser: Browser, answer: Any) -> str:
    """Wait until a change of many jobs is over; return its page."""
    path = answer.headers["location"]
    number = int(path.rpartition("/")[2])
    wait_until(lambda: browser.site.bulk[number].is_over)
    return shown(browser.get(path).text)


def test_all_that_fit_are_retried_after_a_look(spool_dir: Path, spool: Spool, browser: Browser) -> None:
    """By the filter of the list, asked anew: a job that has moved meanwhile is left alone."""
    for number in range(3):
        dead(spool_dir, f"b{number}", tags=["db"])
    page = browser.post("/bulk", {"verb": "retry", "list": "/dead", "filter": "tag=db", "which": "all"}).text
    assert "Retry 3 jobs" in shown(page)
    assert "tag db" in shown(page)
    spool.forget("b1")

    text = over(browser, go(browser, page, priority="8"))

    assert "2 of 2: over. 2 retried." in text
    assert sorted((row.id, row.priority) for row in spool.list("pending") if row.id != "wait") == [
        ("b0", 8),
        ("b2", 8),
    ]
    assert spool.row("bad").state == "dead"
    assert actions(spool_dir) == ["retry 2 jobs: dead jobs with tag db"]


def test_chosen_jobs_are_changed_and_others_left_out_by_name(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """What cannot be done to one of them is said before."""
    page = browser.post(
        "/bulk",
        [
            ("verb", "cancel"),
            ("list", "/jobs"),
            ("filter", ""),
            ("which", "chosen"),
            ("id", "wait"),
            ("id", "bad"),
        ],
    ).text
    assert "1 chosen job left out" in shown(page)

    over(browser, go(browser, page))

    assert spool.row("wait").last_error == "Cancelled"
    assert spool.row("bad").last_error == "Exit code 65"


@pytest.mark.parametrize(("verb", "state"), [("hold", "pending"), ("release", "pending"), ("delete", None)])
def test_each_verb_is_done_to_many(
    spool_dir: Path, spool: Spool, browser: Browser, verb: str, state: str | None
) -> None:
    """With the filter of the address."""
    spool.enqueue("true", id="held", hold=True)
    page = browser.post(
        "/bulk", {"verb": verb, "list": "/jobs", "filter": "state=pending", "which": "all"}
    ).text

    over(browser, go(browser, page))

    assert {row.held for row in spool.list("pending")} == ({verb == "hold"} if state else set())
    assert where_is(spool_dir, "bad") == ["dead"]


def test_of_very_many_the_number_is_asked_for(
    spool: Spool, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong number changes nothing, and stays on its page."""
    monkeypatch.setattr(bulk, "ASK_ABOVE", 2)
    spool.enqueue_many([{"command": "true", "id": f"a{number}"} for number in range(3)])
    page = browser.post("/bulk", {"verb": "cancel", "list": "/line", "filter": "", "which": "all"}).text
    assert "Type 4 to go on" in page

    for typed in ("", "3", "four"):
        answer = go(browser, page, typed=typed)
        assert answer.status == 422
        assert "type 4 to go on" in answer.text
    assert spool.counts()["pending"] == 4
    assert "4 of 4" in over(browser, go(browser, page, typed="4"))
    assert spool.counts()["pending"] == 0


@pytest.mark.parametrize(
    "form",
    [{"verb": "format", "list": "/jobs"}, {"verb": "retry", "list": "/etc"}, {"verb": "retry", "list": "/jobs", "which": "chosen"},
     {"verb": "retry", "list": "/jobs", "id": "../x"}, {"verb": "retry", "list": "/jobs", "filter": "state=xyz"},
     {"verb": "retry", "list": "/etc", "which": "all"}],
)  # fmt: skip
def test_an_order_that_is_not_clear_is_refused(browser: Browser, form: dict[str, str]) -> None:
    """One line, and nothing done."""
    assert browser.post("/bulk", form).status == 400
    assert browser.post("/bulk/go", form).status == 400
    assert browser.site.bulk == {}


def test_a_priority_that_is_none_leaves_the_form_as_it_was(spool: Spool, browser: Browser) -> None:
    """The fault is beside the field, what was typed is still there, and nothing is done."""
    page = browser.post("/bulk", {"verb": "retry", "list": "/dead", "which": "all"}).text

    answer = go(browser, page, priority="11")

    assert answer.status == 422
    assert "priority is 1 to 10" in shown(answer.text)
    assert 'value="11" autocomplete="off" aria-invalid="true"' in answer.text
    assert spool.row("bad").state == "dead"
    assert browser.site.bulk == {}


def test_what_a_person_has_cancelled_is_not_retried_with_all_others(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """As on the command line: it is left out and that is said; chosen by itself, or by its reason, it runs again."""
    dead(spool_dir, "gone", last_error="Cancelled")

    page = browser.post("/bulk", {"verb": "retry", "list": "/dead", "which": "all"}).text
    by_reason = browser.post(
        "/bulk", {"verb": "retry", "list": "/dead", "filter": "reason=cancelled", "which": "all"}
    )
    over(browser, go(browser, page))

    assert "1 job left out, because somebody cancelled them" in shown(page)
    assert (spool.row("bad").state, spool.row("gone").state) == ("pending", "dead")
    assert "Retry 1 job" in shown(by_reason.text)
    chosen = browser.post(
        "/bulk", {"verb": "retry", "list": "/jobs", "filter": "", "which": "chosen", "id": "gone"}
    )
    over(browser, go(browser, chosen.text))
    assert spool.row("gone").state == "pending"


def test_completed_jobs_run_again_only_if_they_are_asked_for(spool_dir: Path, browser: Browser) -> None:
    """`retry` of all jobs leaves them; a filter for them, or their names, do not."""
    drop_bytes(spool_dir, "well.json", b'{"command": "true", "attempts": 1}', "done")
    form = {"verb": "retry", "list": "/jobs", "which": "all"}

    assert "Retry 1 job?" in shown(browser.post("/bulk", form).text)
    assert "Retry 1 job?" in shown(browser.post("/bulk", {**form, "filter": "state=completed"}).text)
    assert "Retry 1 job?" in shown(browser.post("/bulk", {**form, "which": "chosen", "id": "well"}).text)


def test_each_refusal_of_many_leads_back_to_the_list(spool: Spool, browser: Browser) -> None:
    """With its filter: nobody chooses fifty jobs twice because of an error."""
    form = {"verb": "hold", "list": "/jobs", "filter": "tag=db", "which": "chosen"}

    assert 'href="/jobs?tag=db"' in browser.post("/bulk", form).text
    assert 'href="/line"' in browser.post("/bulk", {**form, "list": "/line", "filter": "state=x"}).text
    assert 'href="/job/bad"' in browser.get("/job/bad?run=0").text


def test_a_filter_that_fits_nothing_is_said(browser: Browser) -> None:
    """Before and after the look."""
    form = {"verb": "retry", "list": "/dead", "filter": "tag=nothing", "which": "all"}

    assert "There is no job" in browser.post("/bulk", form).text
    assert browser.post("/bulk/go", form).status == 409


def test_one_change_of_many_at_a_time_and_it_can_be_stopped(
    spool: Spool, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done stays done; the page says how far it came, and what was refused."""
    monkeypatch.setattr(bulk, "STEP", 1)
    spool.enqueue("true", id="second")
    begun, release = [], False

    def slow(_: Spool, ids: list[str], __: object) -> dict[str, object]:
        begun.append(ids)
        wait_until(lambda: release)
        return {**spool.hold_many(ids)}

    monkeypatch.setitem(bulk.VERBS, "hold", (slow, ("pending", "failed")))
    page = browser.post(
        "/bulk", {"verb": "hold", "list": "/line", "filter": "sort=arrived", "which": "all"}
    ).text
    answer = go(browser, page)
    wait_until(lambda: begun)
    assert go(browser, page).status == 409
    assert "0 of 2" in shown(browser.get("/part/bulk/1").text)
    browser.post("/bulk/1/stop")
    release = True

    assert "1 of 2: stopped" in over(browser, answer)
    assert [row.held for row in spool.list("pending")].count(True) == 1


def test_a_job_that_moves_meanwhile_is_told_as_refused(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """By name, with the reason."""
    dead(spool_dir, "b0")
    made = bulk.Bulk(1, bulk.Order("retry", "/dead", "", Filter()), 2)
    spool.retry("bad")
    browser.site.bulk[1] = made

    bulk._work(browser.site, made, ["b0", "bad"])

    assert (made.done, made.refusals, made.refused[0][0]) == (2, 1, "bad")
    assert "bad it has just been moved" in shown(browser.get("/bulk/1").text)
    assert spool.row("b0").state == "pending"


def test_the_log_of_actions_has_an_end(
    spool_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one line for each action, whatever a reason holds."""
    monkeypatch.setattr("queuectl.web.site.LARGEST_LOG", 100)
    for number in range(8):
        browser.post("/pause", {"reason": f"line\nbreak {number}"})
    folder = spool_dir / "data" / "web"

    assert sorted(path.name for path in folder.glob("actions*")) == ["actions.log", "actions.log.1"]
    assert all(
        " - pause: line" in line for line in (folder / "actions.log").read_text(encoding="utf-8").splitlines()
    )
    assert (folder / "actions.log").stat().st_mode & 0o077 == 0
    assert (folder / "actions.log").stat().st_size < 200
