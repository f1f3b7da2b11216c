"""One attempt as a process tree: how it starts, how it ends, and that nothing of it is left behind."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

from queuectl.errors import SpoolError, StartRefused
from queuectl.executor import launcher
from queuectl.executor.base import Attempt, Running
from queuectl.executor.local import LocalRunner
from queuectl.job.outcome import Ending, Outcome
from queuectl.system.files import token
from queuectl.system.process import keep_descriptors_private
from queuectl.system.process_tree import TreeTermination, find_tree, group_exists, terminate_tree

from support import no_thread_to_have, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


class Bench:
    """Starts attempts in a temporary folder, with marks of their own."""

    def __init__(self, folder: Path, runner: LocalRunner, slot: int = 0) -> None:
        self.folder, self.slot = folder, slot
        self.runner = runner
        self.marks = {"QUEUECTL_RUN": token(), "QUEUECTL_JOB_ID": "job1"}
        self.out = folder / "job.out"
        self.err = folder / "job.err"
        self._started: list[Running] = []

    def attempt(self, command: str | list[str], **changes: Any) -> Attempt:
        """The attempt of a command, with changed fields."""
        fields: dict[str, Any] = {
            "cwd": str(self.folder),
            "env": {"PATH": os.environ["PATH"], **self.marks},
            "timeout": 20,
            "grace": 2,
            "stdout": str(self.out),
            "stderr": str(self.err),
            "lock_fd": None,
            "marks": self.marks,
            "log_limit": 0,
            "slot": self.slot,
        }
        return Attempt(command, **{**fields, **changes})

    def start(self, command: str | list[str], **changes: Any) -> Running:
        """Start it; it must start."""
        running = self.runner.start(self.attempt(command, **changes))
        assert not isinstance(running, Outcome), running
        self._started.append(running)
        while not running.has_begun():
            fd = running.wait_fd()
            assert fd is not None
            assert select.select([fd], [], [], 20)[0]
            running._begins()  # type: ignore[attr-defined]  # poll() would also collect its exit code
        return running

    def run(self, command: str | list[str], **changes: Any) -> Outcome:
        """Start it and wait for its end."""
        return wait_for(self.start(command, **changes))

    def refuse(self, command: str | list[str], **changes: Any) -> str:
        """The reason why a command cannot start; it must not start."""
        found = self.runner.start(self.attempt(command, **changes))
        outcome = found if isinstance(found, Outcome) else wait_for(found)
        assert (outcome.ending, outcome.exit_code) == (Ending.NOT_STARTED, None)
        assert outcome.error
        return outcome.error

    def text(self) -> str:
        """What the last job wrote to stdout."""
        return self.out.read_text()

    def close(self) -> None:
        """End whatever still runs."""
        for running in self._started:
            running.cancel(Ending.STOPPED, now=True)
            wait_for(running)
            running.close()
        for left in find_tree(self.marks):
            left.kill()
        wait_until(lambda: not find_tree(self.marks), message="an empty process tree")


def wait_for(running: Running, *, at_most: float = 30) -> Outcome:
    """Wait as a worker does: for the descriptor, and at most until next_poll()."""
    end = time.monotonic() + at_most
    while (outcome := running.poll()) is None:
        assert time.monotonic() < end, "the attempt does not come to its end"
        look = running.next_poll()
        pause = max(0.0, (end if look is None else look) - time.monotonic())
        fd = running.wait_fd()
        select.select([] if fd is None else [fd], [], [], pause)
    return outcome


def pid_of(running: Running) -> int:
    """The first process of an attempt, which leads its session."""
    session = running.session()
    assert session is not None
    return session.leader


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(params=["by posix_spawn", "by Popen", "in a thread"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench whose processes are gone at the end, for each way to start them."""
    here = os.getcwd()
    runner = LocalRunner(may_chdir=request.param != "by Popen")
    made = Bench(tmp_path, runner, slot=int(request.param == "in a thread"))
    yield made
    made.close()
    os.chdir(here)


