"""A notification by mail: it arrives with what a person needs, and its exit code says whether another try makes sense."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import shlex
import shutil
import socket
import stat
import sys
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
import servers

from queuectl import Spool
from queuectl.errors import NotSent, NotSentNow
from queuectl.notify import delivery, mail
from queuectl.notify.mail import Server

from support import drain, load, no_thread_to_have

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import EmailMessage
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

TO = ("--to", "ops@example.org")


@pytest.fixture
def mailbox() -> Iterator[servers.Mailbox]:
    with servers.mail_server() as box:
        yield box


@pytest.fixture
def notify(cli: Callable[..., Any], mailbox: servers.Mailbox) -> Callable[..., Any]:
    """Call `queuectl notify mail` with the server of the test."""

    def call(*args: str, **options: Any) -> Any:
        return cli("notify", "mail", *TO, "--smtp", f"127.0.0.1:{mailbox.port}", *args, **options)

    return call


def read(letter: str) -> EmailMessage:
    return email.message_from_string(letter.replace("\r\n", "\n"), policy=email.policy.default)


def dead_job(
    spool_dir: Path, job_id: str = "load", command: str = "echo 1 2 3 | rev; echo 'disk full' >&2; exit 3"
) -> None:
    Spool(spool_dir).enqueue(command, id=job_id, max_retries=0)
    drain(spool_dir)


def letter(sender: str | None = "me@example.org") -> EmailMessage:
    """A trial."""
    from queuectl.notify.message import TRIAL, Message

    return mail.as_mail(Message(TRIAL, [], 0, "/srv/spool", "here"), ["ops@example.org"], sender, None, 0.0)


def test_a_mail_says_why_a_job_is_dead_and_what_to_type(
    spool_dir: Path, notify: Callable[..., Any], mailbox: servers.Mailbox
) -> None:
    """Who reads it on a telephone knows the reason, and on which machine to do what."""
    dead_job(spool_dir)
    notify("--about", "load", expect=0)

    [got], [to] = map(read, mailbox.letters), mailbox.receivers
    assert to == ["ops@example.org"]
    assert got["Subject"].endswith("load is dead: Exit code 3")
    assert got["Auto-Submitted"] == "auto-generated"
    assert (
        abs(parsedate_to_datetime(got["Date"]).timestamp() - time.time()) < 60
    )  # without a date it looks like spam
    text = got.get_content()
    assert "  disk full\n" in text
    assert "3 2 1" not in text  # errors say more than what went well
    assert f"queuectl --spool {spool_dir} retry load\n" in text


def test_an_alarm_is_about_the_job_for_which_it_has_waited(spool_dir: Path, mailbox: servers.Mailbox) -> None:
    """No id has to be written into its command; a second copy of the mail has the same Message-ID."""
    command = shlex.join(
        [sys.executable, "-m", "queuectl", "notify", "mail", *TO, "--smtp", f"127.0.0.1:{mailbox.port}"]
    )
    spool = Spool(spool_dir)
    spool.enqueue("echo 'no such table' >&2; exit 1", id="load", max_retries=0)
    spool.enqueue(f"{command} && {command}", id="alarm", after_failure="load", timeout=60)
    drain(spool_dir)

    assert load(spool_dir / "done" / "alarm.json")["exit_code"] == 0
    first, second = map(read, mailbox.letters)
    assert "load is dead" in first["Subject"]
    assert "no such table" in first.get_content()
    assert first["Message-ID"] == second["Message-ID"]
    assert "alarm" in first["Message-ID"]


def test_a_mail_about_no_job_is_a_trial(notify: Callable[..., Any], mailbox: servers.Mailbox) -> None:
    """Who sets it up wants to see one mail before the first job dies."""
    assert json.loads(notify("--json", expect=0).stdout) == {"sent": True, "refused": []}
    assert "trial" in read(mailbox.letters[0])["Subject"]


def test_a_job_that_is_named_must_exist(notify: Callable[..., Any], mailbox: servers.Mailbox) -> None:
    """A mail about a mistyped id would say nothing."""
    assert "no job 'laod'" in notify("--about", "laod", expect=1).stderr
    assert mailbox.letters == []


@pytest.mark.parametrize(("answer", "code"), [("550 no such user", 100), ("451 try again later", 111)])
def test_a_refusal_says_whether_another_try_makes_sense(
    notify: Callable[..., Any], mailbox: servers.Mailbox, answer: str, code: int
) -> None:
    """A job with `give_up_on: [100]` repeats what may succeed, and nothing else."""
    mailbox.answers["ops@example.org"] = answer
    assert answer in notify(expect=code).stderr
    assert mailbox.letters == []


def test_one_refused_receiver_keeps_no_other_from_the_mail(
    notify: Callable[..., Any], mailbox: servers.Mailbox
) -> None:
    """Were it an error, each further try would send the others another copy."""
    mailbox.answers["gone@example.org"] = "550 no such user"
    assert "refuses gone@example.org" in notify("--to", "gone@example.org", expect=0).stderr
    assert mailbox.receivers == [["ops@example.org"]]


def test_a_server_that_cannot_be_reached_is_tried_again(cli: Callable[..., Any]) -> None:
    """It may be started later."""
    found = cli("notify", "mail", *TO, "--smtp", f"127.0.0.1:{servers.free_port()}", expect=111)
    assert "connection refused" in found.stderr


@pytest.mark.parametrize("answers", [(), (b"220 here\r\n",)], ids=["no greeting", "no answer"])
def test_a_silent_server_does_not_hold_the_job_up(
    answers: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one for all of it, and not one for each answer."""
    monkeypatch.setattr(delivery, "LONGEST", 0.3)
    with servers.talker(*answers, wait=True) as (port, _), pytest.raises(NotSentNow):
        mail.to_server(letter(), Server("127.0.0.1", port))


