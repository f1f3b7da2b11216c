"""Commands as a worker runs them: how they end, what they print, and what they find around them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool, Worker
from queuectl.control import registry
from queuectl.errors import SpoolError, StartRefused
from queuectl.executor.local import LocalRunner
from queuectl.layout import Layout
from queuectl.system.process_tree import TreeTermination

import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.executor.base import Attempt, Running
    from queuectl.job.outcome import Outcome

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def run_one(spool_dir: Path, command: str | list[str], **fields: Any) -> dict[str, Any]:
    """Run one job once in a worker, and a second one to see that the worker goes on; returns the first one's record."""
    spool = Spool(spool_dir)
    spool.enqueue(command, id="job1", **{"max_retries": 1, "priority": 9, **fields})
    spool.enqueue("true", id="next", priority=1)
    support.drain(spool_dir)
    assert support.where_is(spool_dir, "next") == ["done"], "the worker did not go on"
    (place,) = support.where_is(spool_dir, "job1")
    return support.load(spool_dir / place / "job1.json")


def log_of(spool_dir: Path, stream: str = "out", run: int = 1) -> bytes:
    """What a run of job1 wrote; nothing if there is no log."""
    path = spool_dir / "logs" / f"job1.{run}.{stream}"
    return path.read_bytes() if path.exists() else b""


# -- how they end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("exit 3", 3, "Exit code 3"),
        ("no-such-program-anywhere", 127, "Exit code 127 (command not found)"),
        ("/etc/passwd", 126, "Exit code 126 (not executable)"),
        ("kill -9 $$", 137, "Killed by signal 9 (SIGKILL)"),
        ("kill -15 $$", 143, "Killed by signal 15 (SIGTERM)"),
        (["false"], 1, "Exit code 1"),
        (["no-such-program-anywhere"], None, "Cannot start: no program 'no-such-program-anywhere' found"),
    ],
    ids=["exit", "unknown", "no right", "KILL", "TERM", "list", "no program"],
)
def test_each_way_to_fail_has_its_own_words(
    spool_dir: Path, command: str | list[str], code: int | None, error: str
) -> None:
    """T16 and SPEC 4: a nonzero exit, a signal, a missing program: the job fails, the worker lives."""
    record = run_one(spool_dir, command)

    assert record["state"] == "dead"
    assert (record.get("exit_code"), record["last_error"]) == (code, error)


def test_job_that_ends_well_says_so(spool_dir: Path) -> None:
    """Exit code, timings and worker stand in the file in done/."""
    before = time.time()

    record = run_one(spool_dir, "sleep 0.2; echo hi")

    assert record["state"] == "completed"
    assert (record["exit_code"], record["attempts"], record["worker"]) == (0, 1, "worker-0")
    assert 0.2 <= record["duration"] <= time.time() - before
    assert "last_error" not in record
    assert record["started_at"] < record["finished_at"]
    assert record["output"] == "hi\n"


def test_timeout_of_its_own_is_worded_plainly(spool_dir: Path) -> None:
    """The text that was asked for: `Timeout exceeded (5s)`, no more, when the job chose its limit."""
    record = run_one(spool_dir, "sleep 60", timeout=1)

    assert record["last_error"] == "Timeout exceeded (1s)"
    assert record["history"][0]["outcome"] == "timed_out"
    assert 1 <= record["duration"] < 20


def test_timeout_by_default_is_not_repeated_and_says_how_to_give_more(spool_dir: Path, cli: Cli) -> None:
    """The same limit would end each further attempt, and nobody chose it. The hint works as it stands there."""
    cli("config", "set", "timeout", "0.3", expect=0)

    record = run_one(spool_dir, "sleep 0.9", max_retries=3, backoff_base=1)

    assert (record["state"], record["attempts"]) == ("dead", 1)
    fact, _, hint = record["last_error"].partition("give it more: queuectl ")
    assert fact.startswith("Timeout exceeded (0.3s); this is the default limit")
    cli(*hint.split(), expect=0)
    support.drain(spool_dir)
    assert support.where_is(spool_dir, "job1") == ["done"]


