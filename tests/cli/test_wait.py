"""`queuectl wait` waits until jobs have ended, returns the exit code of a single job, and uses little CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from terminal import on_terminal

from queuectl import JobNotFound, Spool, StillUnderWay
from queuectl.api.waiting import Ended, Waiting

from support import cpu_in, drain, drop, finished, processes_of, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(spool_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in the background of the test."""
    begun: list[subprocess.Popen[str]] = []

    def run(*args: str) -> subprocess.Popen[str]:
        spool_dir.parent.joinpath("home").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "queuectl", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("command", "fields", "code"),
    [
        ("true", {}, 0),
        ("exit 7", {}, 7),
        ("kill -9 $$", {}, 137),
        ("sleep 20", {"timeout": 0.2}, 124),
        (["no such program"], {}, 127),
    ],
)
def test_one_job_gives_its_exit_code(
    cli: Cli, spool_dir: Path, command: Any, fields: dict[str, Any], code: int
) -> None:
    """`wait JOB` exits with the code of the command; without one, with the codes of timeout(1) and the shell."""
    Spool(spool_dir).enqueue(command, id="a", max_retries=1, **fields)
    drain(spool_dir)

    assert cli("wait", "a", expect=code).stdout.startswith("a - ")


def test_several_jobs_give_one_if_any_is_dead(cli: Cli, spool_dir: Path) -> None:
    """Each job gets a line when it ends; with --json an array."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", tags=["t"])
    spool.enqueue("exit 7", id="b", tags=["t"], max_retries=1)
    drain(spool_dir)

    assert cli("wait", "a", "b", expect=1).stdout == "a - completed\nb - dead - Exit code 7\n"
    assert cli("wait", "--tag", "t", expect=1).stdout.count("\n") == 2
    assert json.loads(cli("wait", "a", "b", "--json", expect=1).stdout) == [
        {"id": "a", "state": "completed", "exit_code": 0, "last_error": None},
        {"id": "b", "state": "dead", "exit_code": 7, "last_error": "Exit code 7"},
    ]
    assert cli("wait", "a", "a", expect=0).stdout == "a - completed\n"


def test_job_that_fails_and_is_tried_again_is_waited_for(
    spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """A failed job has not ended: the last attempt counts."""
    flag = spool_dir.parent / "flag"
    spool = Spool(spool_dir)
    spool.enqueue(f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}", id="a", backoff_base=1)
    workers(1)

    assert spool.wait("a", timeout=20) == [Ended("a", "completed", 0)]
    assert spool.get("a").attempts == 2


def test_wait_ends_soon_after_the_jobs(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """The end of a job is noticed within a fraction of a second, in the order of the ends."""
    spool = Spool(spool_dir)
    gate = spool_dir.parent / "gate"
    os.mkfifo(gate)
    spool.enqueue(f"cat {gate} > /dev/null", id="a", timeout=0)
    spool.enqueue("true", id="b")
    workers(2)
    seen: list[tuple[str, float]] = []

    def tell(one: Ended) -> None:
        seen.append((one.id, time.monotonic()))
        if one.id == "b":
            gate.write_text("go")

    began = time.monotonic()
    spool.wait(["a", "b"], timeout=20, tell=tell)

    assert [job_id for job_id, _ in seen] == ["b", "a"]
    assert time.monotonic() - began < 5


def test_time_that_is_over_has_a_code_of_its_own(cli: Cli, spool_dir: Path) -> None:
    """Exit code 75 at the end of the time, with the remaining jobs; these are not changed."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.enqueue("true", id="b")

    late = cli("wait", "a", "b", "--timeout", "0.1", "--json", expect=75)

    assert [one["state"] for one in json.loads(late.stdout)] == ["not ended", "not ended"]
    assert "error: a and 1 more have not ended in that time" in late.stderr
    with pytest.raises(StillUnderWay) as error:
        spool.wait(["a", "b"], timeout=0)
    assert error.value.left == ["a", "b"]
    assert where_is(spool_dir, "a") == ["pending"]


def test_success_waits_no_longer_than_all_can_succeed(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """`--for success` ends at the first dead job."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 7", id="a", max_retries=1)
    spool.enqueue("sleep 60", id="b", timeout=0)
    workers(2)

    assert (
        cli("wait", "a", "b", "--for", "success", expect=1, timeout=20).stdout == "a - dead - Exit code 7\n"
    )


@pytest.mark.parametrize("how", ["rm", "forget"])
def test_removed_job_is_not_waited_for(spool_dir: Path, how: str) -> None:
    """A job that is deleted meanwhile has ended as removed."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", hold=True)
    spool.enqueue("true", id="b")
    drain(spool_dir)

    def remove(one: Ended) -> None:
        if one.id == "b":
            if how == "rm":
                (spool_dir / "pending" / "a.json").unlink()
            else:
                Spool(spool_dir).forget("a")

    found = spool.wait(["b", "a"], timeout=20, tell=remove)

    assert [(one.id, one.state, one.code) for one in found] == [("b", "completed", 0), ("a", "removed", 1)]