@pytest.mark.parametrize(
    ("command", "ending", "code", "error"),
    [
        ("exit 0", Ending.SUCCEEDED, 0, None),
        ("exit 3", Ending.FAILED, 3, "Exit code 3"),
        ("no-such-command-xyz", Ending.FAILED, 127, "Exit code 127 (command not found)"),
        ("/etc/passwd", Ending.FAILED, 126, "Exit code 126 (not executable)"),
        ("kill -9 $$", Ending.SIGNALLED, 137, "Killed by signal 9 (SIGKILL)"),
        ("kill -34 $$", Ending.SIGNALLED, 162, "Killed by signal 34 (SIGRTMIN)"),
        ("kill -35 $$", Ending.SIGNALLED, 163, "Killed by signal 35"),
        ("sh -c 'kill -9 $$'; exit $?", Ending.FAILED, 137, "Exit code 137 (128 + 9: SIGKILL)"),
        (["sh", "-c", "exit 127"], Ending.FAILED, 127, "Exit code 127"),
    ],
)
def test_an_end_is_named_and_worded(
    bench: Bench, command: str | list[str], ending: Ending, code: int, error: str | None
) -> None:
    """Each way to end has its own ending, exit code and error text."""
    outcome = bench.run(command)

    assert (outcome.ending, outcome.exit_code, outcome.error) == (ending, code, error)
    assert outcome.duration > 0
    assert outcome.leftovers == 0


def test_what_cannot_start_says_why(bench: Bench) -> None:
    """A missing program, folder or interpreter, or a command too long: each has its own error text."""
    plain = bench.folder / "plain"
    plain.write_text("echo hi\n")
    broken = bench.folder / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    noise = bench.folder / "noise"
    noise.write_bytes(b"\0\1\2")
    noise.chmod(0o755)

    assert bench.refuse(["no-such-xyz"]) == "Cannot start: no program 'no-such-xyz' found"
    assert bench.refuse("true", cwd="/no/x") == "Cannot start: the folder /no/x does not exist"
    assert bench.refuse("true", cwd="/etc/passwd") == "Cannot start: /etc/passwd is not a folder"
    assert bench.refuse(["./plain"]) == "Cannot start: './plain' is not executable"
    assert "first line" in bench.refuse(["./broken"])
    assert bench.refuse(["./noise"]) == "Cannot start: './noise' is not a program this system can run"
    assert "too long" in bench.refuse("true " + "x" * 1_000_000)
    assert "cannot be passed on" in bench.refuse(["echo", "a\0b"])
    assert "cannot be passed on" in bench.refuse(["echo", "\ud800"])


def test_a_program_is_found_on_the_path_of_its_own_environment(bench: Bench) -> None:
    """A list command is looked up where the job's PATH says, not the worker's."""
    script = bench.folder / "bin" / "greet"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)

    assert bench.run(["greet"], env={"PATH": str(script.parent)}).ending is Ending.SUCCEEDED
    assert bench.text() == "hello\n"


def test_a_list_runs_without_a_shell(bench: Bench) -> None:
    """Nothing in a list is expanded or split."""
    bench.run(["printf", "%s|", "$HOME", "a b", "*", ";"])

    assert bench.text() == "$HOME|a b|*|;|"


def test_both_streams_go_to_their_files_and_old_content_is_gone(bench: Bench) -> None:
    """A recycled scratch file never shows what an earlier run wrote."""
    bench.out.write_text("old " * 100)
    bench.err.write_text("old " * 100)

    bench.run("echo out; echo err >&2")

    assert (bench.text(), bench.err.read_text()) == ("out\n", "err\n")
    assert bench.run("true").ending is Ending.SUCCEEDED
    assert bench.text() == ""


def test_new_output_files_are_private(bench: Bench) -> None:
    """Output can hold secrets: 0600 from its first moment."""
    bench.run("echo secret")

    assert bench.out.stat().st_mode & 0o777 == 0o600