def test_timeout_by_default_is_not_repeated_for_a_dropped_file(spool_dir: Path, cli: Cli) -> None:
    """It was tried three times: the index keeps the settings of a file that it knows before a worker takes it."""
    cli("config", "set", "timeout", "0.3", expect=0)
    support.drop(spool_dir, "job1", command="sleep 60", max_backoff=0)
    support.drop(spool_dir, "job2", command="sleep 60", max_backoff=0, timeout=0.3, max_retries=2)
    Spool(spool_dir).refresh()

    support.drain(spool_dir, wait_retries=True)

    for job_id, attempts in (("job1", 1), ("job2", 2)):
        record = support.load(spool_dir / "dead" / f"{job_id}.json")
        assert (job_id, record["attempts"]) == (job_id, attempts)
        assert ("default limit" in record["last_error"]) == (job_id == "job1")


@pytest.mark.parametrize("how", ["by the producer", "by a change"])
def test_a_chosen_timeout_is_repeated_although_it_equals_the_default(
    spool_dir: Path, cli: Cli, how: str
) -> None:
    """Who writes the limit of the settings into the job has chosen it, and its attempts."""
    cli("config", "set", "timeout", "0.2", expect=0)
    given: dict[str, Any] = {"timeout": 0.2} if how == "by the producer" else {}
    Spool(spool_dir).enqueue("sleep 60", id="job1", max_retries=2, backoff_base=1, max_backoff=0, **given)
    if not given:
        cli("set", "job1", "timeout=0.2", expect=0)

    support.drain(spool_dir, wait_retries=True)

    record = support.load(spool_dir / "dead" / "job1.json")
    assert (record["attempts"], record["last_error"]) == (2, "Timeout exceeded (0.2s)")


def test_timeout_ends_the_whole_tree(spool_dir: Path) -> None:
    """T22: the shell, its children, those in the background, and those that ignore TERM are all ended."""
    command = "sleep 61 & (trap '' TERM; sleep 62; sleep 63) & setsid sleep 64 & sleep 65"
    (spool_dir).mkdir(mode=0o700)
    (spool_dir / "config.yaml").write_text("kill_grace: 1\n")

    record = run_one(spool_dir, command, timeout=1)

    assert record["last_error"].startswith("Timeout exceeded (1s)")
    assert support.processes_of(spool_dir) == []


def test_output_before_a_timeout_is_kept(spool_dir: Path) -> None:
    """People look for the reason in what the job has written until then."""
    record = run_one(spool_dir, "echo got here; sleep 60", timeout=0.5)

    assert record["output"] == "got here\n"
    assert log_of(spool_dir) == b"got here\n"


# -- what they print ---------------------------------------------------------------------------------------------------


def test_both_streams_of_a_failing_command_are_shown(spool_dir: Path, cli: Cli) -> None:
    """T28: logs, show and the file tell stdout and stderr of a command that failed."""
    record = run_one(spool_dir, "echo to stdout; echo to stderr >&2; exit 3")

    logs = cli("logs", "job1", expect=0)
    assert (logs.stdout, logs.stderr) == ("to stdout\n", "to stderr\n")
    assert cli("logs", "job1", "--stderr", expect=0).stdout == "to stderr\n"
    assert record["output"] == "to stdout\nto stderr\n"
    shown = cli("show", "job1", expect=0).stdout
    assert "to stdout" in shown
    assert "to stderr" in shown


def test_every_attempt_keeps_its_log(spool_dir: Path, cli: Cli) -> None:
    """A later attempt does not overwrite what an earlier one said."""
    run_one(spool_dir, 'echo "attempt $QUEUECTL_ATTEMPT"; exit 1', max_retries=3, backoff_base=1)
    support.drain(spool_dir, wait_retries=True)

    for run in (1, 2, 3):
        assert cli("logs", "job1", "--attempt", str(run), expect=0).stdout == f"attempt {run}\n"
    assert cli("logs", "job1", expect=0).stdout == "attempt 3\n"


def test_output_that_is_no_text_harms_nobody(spool_dir: Path) -> None:
    """T26: all 256 bytes: the job is completed, the log has them as they are, the file has replacements."""
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 3)"

    record = run_one(spool_dir, [sys.executable, "-c", script])

    assert record["state"] == "completed"
    assert log_of(spool_dir) == bytes(range(256)) * 3
    assert "\ufffd" in record["output"]
    assert "abc" in record["output"]