def test_a_machine_without_a_free_thread_tries_again_later() -> None:
    """At the limit of processes the job is repeated, and not given up as after a mistake in the call."""
    with no_thread_to_have(), pytest.raises(NotSentNow, match="can't start new thread"):
        mail.to_server(letter(), Server("127.0.0.1", 25))


def test_a_name_server_that_is_down_does_not_hold_the_job_up(
    mailbox: servers.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for the name of this machine, for the sender. The limit holds for that, too."""
    is_over = threading.Event()
    monkeypatch.setattr(delivery, "LONGEST", 0.3)
    monkeypatch.setattr(socket, "getfqdn", lambda: is_over.wait(10) and "here")
    try:
        with pytest.raises(NotSentNow, match="has not answered"):
            mail.to_server(letter(sender=None), Server("127.0.0.1", mailbox.port))
    finally:
        is_over.set()


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost.example.org", False),
        ("127.example.org", False),
        ("::1234", False),
    ],
)
def test_a_server_elsewhere_is_not_taken_for_this_machine(host: str, is_here: bool) -> None:
    """Its name may begin like that of this one, and a password would be sent readable for others."""
    assert Server(host).is_here == is_here


def test_a_password_is_used(cli: Callable[..., Any]) -> None:
    """The right one is let in; a wrong one is wrong at the next try as well."""
    from aiosmtpd.smtp import AuthResult

    def known(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"me", b"secret"), handled=False)

    with servers.mail_server(authenticator=known, auth_require_tls=False) as box:
        words = ("notify", "mail", *TO, "--smtp", f"127.0.0.1:{box.port}", "--user", "me")
        cli(*words, env={"QUEUECTL_SMTP_PASSWORD": "secret"}, expect=0)
        wrong = cli(*words, env={"QUEUECTL_SMTP_PASSWORD": "wrong"}, expect=100)
        assert "QUEUECTL_SMTP_PASSWORD" in cli(*words, env={"QUEUECTL_SMTP_PASSWORD": ""}, expect=2).stderr
    assert len(box.letters) == 1
    assert "wrong" not in wrong.stderr


def test_no_password_is_sent_readable_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server elsewhere that offers no encryption gets none."""
    monkeypatch.setattr(mail, "_LOOPBACK", re.compile("nowhere"))
    with servers.mail_server() as box, pytest.raises(NotSent, match="no encryption"):
        mail.to_server(letter(), Server("127.0.0.1", box.port, "me", "secret"))


def test_encryption_is_used_where_it_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the greeting is said before."""
    monkeypatch.setattr(mail, "_LOOPBACK", re.compile("nowhere"))
    answers = b"220 here\r\n", b"250-here\r\n250 STARTTLS\r\n", b"454 not now\r\n"
    with servers.talker(*answers) as (port, got), pytest.raises(NotSentNow, match="454 not now"):
        mail.to_server(letter(), Server("127.0.0.1", port, "me", "secret"))
    assert got[0].startswith(b"ehlo")
    assert got[1:] == [b"STARTTLS\r\n"]


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (64, 100), (67, 100), (75, 111), (69, 111)])
def test_the_machines_own_sendmail_is_the_default(
    tmp_path: Path, cli: Callable[..., Any], code: int, expected: int
) -> None:
    """Its exit codes are those of sysexits.h."""
    program = tmp_path / "bin" / "sendmail"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/words; cat >{tmp_path}/letter; echo busy; exit {code}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    found = cli(
        "notify",
        "mail",
        *TO,
        env={"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
        expect=expected,
    )

    assert (tmp_path / "words").read_text() == "-t -i\n"
    assert read((tmp_path / "letter").read_text())["To"] == "ops@example.org"
    assert ("busy" in found.stderr) == bool(code)


def test_without_sendmail_a_server_must_be_named(cli: Callable[..., Any], tmp_path: Path) -> None:
    """A machine without one never gets one by waiting."""
    if shutil.which("sendmail", path=mail._FOLDERS):
        pytest.skip("this machine has a sendmail")
    found = cli("notify", "mail", *TO, env={"PATH": str(tmp_path)}, expect=100)
    assert "--smtp" in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "a b"),
        ("--to", "ops@example.org, you@example.org"),
        ("--to", "ops@example.org\nBcc: you@example.org"),
        (*TO, "--from", "me@x@y"),
        (*TO, "--smtp", "http://mail"),
        (*TO, "--smtp", "mail:0"),
        (*TO, "--smtp", "mail:99999"),
        (*TO, "--user", "me"),
        (),
    ],
)
def test_what_was_mistyped_is_refused(cli: Callable[..., Any], words: tuple[str, ...]) -> None:
    """An address must not bring header fields of its own."""
    assert cli("notify", "mail", *words, expect=2).stderr.startswith("error: ")