def test_an_output_file_that_cannot_be_made_is_no_failure_of_the_job(bench: Bench) -> None:
    """It is an error of the spool, not of the job, and no descriptor is left open."""
    before = psutil.Process().num_fds()

    with pytest.raises(SpoolError, match="output"):
        bench.runner.start(bench.attempt("true", stderr="/no/such/folder/err"))

    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_a_machine_that_starts_nothing_is_no_failure_of_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No process, no memory, no descriptor: this would be so for any command."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_spawn", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(launcher, "posix_spawn", refuse)

    with pytest.raises(StartRefused, match="cannot start a process"):
        wait_for(cast("Running", bench.runner.start(bench.attempt("true"))))


def test_a_machine_without_a_free_thread_starts_jobs_all_the_same(bench: Bench) -> None:
    """At the limit of processes a worker with many slots ended with "can't start new thread", as if it were a bug."""
    with no_thread_to_have():
        assert bench.run("exit 3").exit_code == 3


def test_stdin_is_empty(bench: Bench) -> None:
    """A command that reads its input ends at once instead of waiting for a terminal."""
    assert bench.run("cat", timeout=5).ending is Ending.SUCCEEDED


def test_a_job_is_a_session_of_its_own(bench: Bench) -> None:
    """Ctrl+C in the worker's terminal goes to the worker alone."""
    running = bench.start(["sleep", "30"])

    assert os.getsid(pid_of(running)) == os.getpgid(pid_of(running)) == pid_of(running) != os.getsid(0)