def test_job_that_is_nowhere_for_a_moment_is_not_removed(spool_dir: Path) -> None:
    """A job whose file is taken out of the spool and put back a tenth of a second later has not ended."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", hold=True)
    here, there = spool_dir / "pending" / "a.json", spool_dir.parent / "a.json"
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        waiting._read_index_at = 0.0  # or it would be looked for every two seconds
        if here.exists() and 1000.2 < now < 1000.3:
            here.rename(there)
        elif there.exists() and now > 1000.3:
            there.rename(here)
            moments.append(now)

    moments: list[float] = []
    waiting = Waiting(spool, ["a"], clock=lambda: now, sleep=sleep)
    with pytest.raises(StillUnderWay):
        waiting.run(1.5)
    assert moments, "it was away for a moment"

    assert waiting.ended == []
    assert here.exists()


def test_job_that_never_was_is_an_error(cli: Cli, spool_dir: Path) -> None:
    """A wrong id fails at once."""
    Spool(spool_dir).enqueue("true", id="a")

    assert "no job 'b'" in cli("wait", "a", "b", expect=1).stderr
    with pytest.raises(JobNotFound):
        Spool(spool_dir).wait("b")


def test_all_means_what_waits_or_runs_now(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Old dead jobs do not make `wait --all` fail; with a filter they count."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 7", id="old", max_retries=1, tags=["t"])
    drain(spool_dir)
    assert "no jobs to wait for" in cli("wait", "--all", expect=0).stderr
    spool.enqueue("true", id="a", tags=["t"])
    workers(1)

    assert cli("wait", "--all", expect=0, timeout=20).stdout in {"a - completed\n", ""}
    assert "old - dead" in cli("wait", "--tag", "t", expect=1).stdout
    assert "name the jobs" in cli("wait", expect=2).stderr


@pytest.mark.parametrize(
    ("prepare", "hint"),
    [
        (lambda _: None, "no worker runs: queuectl worker start"),
        (lambda spool: spool.pause("deploy"), ": deploy: queuectl resume"),
    ],
)
def test_what_keeps_the_jobs_from_running_is_told(
    cli: Cli, spool_dir: Path, prepare: Callable[[Spool], object], hint: str
) -> None:
    """If no worker runs, a note on stderr says so."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    prepare(spool)

    assert hint in cli("wait", "a", "--timeout", "0.1", expect=75).stderr


def test_waiting_for_what_nobody_starts_says_so(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """The note names the command that helps: for a held job, and where workers start nothing. It was a silent wait."""
    Spool(spool_dir).enqueue("true", id="a", hold=True)
    workers(1)

    assert "a is held: queuectl release a" in cli("wait", "a", "--timeout", "0.1", expect=75).stderr

    (spool_dir / "pending").chmod(0o777)
    told = cli("wait", "a", "--timeout", "0.1", expect=75).stderr
    assert f"note: workers start nothing: {spool_dir}/pending can be written by others" in told
    assert f"; chmod go-w {spool_dir}/pending\n" in told


def test_wait_survives_a_deleted_index(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]], workers: Callable[..., Any]
) -> None:
    """How a job ended is read from the folders."""
    gate = spool_dir.parent / "gate"
    Spool(spool_dir).enqueue(f"while [ ! -e {gate} ]; do sleep 0.05; done", id="a")
    workers(1)
    waiting = start("wait", "a")
    wait_until(lambda: where_is(spool_dir, "a") == ["processing/worker-0"])
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()
    gate.touch()

    assert waiting.communicate(timeout=20)[0] == "a - completed\n"
    assert waiting.returncode == 0


