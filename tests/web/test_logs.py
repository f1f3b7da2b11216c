"""The output of a job on its page: its end, what is added, another run, and nothing of another job."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING

import pytest
from asgi import Browser

from queuectl import Spool
from queuectl.web import logs, text

from support import drop_bytes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def browser(spool_dir: Path) -> Browser:
    """A visitor of a spool with a job that has run twice."""
    runs = [{"outcome": "failed", "exit_code": 1}, {"outcome": "succeeded"}]
    record = {"id": "a", "command": "x", "attempts": 2, "history": runs}
    drop_bytes(spool_dir, "a.json", json.dumps(record).encode(), "done")
    drop_bytes(spool_dir, "a.1.out", b"first run\n", "logs")
    drop_bytes(spool_dir, "a.2.out", b"one\ntwo\n", "logs")
    Spool(spool_dir).refresh()
    return Browser(spool_dir).login()


def test_parts_follow_each_other(spool_dir: Path, browser: Browser) -> None:
    """From the end, then what comes after it; another run has its own."""
    assert browser.get("/job/a/log").json == {
        "text": "one\ntwo\n", "from": 0, "next": 8, "size": 8, "run": 2, "cut": False, "end": True,
    }  # fmt: skip
    with (spool_dir / "logs" / "a.2.out").open("ab") as file:
        file.write(b"three\n")
    found = browser.get("/job/a/log?from=8").json
    assert (found["text"], found["next"]) == ("three\n", 14)
    assert browser.get("/job/a/log?run=1").json["text"] == "first run\n"
    assert browser.get("/job/a/log?stream=err").json["text"] == ""
    (spool_dir / "logs" / "a.2.out").write_bytes(b"new\n")
    found = browser.get("/job/a/log?from=14").json
    assert (found["text"], found["cut"]) == ("new\n", True)


def test_a_large_output_is_shown_from_its_last_lines(spool_dir: Path, browser: Browser) -> None:
    """At most 64 KiB at once; the whole is a file to save."""
    whole = b"".join(b"line %06d\n" % number for number in range(30_000))
    (spool_dir / "logs" / "a.2.out").write_bytes(whole)

    found = browser.get("/job/a/log").json
    answer = browser.get("/job/a/log/file?stream=out&run=2")

    assert found["text"].startswith("line 0")
    assert found["text"].encode() == whole[found["from"] :]
    assert len(found["text"]) <= logs.MOST
    assert answer.body == whole
    assert answer.headers["content-disposition"] == 'attachment; filename="a.2.out.txt"'
    assert len(browser.get("/job/a").body) < 2 * logs.MOST


def test_a_compressed_output_is_unpacked(spool_dir: Path, browser: Browser) -> None:
    """On the page, and as it is saved."""
    (spool_dir / "logs" / "a.2.out").unlink()
    (spool_dir / "logs" / "a.2.out.gz").write_bytes(gzip.compress(b"packed\n" * 1000))

    assert browser.get("/job/a/log").json["size"] == 7000
    assert browser.get("/job/a/log/file").body == b"packed\n" * 1000


@pytest.mark.parametrize(
    "query",
    [
        "run=0",
        "run=-1",
        "run=1e9",
        "run=x",
        "run=1&run=2",
        "stream=in",
        "from=-2",
        "from=x",
        "from=" + "9" * 20,
        "nothing=1",
        "run=9999999999",
    ],
)
def test_a_wrong_place_is_refused(browser: Browser, query: str) -> None:
    """In one line, for the log and for the file; a run that never was is empty."""
    assert browser.get(f"/job/a/log?{query}").status == 400
    if not query.startswith("from"):
        assert browser.get(f"/job/a/log/file?{query}").status == 400
    assert browser.get("/job/a/log?run=999999999").json["text"] == ""


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_link_or_a_fifo_in_the_place_of_a_log_is_not_read(
    spool_dir: Path, tmp_path: Path, browser: Browser, kind: str
) -> None:
    """The page of the job says so, and is there."""
    (tmp_path / "secret").write_text("secret text", encoding="utf-8")
    log = spool_dir / "logs" / "a.2.out"
    log.unlink()
    if kind == "link":
        log.symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(log)

    for path in ("/job/a/log", "/job/a/log/file"):
        answer = browser.get(path)
        assert answer.status == 503
        assert "secret text" not in answer.text
    page = browser.get("/job/a")
    assert page.status == 200
    assert "cannot read" in page.text


def test_a_colour_that_is_half_written_waits_for_its_rest() -> None:
    """Else its rest would stand in the text as letters."""
    for whole in (b"\x1b[1;31m", b"\x1b]0;title\x07"):
        for end in range(1, len(whole)):
            assert text.half_escape(b"text" + whole[:end]) == end
        assert text.half_escape(b"text" + whole) == 0
    assert text.half_escape(b"\x1b" + b"x" * 10_000) == 0
    assert text.plain_output("a\x1b[Kb\x1b(Bc") == "abc"