def test_the_locks_are_inherited_and_nothing_else(bench: Bench) -> None:
    """They are held as long as the job lives; no other descriptor of the worker leaks into it, nor does another job's."""
    names = ("run.lock", *(f"permit{number}" for number in range(15)))
    lock, *permits = (os.open(bench.folder / name, os.O_RDWR | os.O_CREAT) for name in names)
    other = os.open(bench.folder / "secret", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(other, True)
    try:
        keep_descriptors_private()
        bench.run("for fd in /proc/self/fd/*; do readlink $fd; done", lock_fd=lock, permit_fds=tuple(permits))
        assert not any(map(os.get_inheritable, (lock, *permits)))
    finally:
        for fd in (lock, *permits, other):
            os.close(fd)

    expected = ["/dev/null", bench.out, bench.err, *(bench.folder / name for name in names)]
    assert sorted(bench.text().split()) == sorted(str(path) for path in expected)


def test_a_child_that_was_reaped_is_not_known_any_more(bench: Bench) -> None:
    """Its number may go to a stranger, whose session would be taken for that of the run."""
    running = bench.start("sleep 0.2")
    assert bench.runner._look.leaders == {pid_of(running)}
    wait_for(running)
    assert bench.runner._look.leaders == set()


def test_a_job_does_not_cost_descriptors(bench: Bench) -> None:
    """After ten thousand jobs the worker can still open files."""
    bench.run("true")
    before = psutil.Process().num_fds()

    for _ in range(3):
        running = bench.start("exit 1")
        wait_for(running)
        running.close()
        running.close()
        bench.refuse(["no-such-xyz"])

    wait_until(lambda: psutil.Process().num_fds() <= before)


def test_a_background_child_does_not_hold_the_job_up(bench: Bench) -> None:
    """The job is over when its command is; the child lives on, is counted, and keeps its output file."""
    outcome = bench.run("sleep 8 & echo started")

    assert outcome.ending is Ending.SUCCEEDED
    assert outcome.duration < 5
    assert outcome.leftovers == 1
    assert bench.text() == "started\n"
    assert len(find_tree(bench.marks)) == 1


def test_a_child_in_another_session_counts_as_left_over_while_it_can_write(bench: Bench) -> None:
    """Its later output would appear in the next job's output if the file were used again."""
    outcome = bench.run("setsid sh -c 'sleep 30 & touch up; wait' & until [ -e up ]; do sleep 0.02; done")

    assert outcome.ending is Ending.SUCCEEDED
    assert outcome.leftovers == 2


def test_a_timeout_ends_the_grandchildren(bench: Bench) -> None:
    """Not only the shell: no process of the tree is left when the outcome is returned."""
    outcome = bench.run("sleep 60 & sleep 60", timeout=0.3)

    assert (outcome.ending, outcome.error) == (Ending.TIMED_OUT, "Timeout exceeded (0.3s)")
    assert outcome.exit_code == 143
    assert outcome.leftovers == 0
    assert find_tree(bench.marks) == []


def test_the_default_timeout_reads_as_whole_seconds(bench: Bench) -> None:
    """`Timeout exceeded (1s)`, not 1.0."""
    assert bench.run("sleep 60", timeout=1.0).error == "Timeout exceeded (1s)"


@pytest.mark.parametrize(
    "escape",
    ["setsid {}", "env -u QUEUECTL_RUN -u QUEUECTL_JOB_ID {}", "setsid setsid {} &"],
    ids=["other session", "no marks", "fled to init"],
)
def test_a_timeout_finds_who_left_the_group(bench: Bench, escape: str) -> None:
    """The marks find a daemon, the session and the parents find a process without marks."""
    pidfile = bench.folder / "pid"
    fled = escape.format(f"sh -c 'echo $$ >{pidfile}; sleep 60; exit 0'")

    outcome = bench.run(f"{fled}\nsleep 60", timeout=0.7)

    assert outcome.ending is Ending.TIMED_OUT
    assert not lives(int(pidfile.read_text()))
    assert find_tree(bench.marks) == []


def test_a_job_that_ignores_term_is_killed_after_the_grace_time(bench: Bench) -> None:
    """No signal handler keeps a job alive longer than the timeout and the grace time."""
    outcome = bench.run("trap '' TERM; while :; do sleep 0.1; done", timeout=0.3, grace=0.5)

    assert (outcome.ending, outcome.exit_code) == (Ending.TIMED_OUT, 137)
    assert 0.8 <= outcome.duration < 5


def test_a_job_gets_its_grace_time_and_one_term(bench: Bench) -> None:
    """A signal handler can clean up, and gets TERM only once."""
    command = "trap 'echo term; sleep 0.4; echo clean; exit 0' TERM; echo up; while :; do sleep 0.05; done"

    outcome = bench.run(command, timeout=0.5, grace=20)

    assert outcome.ending is Ending.TIMED_OUT
    assert bench.text() == "up\nterm\nclean\n"


def test_a_stopped_job_ends_too(bench: Bench) -> None:
    """SIGSTOP does not save it: after TERM comes CONT, so even its handler runs."""
    outcome = bench.run("trap 'echo clean; exit 0' TERM; kill -STOP $$; sleep 60", timeout=0.3, grace=20)

    assert outcome.ending is Ending.TIMED_OUT
    assert bench.text() == "clean\n"


def test_a_child_born_of_the_term_handler_ends_too(bench: Bench) -> None:
    """A process started after TERM is found by the next search. It has left the group before its parent ends."""
    born = "setsid sh -c 'touch born; exec sleep 60' & while [ ! -e born ]; do sleep 0.01; done"
    outcome = bench.run(f'trap "{born}; exit" TERM; sleep 0.3 & wait; sleep 60', timeout=0.2, grace=5)

    assert outcome.ending is Ending.TIMED_OUT
    assert find_tree(bench.marks) == []


def test_no_timeout_means_no_look(bench: Bench) -> None:
    """Zero means no limit, and a job without output does not wake the worker."""
    running = bench.start("sleep 30", timeout=0)

    if running.wait_fd() is not None:
        assert running.next_poll() is None
    assert running.poll() is None


def test_a_timeout_of_ages_can_be_waited_for(bench: Bench) -> None:
    """A timeout that is too long for a system call does not crash the worker."""
    running = bench.start("sleep 0.2", timeout=1e15)

    look = running.next_poll()
    assert look is not None
    assert look - time.monotonic() <= 86400
    assert wait_for(running).ending is Ending.SUCCEEDED


def test_without_a_pidfd_the_end_is_seen_all_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no pidfd, the process is polled every few milliseconds."""
    monkeypatch.setattr("queuectl.executor.local.open_pidfd", lambda _pid: None)
    running = bench.start("exit 3")

    assert running.wait_fd() is None
    assert wait_for(running, at_most=5).exit_code == 3


@pytest.mark.parametrize(
    ("ending", "error"), [(Ending.STOPPED, "Stopped with its worker"), (Ending.CANCELLED, "Cancelled")]
)
def test_an_attempt_can_be_ended_from_outside(bench: Bench, ending: Ending, error: str) -> None:
    """The first reason given is the one in the outcome."""
    running = bench.start("sleep 60 & sleep 60")

    running.cancel(ending)
    running.cancel(Ending.FAILED)
    outcome = wait_for(running, at_most=5)

    assert (outcome.ending, outcome.error) == (ending, error)
    assert find_tree(bench.marks) == []
    running.cancel(ending, now=True)
    assert running.poll() is outcome


def test_a_hidden_process_of_another_user_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hidepid, /proc shows nothing of it. The group and the exit code of the leader tell that it lives."""
    go = bench.folder / "go"
    monkeypatch.setattr("queuectl.system.process_tree.UNKILLABLE", 0.05)
    monkeypatch.setattr("queuectl.system.process_tree.find_tree", lambda *_, **__: [])
    monkeypatch.setattr("queuectl.system.process_tree.is_group_of_others", group_exists)
    monkeypatch.setattr(TreeTermination, "_signal_group", lambda *_: None)
    running = bench.start(f"until [ -e {go} ]; do sleep 0.01; done; exit 7", grace=0)

    running.cancel(Ending.STOPPED)
    wait_until(lambda: running.poll() or running.cannot_end())
    assert running.cannot_end() == "a process of another user that is hidden here"
    assert running.poll() is None
    go.touch()

    outcome = wait_for(running, at_most=5)
    assert (outcome.ending, outcome.exit_code) == (Ending.STOPPED, 7)


def test_a_second_wish_to_stop_kills_at_once(bench: Bench) -> None:
    """Ctrl+C twice does not wait for the grace time."""
    running = bench.start("trap '' TERM; echo up; while :; do sleep 0.1; done", grace=60)
    wait_until(bench.text)

    running.cancel(Ending.STOPPED)
    assert running.poll() is None
    running.cancel(Ending.STOPPED, now=True)

    assert wait_for(running, at_most=5).exit_code == 137


def test_a_job_that_was_done_before_the_wish_to_stop_keeps_its_result(bench: Bench) -> None:
    """A finished job is not run again because a stop came a moment later."""
    running = bench.start("exit 0")
    wait_until(lambda: psutil.Process(pid_of(running)).status() == psutil.STATUS_ZOMBIE)

    running.cancel(Ending.STOPPED)

    outcome = running.poll()
    assert outcome is not None
    assert outcome.ending is Ending.SUCCEEDED


@pytest.mark.parametrize("wish", [Ending.STOPPED, Ending.CANCELLED, None], ids=["stop", "cancel", "timeout"])
@pytest.mark.parametrize(("code", "ending"), [(0, Ending.SUCCEEDED), (3, Ending.FAILED)])
def test_a_job_that_ends_during_the_search_for_its_processes_keeps_its_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wish: Ending | None, code: int, ending: Ending
) -> None:
    """The search takes a while. Who ends by itself meanwhile was not ended by anybody, and does not run again."""
    go = bench.folder / "go"
    running = bench.start(
        f"until [ -e {go} ]; do sleep 0.01; done; exit {code}", timeout=0 if wish else 0.05, grace=9
    )

    def slow_search(*what: Any, **how: Any) -> list[psutil.Process]:
        found = find_tree(*what, **how)
        go.touch()
        wait_until(lambda: psutil.Process(pid_of(running)).status() == psutil.STATUS_ZOMBIE)
        return found

    monkeypatch.setattr("queuectl.system.process_tree.find_tree", slow_search)
    if wish:
        running.cancel(wish)
    outcome = wait_for(running, at_most=5)

    assert (outcome.ending, outcome.exit_code) == (ending, code)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which signals a process ignores")
