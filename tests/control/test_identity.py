"""A note, a lock and a signal reach exactly the process that they are meant for."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.config.settings import Settings
from queuectl.control import commands, run_lock
from queuectl.control.registration import Registration
from queuectl.errors import SpoolError
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.storage import orphaned_runs, recovery
from queuectl.system import files, process
from queuectl.system.host import boot_id
from queuectl.system.locks import Lock, is_locked
from queuectl.system.process import ProcessIdentity, is_surely_gone
from queuectl.system.process_tree import terminate_tree

from support import claim_job, drop, finished, load, wait_until, where_is, with_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def registration(spool_dir: Path) -> Iterator[Registration]:
    layout = Layout(spool_dir)
    layout.create()
    made = Registration.acquire(layout)
    made.announce("program")
    yield made
    made.release()


def leave_note(registration: Registration, kind: str, **fields: Any) -> None:
    with open(registration.layout.worker_file(registration.name, kind), "w", encoding="utf-8") as file:
        json.dump(fields, file)


def test_a_process_of_another_boot_is_gone() -> None:
    """Pids, and even start times, may repeat after a boot."""
    me = ProcessIdentity.mine()

    assert me.is_running()
    assert not with_fields(me, boot="another").is_running()
    assert not with_fields(me, started=me.started - 60).is_running()


def test_a_process_that_is_not_the_one_meant_gets_no_signal() -> None:
    """The pid now belongs to another process, here to this test."""
    me = ProcessIdentity.mine()

    assert not with_fields(me, started=me.started - 60).send(0)
    assert me.send(0)


def test_a_stop_note_is_for_one_process(registration: Registration) -> None:
    """A note for an earlier owner of the name stops nobody, even if it had the same pid."""
    me = ProcessIdentity.mine()
    meant = {"pid": me.pid, "process_started": me.started, "how": "graceful"}

    answers = []
    for change in ({}, {"pid": me.pid + 1}, {"process_started": me.started - 60}, {"how": "force"}):
        leave_note(registration, "stop", **{**meant, **change})
        answers.append(commands.requested_stop(registration))

    assert answers == ["graceful", None, None, "force"]


def test_a_cancel_note_is_for_one_run(registration: Registration) -> None:
    """A note that comes too late must end neither the next job nor a later run of the same job."""
    leave_note(registration, "cancel", job="a", run=1)

    assert commands.is_cancel_requested(registration.layout, registration.name, "a", 1)
    assert not commands.is_cancel_requested(registration.layout, registration.name, "a", 2)
    assert not commands.is_cancel_requested(registration.layout, registration.name, "b", 1)


def test_notes_for_an_earlier_holder_are_gone(spool_dir: Path) -> None:
    """A new owner of a name starts without notes; a cancel note has been handled by then."""
    layout = Layout(spool_dir)
    layout.create()
    notes = [Path(layout.worker_file("worker-0", kind)) for kind in ("stop", "cancel")]
    for note in notes:
        note.write_text('{"job": "a", "run": "1.5", "pid": 1}')

    Worker(spool_dir, drain=True).run()

    assert not any(note.exists() for note in notes)


def test_a_lock_that_is_given_back_is_free_at_once(tmp_path: Path) -> None:
    """Even while a child that is just being started has a copy of the descriptor."""
    path = str(tmp_path / "lock")
    lock = Lock.acquire(path)
    assert lock
    assert is_locked(path)
    copy = os.dup(lock.fd)

    lock.release()

    assert not is_locked(path)
    os.close(copy)


@pytest.mark.parametrize("lost", ["neither", "lock file", "folder lock"])
def test_either_lock_of_a_living_worker_keeps_its_job(
    lost: str, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock file may be deleted with all of data/, and on some filesystems folders cannot be locked."""
    if lost == "folder lock":
        monkeypatch.setattr(Lock, "on_folder", _cannot)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.refresh()
    registration = Registration.acquire(spool.layout)
    registration.announce("program")
    row = spool._index.get("a")
    assert row
    assert claim_job(spool._storage, row, registration.name)
    if lost == "lock file":
        os.unlink(spool.layout.worker_file(registration.name, "lock"))

    assert recovery.recover_claims(spool._storage, Settings(), print) == 0

    assert where_is(spool_dir, "a") == ["processing/worker-0"]
    registration.release()


def _cannot(_: str) -> Lock:
    raise OSError(errno.EBADF, "folders cannot be locked here")


def test_a_deleted_lock_file_is_made_and_held_again(registration: Registration) -> None:
    """Otherwise nobody would see this worker or could stop it."""
    path = registration.layout.worker_file(registration.name, "lock")
    os.unlink(path)
    assert not is_locked(path)

    registration.restore()

    assert is_locked(path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone shows who holds a lock")
def test_a_run_without_marks_is_found_by_its_lock(spool_dir: Path) -> None:
    """Its processes have cleared their environment; the lock that they hold shows which run they belong to."""
    layout = Layout(spool_dir)
    layout.create()
    job = Job(id="a", command="true")
    lock = run_lock.acquire(layout, "worker-7", "a", job.run_mark(1), boot_id(), ())
    child = subprocess.Popen(
        ["sleep", "60"], env={"PATH": os.environ["PATH"]}, pass_fds=(lock.fd,), start_new_session=True
    )
    lock.detach()

    assert orphaned_runs.end_run(layout, job, "worker-7", run_lock.read_all(layout, "worker-7"))

    assert child.wait(5) == -15
    assert not is_locked(layout.worker_file("worker-7", "run"))


@pytest.mark.parametrize(("whose", "ended"), [("a", True), ("b", False)])
def test_a_run_without_its_lock_is_found_by_its_marks(whose: str, ended: bool, spool_dir: Path) -> None:
    """The run has closed the descriptors that it inherited. A background child of the worker's previous job is not part of it."""
    layout = Layout(spool_dir)
    layout.create()
    job = Job(id=whose, command="true")
    lock = run_lock.acquire(layout, "worker-7", whose, job.run_mark(1), boot_id(), ())
    marks = run_lock.marks(layout, job, "worker-7")
    held = () if ended else (lock.fd,)
    child = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, **marks}, pass_fds=held, start_new_session=True
    )
    lock.detach()
    try:
        assert orphaned_runs.end_run(
            layout, Job(id="a", command="true"), "worker-7", run_lock.read_all(layout, "worker-7")
        )

        assert (child.poll() is not None) == ended
    finally:
        child.kill()
        child.wait()


