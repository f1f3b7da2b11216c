"""The pause of one queue: known to every worker when the command returns, and of no effect on other queues."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.errors import QueuectlError, StillUnderWay

from support import drain, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_jobs_of_a_paused_queue_wait_and_others_run(spool_dir: Path, cli: Cli) -> None:
    """Also for workers that start later, until `resume` or until the file is deleted by hand."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="mail", queue="mail")
    spool.enqueue("true", id="plain")
    cli("pause", "--queue", "mail", expect=0)

    drain(spool_dir)
    assert (where_is(spool_dir, "mail"), where_is(spool_dir, "plain")) == (["pending"], ["done"])
    assert cli("resume", "--queue", "mail", expect=0).stdout == "resumed\n"
    assert cli("resume", "--queue", "mail", expect=0).stdout == "not paused\n"
    drain(spool_dir)
    assert where_is(spool_dir, "mail") == ["done"]


def test_a_pause_by_hand_and_its_end_are_followed(spool_dir: Path, workers: Cli) -> None:
    """`touch` and `rm` within a second, by a worker that is idle and asleep."""
    spool = Spool(spool_dir)
    workers(1)
    path = spool_dir / "queues" / "mail.paused"
    path.touch()
    wait_until(lambda: spool.workers()[0].queues_seen)
    spool.enqueue("true", id="mail", queue="mail")
    spool.enqueue("true", id="plain")
    wait_until(lambda: where_is(spool_dir, "plain") == ["done"])
    assert where_is(spool_dir, "mail") == ["pending"]

    path.unlink()
    wait_until(lambda: where_is(spool_dir, "mail") == ["done"])


def test_when_the_command_returns_every_worker_has_seen_it(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """A job that is queued after it never starts, however often it is tried."""
    spool = Spool(spool_dir)
    workers(2)
    for number in range(5):
        answer = json.loads(cli("pause", "--queue", "mail", "--json", expect=0).stdout)
        assert (answer["queue"], answer["workers_not_paused"]) == ("mail", [])
        job = spool.enqueue("true", id=f"m{number}", queue="mail")
        spool.enqueue("true", id=f"p{number}")
        wait_until(lambda number=number: where_is(spool_dir, f"p{number}") == ["done"])  # type: ignore[misc]
        assert where_is(spool_dir, job.id) == ["pending"]
        cli("resume", "--queue", "mail", expect=0)
        wait_until(lambda number=number: where_is(spool_dir, f"m{number}") == ["done"])  # type: ignore[misc]


def test_a_worker_that_knows_of_an_earlier_pause_of_a_queue_is_waited_for(spool_dir: Path) -> None:
    """That it noticed the last pause, or that of another queue, says nothing of this one."""
    from queuectl.control import commands
    from queuectl.control.launch import Launch

    spool = Spool(spool_dir)
    worker = Worker(spool_dir, say=lambda _: None)
    worker.register(Launch(commands.start_asked_at(spool.layout)))
    try:
        assert spool.pause(queue="mail", patience=0) == [worker.name]
        worker._limits.look()
        worker._limits.report(worker._upkeep.note)
        assert spool.pause(queue="mail", patience=0) == []
        assert spool.pause("another reason", queue="mail", patience=0) == [worker.name]
        assert spool.pause(queue="sms", patience=0) == [worker.name]
        worker._limits.look()
        worker._limits.report(worker._upkeep.note)
        assert spool.pause(queue="sms", patience=0) == spool.pause(queue="mail", patience=0) == []
    finally:
        registration = worker._registration
        assert registration is not None
        registration.release()


def test_drain_of_a_queue_waits_for_its_jobs_only(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """With the exit code 75 when the time is over; the queue stays paused."""
    spool = Spool(spool_dir)
    command = "until [ -e {} ]; do sleep 0.02; done"
    spool.enqueue(command.format("go"), id="mail", queue="mail", cwd=spool_dir, timeout=60)
    spool.enqueue(command.format("end"), id="plain", cwd=spool_dir, timeout=60)
    workers(1, "-j", "2")
    wait_until(lambda: spool.counts()["processing"] == 2)

    told = cli("drain", "--queue", "mail", "--timeout", "0.1", "--reason", "deploy", expect=75).stderr
    assert told.startswith("error: still running: mail; queue mail stays paused\n")
    with pytest.raises(StillUnderWay):
        spool.drain(queue="mail", timeout=0)
    (spool_dir / "go").touch()
    cli("drain", "--queue", "mail", expect=0)
    assert where_is(spool_dir, "mail") == ["done"]
    paused = spool.paused(queue="mail")
    assert paused is not None
    assert (paused.reason, paused.queue) == ("deploy", "mail")
    assert paused.sentence.startswith("queue mail is paused since ")
    assert spool.paused() is None
    (spool_dir / "end").touch()
    wait_until(lambda: where_is(spool_dir, "plain") == ["done"])


def test_a_job_may_drain_another_queue_than_its_own(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for its own end."""
    spool = Spool(spool_dir)
    spool.enqueue(
        "queuectl drain --queue mail 2>said || true; queuectl drain --queue sms --timeout 5", id="me", queue="mail",
        cwd=spool_dir, env={"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, timeout=30, max_retries=1,
    )  # fmt: skip
    monkeypatch.setenv("PATH", f"{spool_dir}:{os.environ['PATH']}")
    program = spool_dir / "queuectl"
    program.write_text('#!/bin/sh\nexec python -P -m queuectl "$@"\n')
    program.chmod(0o700)

    Worker(spool_dir, drain=True, say=lambda _: None).run()

    assert (
        "this command belongs to job me, and drain would wait until that job ends"
        in (spool_dir / "said").read_text()
    )
    assert where_is(spool_dir, "me") == ["done"]
    assert spool.paused(queue="mail") is None
    assert spool.paused(queue="sms") is not None


def test_a_pause_of_an_unknown_queue_is_told(spool_dir: Path, cli: Cli) -> None:
    """Its name may be mistyped, and then nothing is paused that was meant."""
    spool = Spool(spool_dir)
    spool.enqueue("true", queue="mail")

    told = cli("pause", "--queue", "mial", expect=0)

    assert told.stdout == "paused\n"
    assert told.stderr == "note: no job and no file of queues/ has the queue mial; is mail meant?\n"
    assert cli("pause", "--queue", "mail", expect=0).stderr == ""


def test_a_pause_that_cannot_be_written_is_an_error(spool_dir: Path) -> None:
    """Its file is named."""
    spool = Spool(spool_dir)
    spool.layout.create()
    (spool_dir / "queues").rmdir()
    (spool_dir / "queues").write_text("")

    with pytest.raises(QueuectlError, match="queues"):
        spool.pause(queue="mail", patience=0)