def test_ten_megabytes_on_both_streams_are_kept(spool_dir: Path) -> None:
    """T24: more than any pipe holds, on both streams at once, within the default limits: success, nothing cut."""
    size = 10_000_000
    command = f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait"

    record = run_one(spool_dir, command)

    assert record["state"] == "completed"
    assert (len(log_of(spool_dir)), len(log_of(spool_dir, "err"))) == (size, size)
    assert len(record["output"]) < 20_000
    assert "bytes cut" in record["output"]


def test_flood_is_cut_visibly(spool_dir: Path, cli: Cli) -> None:
    """T25 in small: past log_limit the head and a note are kept, and the job is not disturbed."""
    cli("config", "set", "log_limit", "100K", expect=0)

    record = run_one(spool_dir, "seq 1000000; echo done >&2")

    assert record["state"] == "completed"
    log = log_of(spool_dir)
    assert log.startswith(b"1\n2\n3\n")
    assert b"[queuectl: output cut at 102400 bytes]" in log
    assert len(log) < 103_000
    assert log_of(spool_dir, "err") == b"done\n"


@pytest.mark.slow
def test_200_megabytes_fit_into_little_memory_and_disk(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """T25: a job that floods costs the worker no memory, and the disk only what the limit says."""
    workers(1)
    (worker,) = Spool(spool_dir).workers()
    process = psutil.Process(worker.pid)
    before = process.memory_info().rss
    most = [before]
    command = "head -c 200000000 /dev/zero | tr '\\0' x"
    cli("enqueue", "--id", "job1", "--timeout", "0", "--command", command, expect=0)

    def over() -> bool:
        most.append(process.memory_info().rss)
        return support.finished(spool_dir, "job1")

    support.wait_until(over, timeout=50, message="the flood to end")

    assert support.where_is(spool_dir, "job1") == ["done"]
    assert max(most) - before < 32 << 20
    assert (10 << 20) <= len(log_of(spool_dir)) < 11 << 20
    assert b"[queuectl: output cut at" in log_of(spool_dir)


def test_follower_sees_output_while_the_job_runs(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """`logs -f` passes on what comes as it comes, and ends with the job."""
    command = f"echo begun; until [ -e '{spool_dir}/go' ]; do sleep 0.05; done; echo ended"
    cli("enqueue", "--id", "job1", "--timeout", "0", "--command", command, expect=0)
    workers(1)
    words = [sys.executable, "-m", "queuectl", "logs", "-f", "job1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        (spool_dir / "go").touch()
        assert follower.stdout.read() == "ended\n"
    assert follower.returncode == 0


# -- background children -----------------------------------------------------------------------------------------------


def test_background_child_does_not_hold_the_job_up(spool_dir: Path) -> None:
    """T23: the job ends with its shell. Its background process keeps running, and all output is kept."""
    record = run_one(spool_dir, "sleep 60 & echo started")

    left = support.processes_of(spool_dir)
    names = [process.name() for process in left]
    support.end_all(left)
    assert names == ["sleep"]
    assert record["state"] == "completed"
    assert record["duration"] < 20
    assert record["output"] == "started\n"


def test_background_child_writes_into_no_other_jobs_output(spool_dir: Path) -> None:
    """What a child writes after its job has ended goes to its own job's log, and never to the next job's."""
    gate = spool_dir / "go"
    spool = Spool(spool_dir)
    late = f"(until [ -e '{gate}' ]; do sleep 0.02; done; echo late; echo late >&2) & echo early"
    spool.enqueue(late, id="job1", priority=9)
    next_job = f"echo mine; touch '{gate}'; sleep 0.5; echo still mine"
    spool.enqueue(next_job, id="job2", priority=1)

    support.drain(spool_dir)
    support.wait_until(lambda: not support.processes_of(spool_dir), message="the child to end")

    assert (spool_dir / "logs" / "job2.1.out").read_bytes() == b"mine\nstill mine\n"
    assert not (spool_dir / "logs" / "job2.1.err").exists()
    assert support.load(spool_dir / "done" / "job2.json")["output"] == "mine\nstill mine\n"
    assert log_of(spool_dir) == b"early\nlate\n"
    assert log_of(spool_dir, "err") == b"late\n"


def test_background_child_is_not_taken_for_a_worker(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """T32: it holds none of the worker's locks. When the worker has left, no worker is listed, and its name is free."""
    cli("enqueue", "--id", "job1", "--command", "sleep 60 & true", expect=0)
    workers(1, "--drain")
    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")
    support.wait_until(lambda: not Spool(spool_dir).workers(), message="the worker to leave")

    assert json.loads(cli("status", "--json", expect=0).stdout)["workers"] == 0
    assert workers(1).stdout.startswith("[worker-0] started")
    cli("enqueue", "--id", "job2", "--command", "true", expect=0)
    support.wait_until(lambda: support.finished(spool_dir, "job2"), message="the next worker's job")
    assert cli("worker", "stop", expect=0).stdout == "Stopped 1 worker(s)\n"


# -- what they find ----------------------------------------------------------------------------------------------------


def variables(spool_dir: Path, run: int = 1) -> dict[str, str]:
    """The variables that job1 saw, from the output of `env -0`."""
    pairs = [pair.partition("=") for pair in log_of(spool_dir, run=run).decode().split("\0") if pair]
    return {name: value for name, _, value in pairs}


def test_job_knows_who_it_is(spool_dir: Path) -> None:
    """SPEC 2: id, attempt, number of attempts, spool and worker stand in its environment."""
    run_one(spool_dir, "env -0; exit 1", max_retries=2, backoff_base=1)
    support.drain(spool_dir, wait_retries=True)

    for run in (1, 2):
        seen = variables(spool_dir, run)
        wanted = {"JOB_ID": "job1", "ATTEMPT": str(run), "MAX_RETRIES": "2", "WORKER": "worker-0"}
        assert {name: seen[f"QUEUECTL_{name}"] for name in wanted} == wanted
        assert seen["QUEUECTL_SPOOL"] == str(spool_dir)


def test_max_retries_of_zero_is_told_as_one_run(spool_dir: Path) -> None:
    """QUEUECTL_ATTEMPT never exceeds QUEUECTL_MAX_RETRIES: a script may compare them to know its last chance."""
    run_one(spool_dir, "env -0", max_retries=0)

    seen = variables(spool_dir)
    assert (seen["QUEUECTL_ATTEMPT"], seen["QUEUECTL_MAX_RETRIES"]) == ("1", "1")


def test_variables_of_a_job_come_on_top_of_the_workers(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`env` adds and overrides; it cannot take away the marks by which a run's processes are found."""
    monkeypatch.setenv("FROM_WORKER", "worker's")
    monkeypatch.setenv("IN_BOTH", "worker's")
    monkeypatch.setenv("QUEUECTL_ATTEMPT", "99")

    run_one(
        spool_dir, ["env", "-0"], env={"IN_BOTH": "job's", "GRÜSSE": "ä=ö\n", "QUEUECTL_JOB_ID": "somebody"}
    )

    seen = variables(spool_dir)
    assert (seen["FROM_WORKER"], seen["IN_BOTH"], seen["GRÜSSE"]) == ("worker's", "job's", "ä=ö\n")
    assert (seen["QUEUECTL_JOB_ID"], seen["QUEUECTL_ATTEMPT"]) == ("job1", "1")


@pytest.fixture
def _nothing_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal reaches a job, as if its processes belonged to another user."""
    monkeypatch.setattr("queuectl.system.process_tree.UNKILLABLE", 0.1)
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.05)
    for name in ("_send", "_signal_group"):
        monkeypatch.setattr(TreeTermination, name, lambda *_: None)


@pytest.mark.usefixtures("_nothing_can_be_ended")
def test_a_run_that_cannot_be_ended_has_no_next_one_beside_it(spool_dir: Path) -> None:
    """The next attempt waits for its end, and the log says for which process."""
    home = spool_dir.parent / "home"
    command = (
        "cd; mkdir runs || touch beside; until [ -e told ]; do sleep 0.05; done; rm told; rmdir runs; exit 1"
    )
    told: list[str] = []

    def say(line: str) -> None:
        if line.startswith("cannot end job1: process "):
            told.append(line)
            (home / "told").touch()

    support.drop(
        spool_dir, "job1", command=command, timeout=0.1, max_retries=2, backoff_base=1, max_backoff=0
    )
    (spool_dir / "config.yaml").write_text("kill_grace: 0\n")
    spool_dir.chmod(0o700)

    Worker(spool_dir, drain=True, wait_retries=True, say=say).run()

    record = support.load(spool_dir / "dead" / "job1.json")
    assert [entry["outcome"] for entry in record["history"]] == ["timed_out", "timed_out"]
    assert not (home / "beside").exists()
    assert len(told) == 2
    assert "and is waited for" in told[0]


@pytest.mark.usefixtures("_nothing_can_be_ended")
def test_a_forced_stop_leaves_what_cannot_be_ended_to_others(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker can always be stopped. Nobody takes its name or runs the job again while a process of it is alive."""
    support.drop(spool_dir, "job1", command="touch $HOME/up; exec sleep 60", timeout=0)
    (spool_dir / "config.yaml").write_text("kill_grace: 0\n")
    spool_dir.chmod(0o700)
    monkeypatch.chdir("/")
    worker = Worker(spool_dir, runner=LocalRunner(may_chdir=True))
    home = spool_dir.parent / "home"

    def stop_when_up() -> bool:
        if (home / "up").exists():
            worker.stop(force=True)
        return False

    worker.leave_when(stop_when_up)

    worker.run()

    assert support.where_is(spool_dir, "job1") == ["processing/worker-0"]
    (left,) = support.processes_of(spool_dir)
    monkeypatch.setattr("queuectl.storage.orphaned_runs._GRACE", 0)
    said = support.drain(spool_dir)
    assert "cannot take back job1: processes of its run are still alive" in said
    assert support.where_is(spool_dir, "job1") == ["processing/worker-0"]
    left.kill()
    left.wait(5)


@pytest.mark.usefixtures("_nothing_can_be_ended")
def test_what_a_dead_worker_left_and_cannot_be_ended_holds_up_no_job(
    spool_dir: Path, workers: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second a worker waited six for its end: no job started meanwhile, and none was ended at its timeout."""
    monkeypatch.setattr("queuectl.system.process_tree.UNKILLABLE", 5.0)
    monkeypatch.setattr("queuectl.system.process_tree.ORPHAN_PATIENCE", 1.0)
    support.drop(spool_dir, "job1", command="touch $HOME/up; exec sleep 60", timeout=0)
    spool_dir.chmod(0o700)
    workers(1)
    support.wait_until((spool_dir.parent / "home" / "up").exists)
    victim = psutil.Process(registry.live_workers(Layout(spool_dir))[0].pid)
    victim.kill()
    support.wait_until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    for number in range(8):
        support.drop(spool_dir, f"next{number}", command="sleep 0.3")
    monkeypatch.setattr("queuectl.storage.orphaned_runs._GRACE", 0)

    began = time.monotonic()
    said = support.drain(spool_dir)

    assert time.monotonic() - began < 6
    assert "cannot take back job1: processes of its run are still alive" in said
    assert len(list((spool_dir / "done").iterdir())) == 8


class _RefusesTwice(LocalRunner):
    """Starts nothing at first, as a machine that has no process left."""

    refused = 0

    def start(self, attempt: Attempt) -> Running | Outcome:
        self.refused += 1
        if self.refused <= 2:
            raise StartRefused("cannot start a process: no room")
        return super().start(attempt)


def test_a_machine_that_starts_nothing_pauses_the_worker_uncharged(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No attempt is used up, and the log says why nothing runs and when it goes on."""
    monkeypatch.setattr("queuectl.worker.slots.FAULT_PAUSE", 0.01)
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.05)
    answers = itertools.cycle([False, True])
    monkeypatch.setattr("queuectl.worker.upkeep.can_start", lambda: next(answers))
    support.drop(spool_dir, "job1", command="true", max_retries=1)
    said: list[str] = []

    Worker(spool_dir, drain=True, runner=_RefusesTwice(), say=said.append).run()

    record = support.load(spool_dir / "done" / "job1.json")
    assert [entry["outcome"] for entry in record["history"]] == ["succeeded"]
    assert [line for line in said if line.startswith(("pausing", "resuming"))] == [
        "pausing: cannot start a process: no room",
        "resuming: processes can be started again",
    ] * 2


class _LosesTheFirst(LocalRunner):
    """Ends its first attempt, and then says that it cannot follow it any more."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def start(self, attempt: Attempt) -> Running | Outcome:
        self.started += 1
        if self.started > 1:
            return super().start(attempt)
        return _Lost()


class _Lost:
    def has_begun(self) -> bool:
        return True

    def session(self) -> None:
        return None

    def wait_fd(self) -> None:
        return None

    def next_poll(self) -> float:
        return 0.0

    def poll(self) -> Outcome | None:
        raise SpoolError("the engine is gone")

    def cannot_end(self) -> None:
        return None

    def cancel(self, *_: object, **__: object) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


def test_a_run_that_the_runner_lost_is_put_back_and_the_worker_goes_on(spool_dir: Path) -> None:
    """Otherwise one lost run would end the worker, and be charged to the job as a crash."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job1")
    said: list[str] = []

    Worker(spool_dir, drain=True, runner=_LosesTheFirst(), say=said.append).run()

    assert support.where_is(spool_dir, "job1") == ["done"]
    assert support.load(spool_dir / "done" / "job1.json")["attempts"] == 1
    assert any("cannot run job1 now: the engine is gone" in line for line in said)


def test_stdin_is_empty(spool_dir: Path) -> None:
    """T32: a command that reads its input ends at once instead of taking the worker's terminal."""
    record = run_one(spool_dir, "cat; echo $?")

    assert record["state"] == "completed"
    assert record["output"] == "0\n"


def test_list_runs_without_a_shell(spool_dir: Path) -> None:
    """No variable, no glob, no quoting: the words arrive as they are."""
    record = run_one(spool_dir, ["printf", "%s|", "$HOME", "*", "a  b", "'", "ö"])

    assert record["output"] == "$HOME|*|a  b|'|ö|"


def test_enqueued_job_runs_where_it_was_enqueued(spool_dir: Path, cli: Cli, tmp_path: Path) -> None:
    """SPEC 2: the caller's current directory, also for --cwd given relative to it."""
    here = tmp_path / "some where"
    (here / "inner").mkdir(parents=True)
    cli("enqueue", "--id", "here", "--command", "pwd", cwd=here, expect=0)
    cli("enqueue", "--id", "inner", "--cwd", "inner", "--command", "pwd", cwd=here, expect=0)
    cli("enqueue", "--id", "top", "--cwd", "/", "--command", "pwd", cwd=here, expect=0)

    support.drain(spool_dir)

    outputs = [
        support.load(spool_dir / "done" / f"{name}.json")["output"] for name in ("here", "inner", "top")
    ]
    assert outputs == [f"{here}\n", f"{here}/inner\n", "/\n"]


def test_dropped_file_runs_at_home(spool_dir: Path) -> None:
    """SPEC 2: the home of the worker's user; a relative path starts there, and ~ means it."""
    home = os.environ["HOME"]
    os.makedirs(f"{home}/inner")
    support.drop(spool_dir, "none", command="pwd")
    support.drop(spool_dir, "relative", command="pwd", cwd="inner")
    support.drop(spool_dir, "tilde", command="pwd", cwd="~/inner")

    support.drain(spool_dir)

    outputs = [
        support.load(spool_dir / "done" / f"{name}.json")["output"] for name in ("none", "relative", "tilde")
    ]
    assert outputs == [f"{home}\n", f"{home}/inner\n", f"{home}/inner\n"]


def test_folder_that_is_gone_is_the_jobs_failure(spool_dir: Path, tmp_path: Path) -> None:
    """The command is not run in another folder instead."""
    record = run_one(spool_dir, f"touch '{tmp_path}/ran'", cwd=str(tmp_path / "gone"))

    assert record["last_error"] == f"Cannot start: the folder {tmp_path}/gone does not exist"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("printf a; printf a >&2", "a\na"),
        ("printf a", "a"),
        ("printf a >&2", "a"),
        ("echo a; printf b >&2", "a\nb"),
    ],
)
def test_both_streams_are_repeated_one_below_the_other(spool_dir: Path, command: str, output: str) -> None:
    """A line end is put between the two streams if the first has none. A single stream is not changed."""
    assert run_one(spool_dir, command)["output"] == output