def test_long_wait_costs_next_to_nothing(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """After the first moments a wait uses less than one percent of a CPU."""
    drop(spool_dir, "a", command="true", hold=True)
    waiting = psutil.Process(start("wait", "a").pid)
    wait_until(lambda: cpu_in(waiting, 1) < 0.02, 30)

    assert cpu_in(waiting, 4) < 0.01 * 4


def test_ctrl_c_leaves_the_jobs_alone(spool_dir: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """`wait` only reads: when it is interrupted, nothing has changed."""
    Spool(spool_dir).enqueue("true", id="a")
    waiting = start("wait", "a")
    assert waiting.stderr is not None
    assert "no worker runs" in waiting.stderr.readline()

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(20) == 130
    assert where_is(spool_dir, "a") == ["pending"]


def test_terminal_gets_a_bar_and_a_sum(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """A terminal shows a progress bar, a line for each job that is not completed, and a summary."""
    spool = Spool(spool_dir)
    gate = spool_dir.parent / "gate"
    for number in range(3):
        command = f"until [ -e {gate} ]; do sleep 0.05; done"
        spool.enqueue(command, id=f"a{number}", tags=["t"], timeout=0)
    spool.enqueue("exit 7", id="bad", max_retries=1, tags=["t"], priority=9)
    workers(1)
    wait_until(lambda: finished(spool_dir, "bad"))

    def is_asked(one: psutil.Process) -> bool:
        with suppress(psutil.Error):  # a process of a job, which has just ended
            return one.cmdline()[-2:] == ["--tag", "t"]
        return False

    def open_later() -> None:
        wait_until(lambda: any(map(is_asked, processes_of(spool_dir))))
        time.sleep(1.5)  # not a wait: so long it shows the bar
        gate.touch()

    opener = threading.Thread(target=open_later)
    opener.start()
    seen = on_terminal("wait", "--tag", "t")
    opener.join()

    assert seen.code == 1
    assert "bad - dead - Exit code 7" in seen.text
    assert "waiting" in seen.text
    assert "/4" in seen.text
    assert seen.text.rstrip().endswith("3 completed, 1 dead")


# -- enqueue --wait ------------------------------------------------------------------------------------------------


def test_enqueue_wait_is_like_running_it_here(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Both streams are printed unchanged, and the exit code is the command's; the id is printed on stderr."""
    workers(1)

    done = cli(
        "enqueue", "--wait", "--max-retries", "1", "--id", "a", "echo out; echo err >&2; exit 3", expect=3
    )

    assert done.stdout == "out\n"
    assert done.stderr == "enqueued job a\nerr\na: Exit code 3\n"
    quiet = cli("enqueue", "--wait", "--quiet", "printf 'no newline'", expect=0)
    assert (quiet.stdout, quiet.stderr) == ("no newline", "")


def test_enqueue_wait_goes_on_through_the_attempts(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """The output of each attempt is printed; the last exit code counts."""
    workers(1)
    flag = spool_dir.parent / "flag"

    done = cli("enqueue", "--wait", "--backoff-base", "1", f"echo try; [ -e {flag} ] || {{ touch {flag}; exit 1; }}",
               expect=0)  # fmt: skip

    assert done.stdout == "try\ntry\n"


def test_enqueue_wait_with_json_tells_the_end(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """--json has the result, without the output."""
    workers(1)

    done = cli("enqueue", "--wait", "--json", "--id", "a", "--max-retries", "1", "echo x; exit 5", expect=5)

    assert json.loads(done.stdout) == [
        {"id": "a", "state": "dead", "exit_code": 5, "last_error": "Exit code 5"}
    ]


def test_enqueue_wait_without_a_worker_says_so(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Without a worker it still waits, and Ctrl+C cancels the job."""
    waiting = start("enqueue", "--wait", "--id", "a", "true")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "enqueued job a\n"
    assert "no worker runs: queuectl worker start" in waiting.stderr.readline()

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(20) == 130
    assert where_is(spool_dir, "a") == ["dead"]


def test_ctrl_c_ends_the_job_that_is_waited_for(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]], workers: Callable[..., Any]
) -> None:
    """Ctrl+C cancels a running job; its last output is still printed."""
    workers(1)
    waiting = start("enqueue", "--wait", "--id", "a", "--timeout", "0",
                    "trap 'echo bye; exit 1' TERM; echo up; while :; do sleep 0.1; done")  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "up\n"

    waiting.send_signal(signal.SIGINT)

    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (130, "bye\n")
    assert "cancelling a" in err
    wait_until(lambda: where_is(spool_dir, "a") == ["dead"])
    assert Spool(spool_dir).get("a").last_error == "Cancelled"


def test_waiter_that_is_killed_leaves_the_job_in_the_queue(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """What is killed cannot cancel, and the job is not lost."""
    waiting = start("enqueue", "--wait", "--id", "a", "true")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "enqueued job a\n"

    waiting.kill()
    waiting.wait(20)

    assert where_is(spool_dir, "a") == ["pending"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_waiter_that_is_told_to_end_cancels_its_job(
    spool_dir: Path, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    """Whoever ends a script, or closes its terminal, ends the command that it waits for, as with any other command."""
    waiting = start("enqueue", "--wait", "--id", "a", "true")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "enqueued job a\n"

    waiting.send_signal(number)

    assert waiting.wait(20) == 128 + number
    assert where_is(spool_dir, "a") == ["dead"]


def test_wait_is_for_one_job(cli: Cli, spool_dir: Path) -> None:
    """A file of jobs cannot be used with --wait."""
    refused = cli("enqueue", "--wait", "--file", "-", stdin="{}", expect=2)

    assert "--wait works only with one job" in refused.stderr
    assert not spool_dir.exists()
