"""A job changes while somebody edits it: nothing is overwritten, and nothing that was typed is lost."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

import pytest
from asgi import Browser, shown

from queuectl import Spool
from queuectl.web import edits

from support import drop_bytes, load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """A spool with a waiting job `wait`."""
    made = Spool(spool_dir)
    made.enqueue("true", id="wait", priority=5, tags=["old"], env={"API_TOKEN": "s3cret", "MODE": "a"})
    return made


@pytest.fixture
def browser(spool: Spool) -> Browser:
    """A visitor who is logged in."""
    return Browser(spool.layout.root).login()


def form_of(page: str) -> dict[str, str]:
    """Return the fields of a form as a browser would send them."""
    found = dict(re.findall(r'<input [^>]*name="(\w+)" value="([^"]*)"', page))
    found |= dict(re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>\n(.*?)</textarea>', page, re.DOTALL))
    found.pop("token", None)
    return {name: html.unescape(value) for name, value in found.items()}


def now_of(page: str, name: str) -> str:
    """Return what stands beside a field as the present value."""
    return html.unescape(re.findall(rf'id="now-{name}">.*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)[0])


def test_both_texts_are_shown_and_saving_again_counts(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """Beside what was typed stands what the job has now; the second save is against that."""
    form = form_of(browser.get("/job/wait/edit").text)
    spool.set("wait", priority=7, command="echo theirs")

    answer = browser.post("/job/wait/set", {**form, "priority": "9", "command": "echo <mine>"})
    again = form_of(answer.text)

    assert answer.status == 409
    assert (again["priority"], now_of(answer.text, "priority")) == ("9", "7")
    assert (again["command"], now_of(answer.text, "command")) == ("echo <mine>", "echo theirs")
    assert load(spool_dir / "pending" / "wait.json")["priority"] == 7
    assert browser.post("/job/wait/set", again).status == 303
    job = spool.get("wait")
    assert (job.priority, job.command) == (9, "echo <mine>")


def test_a_field_that_was_only_shown_puts_nothing_back(spool: Spool, browser: Browser) -> None:
    """The form sends every field: those into which nobody typed take the value that somebody else has set."""
    form = form_of(browser.get("/job/wait/edit").text)
    spool.set("wait", tags=["new"], timeout=77, env={"API_TOKEN": "s3cret", "MODE": "b"})

    answer = browser.post("/job/wait/set", {**form, "priority": "9"})
    browser.post("/job/wait/set", form_of(answer.text))

    assert "Changed by somebody else, and not by you: tags, timeout, env" in shown(answer.text)
    assert "as it is now" not in shown(answer.text)
    job = spool.get("wait")
    assert (job.priority, job.tags, job.timeout, job.env) == (
        9, ["new"], 77, {"API_TOKEN": "s3cret", "MODE": "b"})  # fmt: skip


def test_a_third_change_is_told_as_well(spool: Spool, browser: Browser) -> None:
    """Each save is against what was seen last."""
    form = form_of(browser.get("/job/wait/edit").text)
    for number in (6, 7):
        spool.set("wait", priority=number)
        answer = browser.post("/job/wait/set", {**form, "priority": "9"})
        assert (answer.status, now_of(answer.text, "priority")) == (409, str(number))
        form = form_of(answer.text)

    assert browser.post("/job/wait/set", form).status == 303


def test_a_file_that_is_no_job_stands_beside_what_was_typed(spool_dir: Path, browser: Browser) -> None:
    """Two people mend one file."""
    drop_bytes(spool_dir, "broken.json", b'{"command": 1}', "dead")
    form = form_of(browser.get("/job/broken/edit").text)
    (spool_dir / "dead" / "broken.json").write_bytes(b'{"command": 2}')

    answer = browser.post("/job/broken/edit", {**form, "text": '{"command": "mine"}'})
    again = form_of(answer.text)

    assert answer.status == 409
    assert again["text"] == '{"command": "mine"}'
    assert '{"command": 2}' in html.unescape(answer.text[answer.text.index('id="present"') :])
    assert browser.post("/job/broken/edit", again).status == 303
    assert load(spool_dir / "dead" / "broken.json")["command"] == "mine"


@pytest.mark.parametrize("fate", ["running", "gone"])
def test_what_was_typed_stays_when_the_job_cannot_be_changed_any_more(
    spool_dir: Path, spool: Spool, browser: Browser, fate: str
) -> None:
    """It has begun to run, or was deleted: the form keeps the text, and has no button that saves it."""
    form = form_of(browser.get("/job/wait/edit").text)
    if fate == "gone":
        spool.forget("wait")
    else:
        (spool_dir / "pending" / "wait.json").rename(spool_dir / "done" / "wait.json")
    spool.refresh()

    answer = browser.post("/job/wait/set", {**form, "command": "echo long to type"})

    assert answer.status == (404 if fate == "gone" else 409)
    assert form_of(answer.text)["command"] == "echo long to type"
    assert "below is what you typed" in shown(answer.text)
    assert ">Save" not in answer.text


def test_the_text_of_a_file_stays_when_the_file_is_gone(
    spool_dir: Path, spool: Spool, browser: Browser
) -> None:
    """It was typed into the large field of a file that was no job."""
    drop_bytes(spool_dir, "broken.json", b"{", "dead")
    form = form_of(browser.get("/job/broken/edit").text)
    spool.forget("broken")

    answer = browser.post("/job/broken/edit", {**form, "text": '{"command": "mine"}'})

    assert (answer.status, form_of(answer.text)["text"]) == (404, '{"command": "mine"}')


@pytest.mark.parametrize(
    ("typed", "now", "form", "others", "taken"),
    [
        ("1", "1", "1", None, False), ("2", "1", "2", None, False), ("1", "3", "3", None, True), ("2", "3", "2", "3", False),
        ("2", "2", "2", None, False), ("", "1", "", None, False), ("", "3", "", "3", False), ("2", "", "2", "", False),
        (" 1 ", "3", "3", None, True),
    ],
)  # fmt: skip
def test_who_has_changed_a_field_decides(
    typed: str, now: str, form: str, others: str | None, taken: bool
) -> None:
    """The form showed 1. Only a field that both have changed, to different values, needs a look."""
    shown_then: dict[str, Any] = edits._prints({"priority": "1"})
    found = edits.compared(
        {"priority": typed}, {"priority": now} if now else {}, f"priority={shown_then['priority']}"
    )

    assert found.typed.get("priority", "") == form
    assert found.others.get("priority") == others
    assert found.taken == ["priority"] * taken
