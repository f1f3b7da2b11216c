"""What a notification says about jobs, whatever their names and errors are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.notify import mail, message
from queuectl.notify.message import About, Message

from support import drain

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

HOSTILE = "he said \"no\" $(reboot) `id` 'x'\r\nBcc: you@example.org\r\n\r\n\x1b[2J\udcff"


def test_what_a_job_has_said_arrives_as_text() -> None:
    """It brings no header field into a mail, and no control character into a terminal."""
    told = Message(
        "dead", [About("x" * 64, "dead", HOSTILE, HOSTILE, 1, lines=["ä"])], 1, "/srv/my spool", "here"
    )
    letter = mail.as_mail(told, ["ops@example.org"], None, None, 0.0)

    assert letter["Bcc"] is None
    assert "\n" not in letter["Subject"]
    assert len(told.subject) < 200
    text = letter.get_content()
    assert "$(reboot) `id`" in text
    assert "\x1b" not in text
    assert f"queuectl --spool '/srv/my spool' retry {'x' * 64}" in text
    letter.as_bytes()


def test_many_jobs_are_listed_and_counted(spool_dir: Path) -> None:
    """A batch of ten thousand must not make a mail of ten thousand outputs."""
    spool = Spool(spool_dir)
    ids = [f"part{number}" for number in range(message.LISTED + 5)]
    spool.enqueue_many({"id": one, "command": f"echo {one}; exit 1", "max_retries": 0} for one in ids)
    drain(spool_dir)
    told = message.compose(spool, ids, {})

    assert f"{len(ids)} jobs are dead" in told.subject
    assert "part0 is dead: Exit code 1" in told.text
    assert "and 5 more" in told.text
    assert len(told.as_json()["jobs"]) == message.LISTED


def test_a_job_that_is_gone_meanwhile_is_told(spool_dir: Path, tmp_path: Path) -> None:
    """Its record was purged between its end and the message: that it ended is still worth a word."""
    parents = tmp_path / "parents"
    parents.write_text("load\tdead\t/nowhere\t\n")
    told = message.compose(Spool(spool_dir), [], {"QUEUECTL_AFTER": str(parents)})
    assert "load is gone" in told.subject


def test_of_several_parents_the_dead_ones_are_told(spool_dir: Path, tmp_path: Path) -> None:
    """`after_any` jobs wait for good and bad ends; an alarm is about the bad ones."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="good")
    spool.enqueue("false", id="bad", max_retries=0)
    drain(spool_dir)
    parents = tmp_path / "parents"
    parents.write_text("good\tcompleted\t\t\nbad\tdead\t\t\n")
    told = message.compose(spool, [], {"QUEUECTL_AFTER": str(parents)})
    assert [job.id for job in told.jobs] == ["bad"]


def test_passwords_in_addresses_are_masked(spool_dir: Path) -> None:
    """A mail goes where the job's file does not."""
    spool = Spool(spool_dir)
    spool.enqueue("echo fetching https://me:secret@example.org; exit 1", id="load", max_retries=0)
    drain(spool_dir)
    told = message.compose(spool, ["load"], {})
    assert "https://me:***@example.org" in told.text
    assert "secret" not in told.text
    assert "secret" not in str(told.as_json())