@pytest.mark.parametrize("wish", [Ending.STOPPED, Ending.CANCELLED])
def test_a_job_that_ignores_the_wish_and_ends_well_is_done(bench: Bench, wish: Ending) -> None:
    """TERM was on the way to it and did nothing. Its work is done, and must not be done twice."""
    go = bench.folder / "go"
    running = bench.start(f"trap '' TERM; echo up; until [ -e {go} ]; do sleep 0.01; done; exit 0", grace=20)
    wait_until(bench.text)

    running.cancel(wish)
    assert running.poll() is None
    go.touch()
    outcome = wait_for(running, at_most=5)

    assert (outcome.ending, outcome.exit_code, outcome.error) == (Ending.SUCCEEDED, 0, None)


def test_an_ignored_sigchld_does_not_turn_failures_into_successes(bench: Bench) -> None:
    """If a parent passes on SIG_IGN for SIGCHLD, the kernel discards every exit code."""
    code = (
        "import signal, sys\n"
        "from queuectl.executor.local import *\n"
        "from test_local import Bench\n"
        "from pathlib import Path\n"
        "outcome = Bench(Path(sys.argv[1]), LocalRunner()).run('exit 3')\n"
        "print(outcome.exit_code)\n"
    )
    shim = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    )
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            shim,
            code,
            str(bench.folder),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)]),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert told.stdout == "3\n"


