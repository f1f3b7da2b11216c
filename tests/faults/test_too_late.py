"""What comes a moment too late does no harm, and what comes in time is kept: cancels, pauses, leftovers of the dead."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool, Worker
from queuectl.api import listing
from queuectl.control import commands, pause, registry, run_lock
from queuectl.control.registration import Registration
from queuectl.intake import claims
from queuectl.job.outcome import Ending, Outcome
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.storage import job_logs, locate, power_loss, quarantine
from queuectl.storage.claim import claim_files, release
from queuectl.storage.file_pool import FilePool
from queuectl.system import files, fork, locks
from queuectl.worker import prefetch

from support import claim_job, drop_bytes, end_workers, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.index.row import Row
    from queuectl.storage.transitions import Claim, Storage

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="commands are for sh, and workers get signals"
)


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    made = Spool(spool_dir)
    made.refresh()
    return made


def the_worker(spool: Spool) -> int:
    """The process id of the only worker."""
    [info] = spool.workers()
    return info.pid


def runs(spool_dir: Path, job_id: str) -> Callable[[], bool]:
    """Whether the job is in the hands of a worker, and its command there."""
    return lambda: bool((spool_dir.parent / f"{job_id}.began").exists())


def begins(spool_dir: Path, job_id: str, then: str) -> str:
    """A command that says when it has begun, as `runs` sees it."""
    return f"echo >>{spool_dir.parent}/{job_id}.began; {then}"


@pytest.fixture
def stopped(spool: Spool, workers: Cli) -> Iterator[Callable[[], None]]:
    """Stop the only worker in the middle of what it does; it goes on at the end at the latest."""
    workers(1)
    pid = the_worker(spool)
    yield lambda: os.kill(pid, signal.SIGSTOP)
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)


def cancel_as_it_ends(spool: Spool, spool_dir: Path, stop: Callable[[], None], then: str) -> None:
    """Have a worker find, at once, that a job has ended and that somebody wanted it ended."""
    gate = spool_dir.parent / "gate"
    spool.enqueue(begins(spool_dir, "job", f"until [ -e {gate} ]; do sleep 0.01; done; {then}"), id="job")
    wait_until(runs(spool_dir, "job"))
    pid = the_worker(spool)
    stop()
    [child] = psutil.Process(pid).children()
    assert spool.cancel("job", timeout=0.2) == "ending"
    gate.touch()
    wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)
    os.kill(pid, signal.SIGCONT)


def test_a_cancel_that_comes_too_late_ends_no_later_run(
    spool: Spool, spool_dir: Path, stopped: Callable[[], None]
) -> None:
    """It was about a run that is over; the job is run again because somebody wants that."""
    cancel_as_it_ends(spool, spool_dir, stopped, "sleep 1.5")
    wait_until(lambda: where_is(spool_dir, "job") == ["done"])
    wait_until(
        lambda: not list((spool_dir / "data" / "workers").glob("*.cancel"))
    )  # or it hits a new job of that id
    (spool_dir / "done" / "job.json").rename(spool_dir / "pending" / "job.json")
    wait_until(lambda: finished(spool_dir, "job") and len(load_history(spool_dir)) == 2)

    assert [entry["outcome"] for entry in load_history(spool_dir)] == ["succeeded", "succeeded"]


def load_history(spool_dir: Path) -> list[dict[str, object]]:
    [place] = where_is(spool_dir, "job")
    history: list[dict[str, object]] = load(spool_dir / place / "job.json")["history"]
    return history


def test_a_job_that_fails_as_it_is_cancelled_is_not_tried_again(
    spool: Spool, spool_dir: Path, stopped: Callable[[], None]
) -> None:
    """Who has cancelled a job has been told that it ends, and sees it run no more."""
    cancel_as_it_ends(spool, spool_dir, stopped, "exit 3")
    wait_until(lambda: where_is(spool_dir, "job") == ["dead"])

    assert load(spool_dir / "dead" / "job.json")["last_error"] == "Cancelled"
    assert [entry["outcome"] for entry in load_history(spool_dir)] == ["cancelled"]


@pytest.mark.parametrize(
    "when", ["before its worker died", "before all had died", "afterwards", "after all had died"]
)
def test_a_job_that_was_cancelled_is_not_run_again_for_a_dead_worker(
    spool: Spool, spool_dir: Path, workers: Cli, when: str
) -> None:
    """Whoever takes it back gives it up."""
    workers(1)
    ignores = begins(spool_dir, "job", "trap '' TERM; sleep 100 & wait; wait")
    spool.enqueue(ignores, id="job", timeout=0)
    wait_until(runs(spool_dir, "job"))
    pid = the_worker(spool)
    run = psutil.Process(pid).children(recursive=True)

    def die() -> None:
        os.kill(pid, signal.SIGKILL)
        for process in run if "all" in when else ():
            process.kill()
        wait_until(lambda: not spool.workers())

    if when.startswith("before"):
        assert spool.cancel("job", timeout=0.2) == "ending"
        die()
    else:
        die()
        assert spool.cancel("job", timeout=0.2) == "cancelled"
    workers(1)
    wait_until(lambda: where_is(spool_dir, "job") == ["dead"])

    assert load(spool_dir / "dead" / "job.json")["last_error"] == "Cancelled"
    assert (spool_dir.parent / "job.began").read_text() == "\n"
    wait_until(lambda: not list((spool_dir / "data" / "workers").glob("*.cancel")))


def test_a_cancel_is_for_the_run_that_comes_and_not_for_the_last_one(spool: Spool, spool_dir: Path) -> None:
    """A job that runs again is claimed some moments before its worker writes down that it begins."""
    taken = Registration.acquire(spool.layout)
    taken.announce("program")
    run_lock.acquire(spool.layout, taken.name, "job", "1.5", spool._index.boot).release()
    history = [{"run": 1, "outcome": "failed"}]
    drop_bytes(
        spool_dir,
        "job.json",
        json.dumps({"command": "true", "history": history}).encode(),
        f"processing/{taken.name}",
    )

    assert spool.cancel("job", timeout=0) == "ending"
    assert commands.is_cancel_requested(taken.layout, taken.name, "job", 2)
    taken.release()
    assert Path(spool.layout.worker_file(taken.name, "cancel")).exists(), "it is for who takes the job back"


def test_a_cancel_that_comes_while_a_failure_is_recorded_is_kept(
    spool: Spool, spool_dir: Path, workers: Cli
) -> None:
    """The index may be held for long, by a reindex or a slow disk."""
    workers(1)
    spool.enqueue(begins(spool_dir, "job", "sleep 0.3; exit 3"), id="job", backoff_base=1)
    wait_until(runs(spool_dir, "job"))
    other = sqlite3.connect(spool.layout.index, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    [child] = psutil.Process(the_worker(spool)).children()
    wait_until(lambda: not child.is_running())
    # As `cancel` does, which may be interrupted then: it does not ask again for the next run.
    commands.request_cancel(spool.layout, "worker-0", {"job": 1})
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: where_is(spool_dir, "job") == ["dead"])

    assert (spool_dir.parent / "job.began").read_text() == "\n"
    wait_until(lambda: not list((spool_dir / "data" / "workers").glob("*.cancel")))


def test_a_worker_that_knows_of_an_earlier_pause_is_waited_for(spool: Spool) -> None:
    """It may have seen that one end, and be about to start a job."""
    taken = Registration.acquire(spool.layout)
    taken.announce("program")
    found = pause.begin(spool.layout)
    taken.report("paused", pause.BY_HAND)
    taken.report("pause_seen", found.mark)
    assert pause.pause(spool.layout, "", patience=0.2) == []

    spool.resume()
    assert pause.pause(spool.layout, "", patience=0.2) == ["worker-0"]
    taken.release()


def test_a_worker_that_is_told_to_stop_may_start_a_job_until_it_reads_that(spool: Spool) -> None:
    """`pause` and `drain` promise that nothing is started any more when they return."""
    taken = Registration.acquire(spool.layout)
    taken.announce("program")
    assert commands.request_stop(spool.layout, taken.name, force=False)

    assert pause.pause(spool.layout, "", patience=0.2) == ["worker-0"]
    taken.release()


@pytest.mark.parametrize("why", ["taken away", "refused"])
def test_what_cannot_be_given_back_is_not_begun_in_a_paused_spool(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """The disk may refuse to put back what was claimed ahead, or somebody took one of the files away."""
    for number in range(6):
        spool.enqueue("true", id=f"a{number}")
    worker = Worker(spool_dir)
    worker.register()
    worker._recover()
    worker._batch.file_pool = FilePool(worker.layout, worker.name, worker._index.boot, print)
    with worker._index.moving():
        worker._prefetch._unread.extend(claim_files(worker._storage, worker._index.ready(5), worker.name))
    worker._prefetch.read()
    refusals = [OSError(errno.EIO, "no")] * 2 if why == "refused" else []

    def reluctant(storage: Storage, claim: Claim) -> Row:
        if refusals:
            raise refusals.pop()
        return release(storage, claim)

    monkeypatch.setattr(prefetch, "release", reluctant)
    if why == "taken away":
        os.unlink(worker._prefetch.ready[-1].path)
    (spool_dir / "paused").touch()
    thread = threading.Thread(target=worker._loop)
    thread.start()
    wait_until(lambda: len(os.listdir(spool_dir / "pending")) == (5 if why == "taken away" else 6))
    worker.stop()
    thread.join()
    worker._batch.file_pool.close()
    worker._registration.release()  # type: ignore[union-attr]
    worker._index.close()

    assert os.listdir(spool_dir / "done") == []


# -- what others left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["the index", "the index and the run file", "data/"])
@pytest.mark.parametrize(
    "dropped", [b'{"id": "bar", "command": "true"}', b"no job at all\n"], ids=["job", "rubbish"]
)
def test_a_file_under_the_name_of_a_running_job_outlives_the_index(
    spool: Spool, spool_dir: Path, workers: Cli, cli: Cli, lost: str, dropped: bytes
) -> None:
    """A job that is claimed is no sign of a power cut, and nobody deletes what he cannot read."""
    workers(1)
    spool.enqueue(begins(spool_dir, "foo", "sleep 100"), id="foo", timeout=0)
    wait_until(runs(spool_dir, "foo"))
    os.kill(the_worker(spool), signal.SIGSTOP)
    drop_bytes(spool_dir, "foo.json", dropped)
    cli("list", expect=0)
    if lost == "data/":
        shutil.rmtree(spool_dir / "data")
    else:
        for path in (spool_dir / "data").glob("queuectl.db*"):
            path.unlink()
        if lost != "the index":
            (spool_dir / "data" / "workers" / "worker-0.run").unlink()
    cli("list", expect=0)

    kept = [*spool_dir.glob("pending/foo*"), *spool_dir.glob("dead/foo*"), *spool_dir.glob("data/aside/foo*")]
    assert dropped in [path.read_bytes() for path in kept]
    if lost != "data/":
        assert not (spool_dir / "data" / quarantine.FOLDER).exists()
    for child in psutil.process_iter(["cmdline"]):
        if "queuectl" in " ".join(child.info["cmdline"] or ()) and str(spool_dir) in child.info["cmdline"]:
            child.kill()
    end_workers(spool_dir)


DIES_HOLDING = """
import os, signal, sys
from queuectl.worker import process; from queuectl.storage import file_pool as spares
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.job.outcome import Ending, Outcome
real = spares.FilePool.keep
def hold(self, *args, **options):
    real(self, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
spares.FilePool.keep = hold
from queuectl.worker.program import WorkerOptions
process.be_worker(Layout(sys.argv[1]), "foreground", WorkerOptions())
"""


def test_what_a_dead_worker_held_goes_while_the_machine_runs(
    spool: Spool, spool_dir: Path, workers: Cli
) -> None:
    """Or a job that is deleted meanwhile would come back, and run, after the next boot."""
    workers(1)
    spool.enqueue(begins(spool_dir, "blocker", "sleep 100"), id="blocker", timeout=0)
    wait_until(runs(spool_dir, "blocker"))
    dies = subprocess.Popen([sys.executable, "-c", DIES_HOLDING, str(spool_dir)])
    spool.enqueue("true", id="x")
    dies.wait(20)
    assert where_is(spool_dir, "x") == ["done"]
    left = spool_dir / "data" / "workers"
    wait_until(lambda: not [*left.glob("worker-1.held.*"), *left.glob("worker-1.reserve")])
    spool.forget("x")

    assert power_loss.restore(spool.layout, "another boot") == 0
    assert where_is(spool_dir, "x") == []


@pytest.mark.parametrize("left", ["nothing", "a scratch file"])
def test_the_name_plate_of_a_dead_worker_comes_down(spool: Spool, spool_dir: Path, left: str) -> None:
    """While it is there each look at it has every folder scanned."""
    from queuectl.storage import recovery

    code = (
        "import os, sys; from queuectl.layout import Layout; from queuectl.control.registration import Registration;"
        "Registration.acquire(Layout(sys.argv[1])).announce('background'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(spool_dir)], check=True)
    folder = Path(spool.layout.claims("worker-0"))
    if left == "nothing":
        folder.rmdir()
    else:
        (folder / ".aaaaaaaaaaaaaaaa.tmp").touch()
    plate = Path(spool.layout.worker_file("worker-0", "json"))
    assert plate.exists()

    recovery.clear_dead_workers(spool.layout, spool._index, print, mine="worker-1")
    assert not plate.exists()
    assert not folder.exists()


@pytest.mark.parametrize("odd", ["a file that cannot be read", "a file among the workers' folders"])
def test_one_odd_file_keeps_no_lost_job_from_coming_back(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    """After a power cut all is put right that can be; the rest is tried again."""
    folder = spool_dir / "data" / "workers" / f"worker-7.held.{power_loss.short('the boot before')}.1"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}~0.json").write_text(json.dumps({"id": name, "command": "true"}))
    read = locate.read_job
    bad: list[str] = []

    def failing(path: str) -> Job | None:
        if "/done/" in path and path in (bad or [path]):
            bad[:] = [path]
            raise OSError(errno.EIO, "no", path)
        return read(path)

    if odd == "a file that cannot be read":
        with monkeypatch.context() as patch:
            patch.setattr(locate, "read_job", failing)
            patch.setattr(power_loss, "read_job", failing)
            with pytest.raises(OSError, match="no"):
                power_loss.restore(spool.layout, "this boot")
        assert len(os.listdir(spool_dir / "pending")) == 2
    else:
        (spool_dir / "processing" / "README").write_text("a note")
    power_loss.restore(spool.layout, "this boot")

    assert sorted(os.listdir(spool_dir / "pending")) == ["a.json", "b.json", "c.json"]
    assert not folder.exists()


KILLS = (100, 200, 300)
"""The jobs at which a worker dies: on a busy machine it may have no outcome in hand at one of them."""


def test_with_its_index_a_dead_worker_loses_no_outcome(spool: Spool, spool_dir: Path, cli: Cli) -> None:
    """Of the short jobs in its hand only the one that ran may run again, whatever has become of the index."""
    ran = spool_dir.parent / "ran"
    for number in range(KILLS[-1] + 20):
        mark = f"{ran}.{number}"
        deadly = f"; [ -e {mark} ] || {{ touch {mark}; kill -9 $PPID; }}" if number in KILLS else ""
        drop_bytes(
            spool_dir,
            f"j{number:03}.json",
            b'{"command": "echo %03d >>%s%s"}' % (number, str(ran).encode(), deadly.encode()),
        )
    for _ in KILLS:
        cli("worker", "start", "--foreground", "--drain")
        assert os.listdir(spool_dir / "processing" / "worker-0")
        for path in (spool_dir / "data").glob("queuectl.db*"):
            path.unlink()
    cli("worker", "start", "--foreground", "--drain", expect=0)

    lines = ran.read_text().split()
    assert {line for line in lines if lines.count(line) > 1} <= {f"{number}" for number in KILLS}
    assert len(set(lines)) == KILLS[-1] + 20


# -- what somebody deleted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["done", "tmp", "logs"])
def test_a_folder_deleted_under_a_running_job_is_made_again(
    spool: Spool, spool_dir: Path, workers: Cli, folder: str
) -> None:
    """The outcome finds its place, the output is kept, and the worker goes on."""
    workers(1)
    gate = spool_dir.parent / "gate"
    os.mkfifo(gate)
    spool.enqueue(begins(spool_dir, "job", f"cat {gate}; echo over"), id="job", timeout=0)
    wait_until(runs(spool_dir, "job"))
    shutil.rmtree(spool_dir / folder)
    gate.write_text("")
    wait_until(lambda: where_is(spool_dir, "job") == ["done"])
    assert (spool_dir / "logs" / "job.1.out").read_text() == "over\n"

    spool.enqueue("true", id="after")
    wait_until(lambda: where_is(spool_dir, "after") == ["done"])


def test_two_workers_may_make_the_folder_of_logs_again_at_once(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one has its log, too."""
    Path(spool.layout.worker_file("worker-0", "out")).write_text("the end\n")
    (spool_dir / "logs").rmdir()
    mkdir = os.mkdir

    def slower(path: str, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", slower)
    outcome = Outcome(Ending.SUCCEEDED, 0, None, 0.1)
    job_logs.keep_output(spool.layout, Job(id="a", command="true"), "worker-0", outcome, limit=100)

    assert (spool_dir / "logs" / "a.1.out").read_text() == "the end\n"


def test_workers_are_known_after_the_clock_was_set(
    spool: Spool, workers: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a battery gets the time moments after its workers have started."""
    workers(1)
    platform = pytest.importorskip("psutil._pslinux")
    before = platform.boot_time()
    monkeypatch.setattr(platform, "boot_time", lambda: before + 3600)
    known = registry.identity_of(Layout(spool.layout.root), "worker-0")

    assert known is not None
    assert known.is_running()
    assert commands.request_stop(spool.layout, "worker-0", force=False)
    wait_until(lambda: not spool.workers())


# -- what the system refuses -------------------------------------------------------------------------------------------


def test_a_process_that_cannot_be_copied_does_the_work_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as there may be: the look at a folder takes longer, and leaves no descriptors open."""

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(fork, "_can_fork", lambda: True)
    monkeypatch.setattr(os, "fork", refuse)
    before = len(os.listdir("/dev/fd"))

    assert fork.run_in_copy(list, ["a", "b"])() == ["a", "b"]
    assert len(os.listdir("/dev/fd")) == before


def test_who_may_only_read_sees_the_workers(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` needs no right to write."""
    path = spool.layout.worker_file("worker-0", "lock")
    lock = locks.Lock.acquire(path)
    assert lock is not None

    real = os.open

    def refuse(where: str, flags: int, mode: int = 0o777) -> int:
        if where == path and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "no", path)
        return real(where, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert locks.is_locked(path)
    lock.release()
    assert not locks.is_locked(path)


def test_output_that_cannot_be_moved_is_in_the_record_all_the_same(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is said names the place where it could not go."""
    Path(spool.layout.worker_file("worker-0", "out")).write_text("the end\n")

    def refuse(source: str, _: str) -> None:
        raise PermissionError(errno.EACCES, "no", source)

    monkeypatch.setattr(files, "move", refuse)
    job = Job(id="a", command="true")
    outcome = Outcome(Ending.SUCCEEDED, 0, None, 0.1)
    with pytest.raises(PermissionError) as refused:
        job_logs.keep_output(spool.layout, job, "worker-0", outcome, limit=100)

    assert job.output == "the end\n"
    assert refused.value.filename == spool.layout.log_file("a", 1, "out")


def test_an_index_that_cannot_be_made_is_told_in_a_line(spool_dir: Path, spool: Spool, cli: Cli) -> None:
    """A read-only disk, or a folder of the index's name, is no bug of ours."""
    spool.enqueue("true", id="a")
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()
    (spool_dir / "data" / "queuectl.db").mkdir()

    done = cli("reindex", expect=3)
    assert done.stderr.startswith("error: cannot ")
    assert len(done.stderr.splitlines()) <= 2


def test_a_job_claimed_during_a_look_is_still_there(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders of the workers are listed before the index is asked, and a claim may come in between."""
    spool.enqueue("true", id="a")
    taken = Registration.acquire(spool.layout)
    taken.announce("program")
    assert claim_job(spool._storage, listing.one(spool, "a"), taken.name)
    with monkeypatch.context() as patch:
        patch.setattr(locate, "claimed_by_worker", lambda _: {})
        claims.mirror_claims(spool.layout, spool._index, 0.0)

    found = spool._index.get("a")
    assert found is not None
    assert found.state == "processing"
    (spool_dir / "processing" / taken.name / "a.json").unlink()
    taken.release()


def test_a_claim_is_told_of_the_job_alone_that_it_is_about(spool: Spool) -> None:
    """An index made anew since the row was read has given its number to another job."""
    for name in ("a", "b"):
        spool.enqueue("true", id=name)
    row, other = listing.one(spool, "a"), listing.one(spool, "b")
    row.seq = other.seq
    with spool._index.moving():
        spool._index.mark_claimed([row], "processing/worker-0", "worker-0")

    assert spool.row("b").state == "pending"
