"""The output of a job is printed completely, byte for byte, and can be followed to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from support import drop_bytes, finished, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def twice(spool_dir: Path) -> Path:
    """A job that has run twice, with different output."""
    history = [
        {"run": 1, "attempt": 1, "outcome": "failed"},
        {"run": 2, "attempt": 2, "outcome": "succeeded"},
    ]
    record = {"id": "job1", "command": "x", "attempts": 2, "history": history}
    drop_bytes(spool_dir, "job1.json", json.dumps(record).encode(), "done")
    for name, data in (
        ("1.out", b"first\n"),
        ("1.err", b"oops\n"),
        ("2.out", b"\xff\x00\x1b[31msecond"),
        ("2.err", b"e"),
    ):
        drop_bytes(spool_dir, f"job1.{name}", data, "logs")
    return spool_dir


def raw(*words: str) -> tuple[bytes, bytes, int]:
    done = subprocess.run([sys.executable, "-m", "queuectl", *words], capture_output=True, check=False)
    return done.stdout, done.stderr, done.returncode


def test_bytes_pass_through_a_pipe(twice: Path) -> None:
    """The streams of the last run go to the same streams, unchanged."""
    assert raw("logs", "job1") == (b"\xff\x00\x1b[31msecond", b"e", 0)


def test_one_run_and_one_stream(twice: Path) -> None:
    """--attempt selects a run; --stderr prints its stderr on stdout."""
    assert raw("logs", "job1", "--attempt", "1") == (b"first\n", b"oops\n", 0)
    assert raw("logs", "job1", "--stderr") == (b"e", b"", 0)
    assert raw("logs", "-f", "job1", "--attempt", "1", "--stderr") == (b"oops\n", b"", 0)


def test_terminal_is_shielded_unless_raw(twice: Path) -> None:
    """On a terminal escapes are shown as text; --raw prints them."""
    shown = b"out | \xef\xbf\xbd\\x00\\x1b[31msecond\r\nerr | e"
    assert on_terminal("logs", "job1").raw == shown
    assert on_terminal("logs", "job1", "--stderr").raw == b"e"
    assert b"\x00\x1b[31msecond" in on_terminal("logs", "job1", "--raw").raw


def test_run_that_never_was_is_refused(cli: Cli, twice: Path) -> None:
    """A run that does not exist is an error; a job that has not run gets a note."""
    cli("enqueue", "--id", "new", "true", expect=0)

    third = cli("logs", "job1", "--attempt", "3", expect=1)
    new = cli("logs", "new", expect=0)

    assert third.stderr.splitlines()[0] == "error: job 'job1' has run 2 times; there is no run 3"
    assert (new.stdout, new.stderr) == ("", "job new has not run yet\n")


def test_deleted_log_is_told_of(cli: Cli, spool_dir: Path) -> None:
    """Deleted logs are reported differently from empty output."""
    drop_bytes(spool_dir, "job1.json", b'{"command": "x", "output": "hi", "history": [{"run": 1}]}', "done")

    done = cli("logs", "job1", expect=0)

    assert (done.stdout, done.stderr) == (
        "",
        "the logs of job job1 were deleted; the end of its output: queuectl show job1\n",
    )


def follow(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "queuectl", "logs", "-f", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_follow_starts_before_the_job_and_ends_with_it(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """Following a waiting job prints its output as it comes, through its retries, and ends with the job."""
    gate = tmp_path / "gate"
    command = (
        f'echo "try $QUEUECTL_ATTEMPT"; while [ ! -e "{gate}" ]; do sleep 0.02; done;'
        ' echo "done $QUEUECTL_ATTEMPT"; echo err >&2; [ "$QUEUECTL_ATTEMPT" = 2 ]'
    )
    cli("enqueue", "--id", "job1", "--backoff-base", "1", "--command", command, expect=0)
    with follow("job1") as follower:
        assert follower.stdout is not None
        workers(1)
        seen = follower.stdout.readline()
        gate.touch()
        out, err = follower.communicate(timeout=30)

    assert (seen + out, err) == (b"try 1\ndone 1\ntry 2\ndone 2\n", b"err\nerr\n")
    assert follower.returncode == 0
    assert finished(spool_dir, "job1")


def test_follower_never_sees_the_next_jobs_output(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """A worker uses the same file for the output of its jobs; following one job never prints the output of the next."""
    jobs = [{"id": f"j{n}", "command": f"for i in 1 2 3; do echo j{n}; done"} for n in range(30)]
    cli("enqueue", "--file", "-", stdin=json.dumps(jobs), expect=0)
    followers = [follow(f"j{n}") for n in (3, 11, 19)]
    try:
        workers(1)
        told = [follower.communicate(timeout=30)[0] for follower in followers]
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()

    assert told == [f"j{n}\n".encode() * 3 for n in (3, 11, 19)]


def test_worker_logs_tell_of_every_job(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """The logs of all workers are merged by time; one worker's log can be printed alone."""
    workers(2)
    for n in range(6):
        cli("enqueue", "--id", f"j{n}", "echo hi", expect=0)
    wait_until(lambda: finished(spool_dir, *(f"j{n}" for n in range(6))))

    every = cli("worker", "logs", expect=0).stdout.splitlines()
    alone = cli("worker", "logs", "worker-1", expect=0).stdout

    stamps = [line[:20] for line in every if line.startswith("20")]
    assert len(stamps) > 12
    assert stamps == sorted(stamps)
    for n in range(6):
        assert sum(line.endswith(f"] completed j{n}") for line in every) == 1
    assert alone == (spool_dir / "data" / "workers" / "worker-1.log").read_text()
    for words in (["-n", "3"], ["--tail", "3"], ["worker-1", "--lines", "3"]):
        whole = alone.splitlines() if "worker-1" in words else every
        assert cli("worker", "logs", *words, expect=0).stdout.splitlines() == whole[-3:]
    assert cli("worker", "logs", "-n", "0", expect=0).stdout == ""
    assert "no worker 'nobody'" in cli("worker", "logs", "nobody", expect=1).stderr


def test_worker_logs_can_be_followed(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """-f prints what workers write from now on, including workers that start later."""
    words = [sys.executable, "-m", "queuectl", "worker", "logs", "-f"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ}) as follower:
        try:
            assert follower.stdout is not None
            workers(1)
            cli("enqueue", "--id", "job1", "true", expect=0)
            while b"completed job1" not in (line := follower.stdout.readline()):
                assert line
        finally:
            follower.kill()