def test_a_lost_exit_code_is_not_called_a_success(bench: Bench) -> None:
    """If something else reaps the child, its exit code is lost, and the error says so."""
    running = bench.start("exit 3")
    os.waitpid(pid_of(running), 0)

    outcome = running.poll()

    assert outcome is not None
    assert (outcome.ending, outcome.exit_code) == (Ending.FAILED, None)


def test_a_flood_of_output_stays_in_bounds(bench: Bench) -> None:
    """200 MB: the job ends well, memory stays flat, the file keeps its head and says that it was cut."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    outcome = bench.run(
        "echo head; head -c 200000000 /dev/zero | tr '\\0' x", log_limit=1_000_000, timeout=50
    )

    note = b"\n[queuectl: output cut at 1000000 bytes]\n"
    data = bench.out.read_bytes()
    assert outcome.ending is Ending.SUCCEEDED
    assert len(data) == 1_000_000 + len(note)
    assert data.startswith(b"head\nxxx")
    assert data.endswith(b"xxx" + note)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_flood_is_cut_while_it_goes_on(bench: Bench) -> None:
    """A job that never ends does not fill the disk; it is neither delayed nor killed."""
    running = bench.start("while :; do echo flood; done", log_limit=2000)

    seen: list[int] = []
    end = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < end:
        before = bench.out.stat().st_size
        assert running.poll() is None
        after = bench.out.stat().st_size
        if after < before:
            seen.append(before)
        look = running.next_poll()
        assert look is not None
        select.select([], [], [], max(0.0, look - time.monotonic()))

    running.cancel(Ending.STOPPED)
    assert wait_for(running).ending is Ending.STOPPED
    assert len(seen) == 3
    data = bench.out.read_bytes()
    assert len(data) < 2100
    assert b"\0" not in data


def test_output_within_the_limit_is_left_alone(bench: Bench) -> None:
    """No note where nothing was cut."""
    bench.run("head -c 5000 /dev/zero | tr '\\0' x", log_limit=5000)

    assert bench.text() == "x" * 5000


def test_ten_megabytes_on_both_streams_do_not_block(bench: Bench) -> None:
    """More output than a pipe holds does not block the job until its timeout."""
    outcome = bench.run("head -c 10000000 /dev/zero; head -c 10000000 /dev/zero >&2", timeout=20)

    assert outcome.ending is Ending.SUCCEEDED
    assert bench.out.stat().st_size == bench.err.stat().st_size == 10_000_000


def orphan(bench: Bench, command: str) -> int:
    """Start a command as a run whose worker dies at once; returns the pid of its leader."""
    code = "import subprocess, sys; print(subprocess.Popen(['sh', '-c', sys.argv[1]], start_new_session=True).pid)"
    told = subprocess.run(
        [sys.executable, "-c", code, f"exec >/dev/null 2>&1; {command}"],
        env={**os.environ, **bench.marks},
        cwd=bench.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return int(told.stdout)


@pytest.mark.parametrize("know_leader", [True, False])
def test_a_dead_workers_run_is_found_and_ended(bench: Bench, *, know_leader: bool) -> None:
    """Recovery first ends all processes of the run, in whatever session, even those that ignore TERM."""
    pid = orphan(bench, "trap '' TERM; setsid sleep 60 & (sleep 60) & touch up; while :; do sleep 0.1; done")
    wait_until((bench.folder / "up").exists)
    assert len(find_tree(bench.marks, pid)) >= 3

    assert terminate_tree(bench.marks, pid if know_leader else None, 0.3)

    assert find_tree(bench.marks, pid) == []


def test_a_number_that_belongs_to_somebody_else_is_left_in_peace(bench: Bench) -> None:
    """Another process that got the dead leader's pid is not part of the run."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert find_tree(bench.marks, stranger.pid) == []
        assert terminate_tree(bench.marks, stranger.pid, 0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_run_without_processes_is_ended_at_once(bench: Bench) -> None:
    """With nothing to end it returns True at once."""
    began = time.monotonic()

    assert terminate_tree(bench.marks, None, 60)
    assert time.monotonic() - began < 5


def test_starting_loads_no_psutil() -> None:
    """Psutil is loaded when a tree must be found, not before the first job."""
    code = "import sys, queuectl.executor.local; sys.exit('psutil' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=20).returncode == 0


def test_a_worker_in_a_thread_lives_with_a_program_that_ignores_its_children(spool_dir: Path) -> None:
    """Only the main thread may set a signal: the constructor ended with a ValueError. What is lost is said."""
    code = (
        "import signal, sys, threading; from queuectl import Spool, Worker; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "Spool(sys.argv[1]).enqueue('true', id='job', max_retries=1);"
        "thread = threading.Thread(target=lambda: Worker(sys.argv[1], drain=True).run()); thread.start(); thread.join();"
        "print(Spool(sys.argv[1]).get('job').last_error);"
        "Spool(sys.argv[1]).retry('job'); Worker(sys.argv[1], drain=True).run(); print(Spool(sys.argv[1]).get('job').state)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(spool_dir)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["Exit code unknown: the system did not keep it", "completed"]


def _signal_sets(text: str) -> dict[str, int]:
    """The lines SigBlk and SigIgn of /proc/self/status, without the two signals that glibc keeps for its threads."""
    lines = (line.split(":") for line in text.splitlines())
    return {name: int(value, 16) & ~(0b11 << 31) for name, value in lines if name in ("SigBlk", "SigIgn")}


@pytest.mark.skipif(sys.platform != "linux", reason="the signals are read from /proc")
@pytest.mark.parametrize(("may_chdir", "slot"), [(True, 0), (True, 1), (False, 0)])
@pytest.mark.parametrize("command", ["cat /proc/self/status", "cat /proc/self/status; true"])
def test_a_command_starts_with_no_signal_blocked_or_ignored(
    tmp_path: Path, command: str, may_chdir: bool, slot: int
) -> None:
    """A web server blocks signals in its threads, a script's `&` ignores INT and QUIT; neither reaches the command."""
    ignored = (signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR2)
    bench = Bench(tmp_path, LocalRunner(may_chdir=may_chdir), slot)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
    try:
        outcome = bench.run(command)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        bench.close()

    assert outcome.ending is Ending.SUCCEEDED, outcome
    assert _signal_sets(bench.text()) == {"SigBlk": 0, "SigIgn": 0}