def test_a_run_with_other_marks_is_left_in_peace(spool_dir: Path) -> None:
    """The next run of the same worker has the same marks, except for the job and the number."""
    layout = Layout(spool_dir)
    # Nothing of it is like that of any other process here: code that gets this wrong ends them.
    worker, made = f"worker-{files.token()}", time.time()
    Layout(spool_dir).create()
    mine, other = (
        run_lock.marks(layout, Job(id=f"{name}-{worker}", command="true", created_at=made), worker)
        for name in "ab"
    )
    child = subprocess.Popen(["sleep", "60"], env={**os.environ, **other}, start_new_session=True)
    try:
        assert terminate_tree(mine, None, 0.1)

        assert child.poll() is None
        assert terminate_tree(other, None, 1)
        assert child.wait(5) < 0
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="sessions are noted by their time since the boot")
def test_a_later_session_of_the_same_number_is_left_in_peace() -> None:
    """A noted session counts only with its own leader, and only where its pids count."""
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mine = process.Session.of_child(child.pid)
        assert mine
        earlier = with_fields(mine, noted=mine.noted - 60)
        elsewhere = with_fields(mine, namespace="pid:[1]")
        assert [one.has_living() for one in (mine, earlier, elsewhere)] == [True, False, False]
        for other in (earlier, elsewhere):
            assert terminate_tree({}, None, 0.1, noted=other)
            assert child.poll() is None

        assert terminate_tree({}, None, 1, noted=mine)

        assert child.wait(5) < 0
        assert not mine.has_living()
    finally:
        child.kill()
        child.wait()


def test_what_left_the_group_and_ignores_term_is_killed(spool_dir: Path, tmp_path: Path) -> None:
    """The run of a dead worker has no process group that could be signalled: each process gets its own KILL."""
    Layout(spool_dir).create()
    mine = run_lock.marks(Layout(spool_dir), Job(id="a", command="true"), "worker-7")
    deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    child = subprocess.Popen(
        ["sh", "-c", deaf], env={**os.environ, **mine}, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert child.stdout
        child.stdout.readline()

        assert terminate_tree(mine, None, 0.2)

        assert child.wait(5) == -9
    finally:
        child.kill()
        child.communicate()


def test_a_job_that_kills_its_group_ends_itself_only(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    """The worker is not in the job's process group, however the job was started."""
    for number, command in enumerate(("kill -9 0", ["sh", "-c", "kill -9 0"])):
        drop(spool_dir, f"job{number}", command=command, max_retries=1)
    workers(1)

    wait_until(lambda: finished(spool_dir, "job0", "job1"))

    for number in range(2):
        assert "signal 9" in load(spool_dir / "dead" / f"job{number}.json")["last_error"]
    assert len(Spool(spool_dir).workers()) == 1


def test_a_worker_that_cannot_learn_who_it_is_says_so(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc may be unreadable: the error is one line, and the name is free again."""
    layout = Layout(spool_dir)
    layout.create()

    with monkeypatch.context() as patch:
        patch.setattr(process, "start_time", lambda _: None)
        with pytest.raises(SpoolError, match="cannot look up this process for worker-0"):
            Registration.acquire(layout)
    assert not is_locked(layout.worker_file("worker-0", "lock"))


def test_the_rest_of_a_dead_process_is_gone() -> None:
    """A zombie keeps its pid; a killed worker must not be listed as running because of that."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_surely_gone(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_surely_gone(child.pid)
    child.communicate()
    assert is_surely_gone(child.pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_child_of_a_program_does_not_keep_its_workers_locks(spool_dir: Path) -> None:
    """A web server embeds a worker, forks, and is killed: its job waited for as long as the child lived."""
    code = (
        "import os, sys, time; from queuectl import Spool, Worker; from queuectl.api import listing; from queuectl.storage.claim import *;"
        "sys.path.insert(0, sys.argv[2]); from support import claim_job; spool = Spool(sys.argv[1]); spool.enqueue('true', id='job');"
        "worker = Worker(sys.argv[1]); worker.register(); claim_job(spool._storage, listing.one(spool, 'job'), worker.name);"
        "child = os.fork() or (time.sleep(60) or os._exit(0)); print(child, flush=True); os.kill(os.getpid(), 9)"
    )
    tests = str(Path(__file__).parent.parent)
    killed = subprocess.Popen(
        [sys.executable, "-c", code, str(spool_dir), tests], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout
    child = int(killed.stdout.readline())
    try:
        killed.wait(10)
        assert where_is(spool_dir, "job") == ["processing/worker-0"]
        Worker(spool_dir, drain=True).run()
        assert where_is(spool_dir, "job") == ["done"]
    finally:
        os.kill(child, 9)
        killed.stdout.close()


def test_a_forked_child_takes_no_lock_from_its_parent(tmp_path: Path) -> None:
    """It closes its copies. To unlock them would free the parent's lock, too."""
    path = str(tmp_path / "lock")
    lock = Lock.acquire(path)
    assert lock
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert is_locked(path)
    lock.release()
