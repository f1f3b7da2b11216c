"""A notification to a web address: the facts arrive once, and the exit code says whether another try makes sense."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
import servers

from queuectl import Spool
from queuectl.errors import NotSentNow
from queuectl.notify import delivery, webhook
from queuectl.notify.message import TRIAL, Message

from support import drain, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.Posts]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers.web_server() as found:
        yield found


def test_a_program_gets_the_facts(spool_dir: Path, cli: Callable[..., Any], posts: servers.Posts) -> None:
    """Without having to take a text apart; chat programs show the text."""
    Spool(spool_dir).enqueue("echo 'disk full' >&2; exit 3", id="load", max_retries=0)
    drain(spool_dir)
    cli(
        "notify",
        "webhook",
        posts.url + "/hook",
        "--about",
        "load",
        "--header",
        "Authorization: Bearer abc",
        expect=0,
    )

    [facts], [headers] = posts.facts, posts.headers
    [job] = facts["jobs"]
    assert posts.paths == ["POST /hook"]
    assert (facts["event"], facts["count"], facts["spool"]) == ("dead", 1, str(spool_dir))
    assert (job["id"], job["exit_code"], job["last_error"], job["lines"]) == (
        "load",
        3,
        "Exit code 3",
        ["disk full"],
    )
    assert "disk full" in facts["text"]
    assert headers["authorization"] == "Bearer abc"
    assert headers["content-type"] == "application/json"


def test_a_job_that_sends_again_says_so(spool_dir: Path, posts: servers.Posts) -> None:
    """What arrived although the answer was lost can be told from another message."""
    posts.answers = [503]
    words = [sys.executable, "-m", "queuectl", "notify", "webhook", posts.url]
    Spool(spool_dir).enqueue(shlex.join(words), id="alarm", max_retries=2, backoff_base=1, timeout=60)
    drain(spool_dir, wait_retries=True)

    assert [one["exit_code"] for one in load(spool_dir / "done" / "alarm.json")["history"]] == [111, 0]
    first, second = (headers["idempotency-key"] for headers in posts.headers)
    assert first == second
    assert first.startswith("alarm.")


def test_the_next_death_of_a_job_is_no_second_copy(spool_dir: Path, posts: servers.Posts) -> None:
    """The same pipeline is run again, and its alarm has the same id. A receiver must not throw it away."""
    words = [sys.executable, "-m", "queuectl", "notify", "webhook", posts.url]
    with Spool(spool_dir) as spool:
        spool.enqueue("exit 3", id="load", max_retries=1)
        spool.enqueue(shlex.join(words), id="alarm", after_failure="load", timeout=60)
        drain(spool_dir)
        spool.retry("load")
        spool.retry("alarm")
        drain(spool_dir)

    assert [facts["jobs"][0]["id"] for facts in posts.facts] == ["load", "load"]
    first, second = (headers["idempotency-key"] for headers in posts.headers)
    assert first != second


@pytest.mark.parametrize(
    ("answer", "code"),
    [(200, 0), (204, 0), (400, 100), (401, 100), (404, 100), (408, 111), (429, 111), (500, 111), (503, 111)],
)
def test_an_answer_says_whether_another_try_makes_sense(
    cli: Callable[..., Any], posts: servers.Posts, answer: int, code: int
) -> None:
    """A job with `give_up_on: [100]` repeats what may succeed, and nothing else."""
    posts.answers = [answer]
    found = cli("notify", "webhook", posts.url, expect=code)
    assert len(posts.facts) == 1
    assert (f"answers {answer}: no such hook" in found.stderr) == bool(code)


@pytest.mark.parametrize("answer", [301, 302, 307, 308])
def test_a_redirect_is_told_and_not_followed(
    cli: Callable[..., Any], posts: servers.Posts, answer: int
) -> None:
    """Python makes it a GET: the facts would be lost, and the answer would say that all is well."""
    posts.answers = [answer]
    assert f"{posts.url}/elsewhere" in cli("notify", "webhook", posts.url, expect=100).stderr
    assert [path.split()[0] for path in posts.paths] == ["POST"]


@pytest.mark.parametrize(
    "answers", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",)], ids=["no answer", "no end"]
)
def test_a_silent_server_does_not_hold_the_job_up(
    answers: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one for all of it, and not one for each read."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(delivery, "LONGEST", 0.3)
    message = Message(TRIAL, [], 0, "/srv/spool", "here")
    with servers.talker(*answers, wait=True) as (port, _), pytest.raises(NotSentNow):
        webhook.post(message, f"http://127.0.0.1:{port}/", {}, None)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n"], ids=["nobody", "another protocol"])
def test_a_server_that_does_not_speak_http_is_tried_again(
    cli: Callable[..., Any], answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be started later, and another program may have its port meanwhile."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers.talker(answer) as (port, _):
        url = f"http://127.0.0.1:{port if answer else servers.free_port()}"
        assert cli("notify", "webhook", url, expect=111).stderr.startswith("error: ")
        if not answer:
            cli("notify", "webhook", f"http://127.0.0.1:{port}", expect=111)


def test_an_address_may_have_other_characters_than_ascii(
    cli: Callable[..., Any], posts: servers.Posts
) -> None:
    """It is asked for as a browser would do it, and what is written as a number already stays so."""
    cli("notify", "webhook", f"{posts.url}/hök/a%2Fb?über=%20&a=b+c#top", expect=0)
    assert posts.paths == ["POST /h%C3%B6k/a%2Fb?%C3%BCber=%20&a=b+c"]


def test_a_name_and_a_password_in_the_address_are_used(cli: Callable[..., Any], posts: servers.Posts) -> None:
    """They were taken for a part of the host's name, and the job tried again for ever."""
    cli("notify", "webhook", posts.url.replace("//", "//me:p%40ss@"), expect=0)
    assert posts.headers[0]["authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "a..invalid", "ä" * 64 + ".invalid"])
def test_a_name_that_no_host_can_have_is_refused_for_ever(cli: Callable[..., Any], host: str) -> None:
    """It ended as a bug of queuectl, and each try of the job would end so."""
    told = cli("notify", "webhook", f"http://{host}/", expect=100).stderr
    assert told == f"error: no host can be called {host}\n"
    assert cli("notify", "mail", "--to", "ops@example.org", "--smtp", host, expect=100).stderr == told


@pytest.mark.parametrize(
    "words",
    [
        ("ftp://example.org",),
        ("file:///etc/passwd",),
        ("example.org",),
        ("http://",),
        ("http://example.org:99999/",),
        ("http://example.org/a b",),
        ("http://example.org", "--header", "Authorization"),
        ("http://example.org", "--header", "A: b\r\nC: d"),
        ("http://example.org", "--header", "A: ä"),
        (),
    ],
)
def test_what_was_mistyped_is_refused(cli: Callable[..., Any], words: tuple[str, ...]) -> None:
    """A header field must not bring others, and no file of this machine is an address."""
    assert cli("notify", "webhook", *words, expect=2).stderr.startswith("error: ")
