"""A dispatcher in its loop, on a real spool, with nodes that are this machine."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from local_nodes import LocalNodes
from rules.test_hooks import told, write_rule

from queuectl import Spool
from queuectl.cli.log_stream import LogReader, Sink
from queuectl.config.settings import Settings
from queuectl.control import dispatched, registry
from queuectl.control.start_rate import StartRate
from queuectl.doctor import doctor
from queuectl.engine import place
from queuectl.errors import SpoolError, WorkerError
from queuectl.job.times import micros
from queuectl.layout import Layout
from queuectl.storage import job_logs
from queuectl.worker import dispatch_check, dispatcher, handover
from queuectl.worker.dispatcher import Dispatcher

import support
from support import drain, drop, drop_bytes, end_all, load, processes_of, run_cli, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl.worker.share import Share

wait_until = partial(support.wait_until, timeout=60)
"""A runner that takes half a second here takes ten on a busy machine."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes run Linux")


class Running:
    """A dispatcher in a thread."""

    def __init__(self, spool_dir: Path, engine: LocalNodes, **options: Any) -> None:
        self.lines: list[str] = []
        self.faults: list[BaseException] = []
        self.one = Dispatcher(
            spool_dir, connect=lambda *_: engine, may_be_root=True, beat=0.2, say=self.lines.append, **options
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.one.run()
        except BaseException as fault:
            self.faults.append(fault)

    @property
    def share(self) -> Share:
        """Its thread for the shared folder, once that is opened."""
        wait_until(lambda: self.one.share is not None, message=lambda: self.lines)
        assert self.one.share is not None
        return self.one.share

    @property
    def is_settled(self) -> bool:
        """Whether all orders are carried out."""
        return self.share.is_up_to_date

    @property
    def has_left(self) -> bool:
        """Whether it has left."""
        return not self._thread.is_alive()

    def stop(self, *, force: bool = False) -> None:
        """Stop it, and wait until it has left."""
        self.one.flags.stop(force=force)
        self._thread.join(30)
        assert self.has_left
        assert self.faults == []


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalNodes]:
    made = LocalNodes()
    yield made
    made.end()
    end_all(processes_of(tmp_path))


@pytest.fixture
def share(tmp_path: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder, and a spool all of whose jobs run on the cluster, but for those of the queue here."""
    monkeypatch.setattr(dispatch_check, "COMMANDS", ())
    folder = tmp_path / "share"
    folder.mkdir(mode=0o700)
    Layout(spool_dir).create()
    configure(spool_dir, f"engine: slurm\nslurm_dir: {folder}\nkill_grace: 0.3\n")
    drop_bytes(spool_dir, "here.yaml", b"engine: local\n", folder="queues")
    return folder


@pytest.fixture
def start(spool_dir: Path, engine: LocalNodes, share: Path) -> Iterator[Callable[..., Running]]:
    """Starts dispatchers, which leave at the end."""
    made: list[Running] = []

    def start(**options: Any) -> Running:
        made.append(Running(spool_dir, engine, **options))
        return made[-1]

    assert share.is_dir()
    yield start
    for one in made:
        one.stop(force=True)


def configure(spool_dir: Path, text: str) -> None:
    drop_bytes(spool_dir, "config.yaml", text.encode(), folder=".")


def record(spool_dir: Path, job_id: str) -> dict[str, Any]:
    [place] = where_is(spool_dir, job_id)
    return load(spool_dir / place / f"{job_id}.json")


def are_done(spool_dir: Path, *ids: str) -> Callable[[], bool]:
    return lambda: all(where_is(spool_dir, job_id) == ["done"] for job_id in ids)


def packs_in(share: Path) -> list[str]:
    return [path.name for place in share.iterdir() for path in place.iterdir() if path.is_dir()]


def ledger(spool_dir: Path) -> list[str]:
    path = spool_dir.parent / "ledger"
    return sorted(path.read_text().split()) if path.exists() else []


def noted(spool_dir: Path, job_id: str, more: str = "true", **fields: Any) -> None:
    """Queue a job that notes in the ledger that it has begun."""
    Spool(spool_dir).enqueue(f"echo {job_id} >> {spool_dir.parent}/ledger; {more}", id=job_id, **fields)


def test_it_hands_over_the_jobs_of_its_queues_and_no_others(
    start: Callable[..., Running], spool_dir: Path, share: Path
) -> None:
    """They come back with output and history; the job of a local queue waits for a worker, which touches nothing else."""
    for job_id in ("a", "b"):
        noted(spool_dir, job_id, "echo printed", timeout=10)
    Spool(spool_dir).enqueue("true", id="local", queue="here")
    drop(spool_dir, "dropped", command="echo from a file")
    running = start()
    wait_until(are_done(spool_dir, "a", "b", "dropped"), message=lambda: running.lines)
    assert (record(spool_dir, "a")["output"], record(spool_dir, "a")["worker"]) == ("printed\n", "slurm/n2")
    assert where_is(spool_dir, "local") == ["pending"]
    wait_until(lambda: packs_in(share) == [])
    running.stop()
    noted(spool_dir, "c")
    support.drain(spool_dir)
    assert (where_is(spool_dir, "local"), where_is(spool_dir, "c")) == (["done"], ["pending"])
    assert ledger(spool_dir) == ["a", "b"]
    assert [one for one in doctor.examine(Layout(spool_dir)) if not one.harmless] == []


def test_what_runs_when_it_stops_is_collected_by_the_next(
    start: Callable[..., Running], spool_dir: Path, share: Path, engine: LocalNodes
) -> None:
    """It leaves at once, and what has not begun is back as it was; a local worker takes nothing of it."""
    noted(spool_dir, "long", f"while [ ! -e {spool_dir.parent}/go ]; do sleep 0.02; done")
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["long"])
    engine.is_still = True
    noted(spool_dir, "waits")
    wait_until(lambda: where_is(spool_dir, "waits") == ["processing/slurm"])
    running.stop()
    assert (where_is(spool_dir, "long"), where_is(spool_dir, "waits")) == (["processing/slurm"], ["pending"])
    assert record(spool_dir, "waits").get("attempts", 0) == 0
    told = run_cli("wait", "waits", "--timeout", "0.2")
    assert "no dispatcher of slurm runs: queuectl worker start --engine slurm" in told.stderr
    support.drain(spool_dir)
    assert where_is(spool_dir, "long") == ["processing/slurm"]
    engine.is_still = False
    start()
    wait_until(are_done(spool_dir, "waits"))
    (spool_dir.parent / "go").touch()
    wait_until(are_done(spool_dir, "long"))
    assert ledger(spool_dir) == ["long", "waits"]
    assert len(record(spool_dir, "long")["history"]) == 1
    wait_until(lambda: packs_in(share) == [])


def test_a_wish_to_cancel_waits_for_the_next_dispatcher(
    start: Callable[..., Running], spool_dir: Path
) -> None:
    """Whoever cancels is told so, and the next one carries it out."""
    noted(spool_dir, "long", "sleep 600")
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["long"])
    running.stop()
    told = run_cli("cancel", "long")
    assert told.returncode == 75
    assert "no dispatcher runs that can end it; the next one will\n" in told.stderr
    assert "hint: queuectl worker start --engine slurm\n" in told.stderr
    start()
    wait_until(lambda: where_is(spool_dir, "long") == ["dead"])
    assert record(spool_dir, "long")["last_error"] == "Cancelled"


def test_a_forced_stop_ends_what_runs_and_puts_it_back_uncharged(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    noted(spool_dir, "long", "sleep 600")
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["long"])
    engine.is_still = True
    noted(spool_dir, "waits")
    wait_until(lambda: where_is(spool_dir, "waits") == ["processing/slurm"])
    running.stop(force=True)
    found = record(spool_dir, "long")
    assert where_is(spool_dir, "long") == where_is(spool_dir, "waits") == ["pending"]
    assert (found.get("attempts", 0), found["history"][0]["outcome"]) == (0, "stopped")
    assert packs_in(share) == []


def test_a_pause_is_noticed_only_when_nothing_can_begin_any_more(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes
) -> None:
    """What waits on the cluster is taken back first; what runs goes on; and after the pause it is handed over again."""
    engine.is_still = True
    for number in range(20):
        noted(spool_dir, f"j{number}", timeout=10)
    running = start()
    wait_until(lambda: running.one.handover.jobs == 20 and running.is_settled)
    hung = threading.Event()
    running.share.post(lambda *_: (hung.wait(60), ())[1])
    assert Spool(spool_dir).pause(patience=2) == ["slurm"]  # it looks once a second
    hung.set()
    assert Spool(spool_dir).pause(patience=20) == []
    assert Spool(spool_dir).counts()["pending"] == 20
    engine.is_still = False
    for parcel in list(engine.sent):
        engine.send(parcel)  # a runner that comes now finds nothing
    for runner in engine.runners:
        runner.wait(20)
    assert ledger(spool_dir) == []
    Spool(spool_dir).resume()
    wait_until(are_done(spool_dir, *(f"j{number}" for number in range(20))))
    assert len(ledger(spool_dir)) == 20


def test_a_pause_of_a_queue_takes_back_its_jobs_only(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes
) -> None:
    engine.is_still = True
    noted(spool_dir, "of_mail", queue="mail")
    noted(spool_dir, "of_web", queue="web")
    running = start()
    wait_until(lambda: running.one.handover.jobs == 2 and running.is_settled)
    out = {key[0]: claim for key, claim in running.one.handover._claims.items()}
    assert Spool(spool_dir).pause(queue="mail", patience=20) == []
    wait_until(lambda: running.is_settled)
    assert where_is(spool_dir, "of_mail") == ["pending"]
    # The same claim: put back with the others, it would be out again in a moment, in another pack.
    assert [*running.one.handover._claims.values()] == [out["of_web"]]


def test_jobs_are_cancelled_whether_they_wait_there_or_run(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes
) -> None:
    noted(spool_dir, "runs", "sleep 600", max_retries=3)
    start()
    wait_until(lambda: ledger(spool_dir) == ["runs"])
    engine.is_still = True
    noted(spool_dir, "waits")
    wait_until(lambda: where_is(spool_dir, "waits") == ["processing/slurm"])
    assert run_cli("cancel", "runs", "waits").returncode == 0
    assert [record(spool_dir, job_id)["last_error"] for job_id in ("runs", "waits")] == ["Cancelled"] * 2
    assert where_is(spool_dir, "runs") == where_is(spool_dir, "waits") == ["dead"]
    assert ledger(spool_dir) == ["runs"]


def test_limits_of_queues_hold_on_the_cluster_too(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes
) -> None:
    """Also for jobs of one queue that need different things, and when the next dispatcher has found what runs."""
    engine.is_still = True
    drop_bytes(spool_dir, "few.yaml", b"limit: 3\n", folder="queues")
    drop_bytes(spool_dir, "slow.yaml", b"rate: 2/1h\n", folder="queues")
    for number in range(4):
        noted(spool_dir, f"f{number}", queue="few")
        noted(spool_dir, f"g{number}", queue="few", needs={"cpu": 2})
        noted(spool_dir, f"s{number}", queue="slow")
    noted(spool_dir, "last")
    for _ in range(2):
        running = start()
        wait_until(partial(are_out, running, 4, "last"))
        counts = [sum(job_id.startswith(letter) for job_id in in_hand(running.one)) for letter in "fgs"]
        assert (counts[0] + counts[1], counts[2] <= 2) == (3, True)
        kill(running)


def are_out(running: Running, jobs: int, job_id: str) -> bool:
    return running.one.handover.jobs >= jobs and job_id in in_hand(running.one) and running.is_settled


def in_hand(one: Dispatcher) -> list[str]:
    return registry.claimed_for(one.layout, "slurm")


def kill(running: Running) -> None:
    """As a KILL does it: nothing is given back."""
    running.one.flags.stopping = True
    running.share.fault = OSError("killed")
    running.share.close()
    running.stop()


def test_no_more_packs_are_out_than_may_be(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """Long jobs have a pack each, short ones share some; all of them run in the end."""
    engine.is_still = True
    configure(spool_dir, f"engine: slurm\nslurm_dir: {share}\nslurm_jobs: 3\nslurm_pack: 10\n")
    for number in range(6):
        noted(spool_dir, f"long{number}", timeout=0, priority=9)
        noted(spool_dir, f"short{number}", timeout=5)
    running = start(drain=True)
    wait_until(lambda: running.one.handover.jobs >= 3 and running.is_settled)
    assert (len(packs_in(share)), running.one.handover.jobs) == (3, 3)
    engine.is_still = False
    for parcel in list(engine.sent):
        engine.send(parcel)
    wait_until(lambda: running.has_left, message=lambda: running.lines)
    assert len(ledger(spool_dir)) == 12
    assert packs_in(share) == []


def test_a_start_that_was_not_made_costs_a_queue_nothing(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """Of those that its rate allows: a job that goes back unsent, or is taken back, has not begun."""
    configure(spool_dir, f"engine: slurm\nslurm_dir: {share}\nslurm_jobs: 1\nslurm_pack: 1\n")
    drop_bytes(spool_dir, "slow.yaml", b"rate: 3/1h\n", folder="queues")
    starts = StartRate(Layout(spool_dir).start_times("slow"), 3, 3600)
    engine.is_still = True
    for number in range(3):
        noted(spool_dir, f"s{number}", queue="slow")
    running = start()
    wait_until(lambda: running.one.handover.jobs == 1 and running.is_settled)
    wait_until(lambda: starts.count(micros(time.time())) == 1)
    assert Spool(spool_dir).pause(queue="slow", patience=20) == []
    assert starts.count(micros(time.time())) == 0
    engine.is_still = False
    Spool(spool_dir).resume(queue="slow")
    wait_until(are_done(spool_dir, "s0", "s1", "s2"), message=lambda: running.lines)
    assert starts.count(micros(time.time())) == 3


def test_a_drain_ends_although_a_pack_cannot_be_read(
    start: Callable[..., Running], spool_dir: Path, share: Path, engine: LocalNodes
) -> None:
    """It says what stays claimed and why. `status` says it too, while a dispatcher runs."""
    engine.is_still = True
    noted(spool_dir, "in_it")
    running = start()
    wait_until(lambda: packs_in(share) != [])
    kill(running)
    [plan] = share.glob("*/*/pack.json")
    plan.write_text("no plan")
    engine.is_still = False
    noted(spool_dir, "other")
    running = start(drain=True)
    wait_until(lambda: running.has_left, message=lambda: running.lines)
    assert (where_is(spool_dir, "other"), where_is(spool_dir, "in_it")) == (["done"], ["processing/slurm"])
    told = f"slurm leaves alone: pack.json of {plan.parent} is damaged; 1 job that may be in it stays claimed until it is deleted"
    assert running.lines[-1] == told
    start()
    wait_until(lambda: told in Spool(spool_dir).notes())


def test_nothing_is_claimed_while_the_engine_does_not_answer(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes
) -> None:
    """A person may want to run it here meanwhile; and `status` says since when."""
    engine.trouble, engine.answered_at = "Unable to contact slurm controller", time.monotonic() - 60
    noted(spool_dir, "a")
    start()
    wait_until(lambda: any("slurm has not answered since" in line for line in Spool(spool_dir).notes()))
    assert where_is(spool_dir, "a") == ["pending"]
    engine.trouble = ""
    wait_until(are_done(spool_dir, "a"))
    wait_until(lambda: not any("slurm" in line for line in Spool(spool_dir).notes()))


def test_a_share_that_is_not_mounted_costs_no_job_its_run(
    start: Callable[..., Running], spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes still have it, and go on. Found empty, it must not look as if nothing had ever begun."""
    monkeypatch.setattr("queuectl.worker.dispatch_open.OPEN_AGAIN", 0.2)
    noted(spool_dir, "long", f"while [ ! -e {spool_dir.parent}/go ]; do sleep 0.02; done")
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["long"])
    away = share.with_name("away")
    share.rename(away)
    share.mkdir(mode=0o700)
    noted(spool_dir, "new")
    wait_until(lambda: any("is its file system mounted?" in line for line in Spool(spool_dir).notes()))
    running.stop()
    running = start()
    wait_until(lambda: any("is its file system mounted?" in line for line in Spool(spool_dir).notes()))
    assert where_is(spool_dir, "long") == ["processing/slurm"]
    share.rmdir()
    away.rename(share)
    (spool_dir.parent / "go").touch()
    wait_until(are_done(spool_dir, "long", "new"), message=lambda: running.lines)
    assert ledger(spool_dir) == ["long", "new"]


def test_a_share_that_refuses_for_days_is_logged_once(
    start: Callable[..., Running], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try makes a file with another name. The log would grow by a line for each."""
    tries: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        tries.append(f"{share}/.{len(tries)}.tmp")
        raise OSError(errno.EROFS, "Read-only file system", tries[-1])

    monkeypatch.setattr("queuectl.worker.dispatch_open.OPEN_AGAIN", 0.02)
    monkeypatch.setattr(place, "prepare", refuse)
    running = start()
    wait_until(lambda: len(tries) > 3)
    line = f"cannot use slurm_dir: {tries[0]}: read-only file system"
    assert [one for one in running.lines if "slurm_dir" in one] == [line]


def use_folder(running: Running, spool_dir: Path, folder: Path) -> None:
    """Set slurm_dir, and have it read at once, as HUP does."""
    configure(spool_dir, f"engine: slurm\nslurm_dir: {folder}\nkill_grace: 0.3\n")
    running.one.read_settings()


def another_folder_while_a_job_is_out(running: Running, spool_dir: Path, other: Path) -> None:
    """The job `long` runs until there is a file `go`."""
    noted(spool_dir, "long", f"while [ ! -e {spool_dir.parent}/go ]; do sleep 0.02; done")
    wait_until(lambda: ledger(spool_dir) == ["long"])
    other.mkdir(mode=0o700)
    use_folder(running, spool_dir, other)
    told = "slurm_dir is another folder now; it counts when"
    wait_until(lambda: any(told in line for line in Spool(spool_dir).notes()))


def test_another_shared_folder_counts_when_nothing_is_out_in_the_old_one(
    start: Callable[..., Running], spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for the next dispatcher, which must not take what runs there for what has not begun."""
    monkeypatch.setattr("queuectl.worker.dispatch_open.OPEN_AGAIN", 0.05)
    running, other = start(), share.with_name("other")
    another_folder_while_a_job_is_out(running, spool_dir, other)
    noted(spool_dir, "new")
    running.stop()
    running = start()
    wait_until(lambda: any(f"jobs are out in {share}" in line for line in running.lines))
    running.one.flags.request_look()
    wait_until(lambda: any(f"jobs are out in {share}" in line for line in Spool(spool_dir).notes()))
    assert ledger(spool_dir) == ["long"]
    use_folder(running, spool_dir, share)
    (spool_dir.parent / "go").touch()
    wait_until(are_done(spool_dir, "long", "new"), message=lambda: running.lines)
    use_folder(running, spool_dir, other)
    wait_until(lambda: list(other.iterdir()), message=lambda: running.lines)
    noted(spool_dir, "newest")
    wait_until(are_done(spool_dir, "newest"), message=lambda: running.lines)
    assert ledger(spool_dir) == ["long", "new", "newest"]
    assert len({path.name for place in (other, share) for path in place.iterdir()}) == 1  # its id stays


def test_what_is_out_in_the_old_shared_folder_is_recorded_before_the_new_one_counts(
    start: Callable[..., Running], spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stay there until somebody set the old folder again. And then nobody waits for the next look of a second."""
    running, other = start(), share.with_name("other")
    another_folder_while_a_job_is_out(running, spool_dir, other)

    noted(spool_dir, "new")
    monkeypatch.setattr("queuectl.worker.idle.TICK", 600.0)
    running.one.flags.request_look()
    (spool_dir.parent / "go").touch()

    wait_until(are_done(spool_dir, "long", "new"), message=lambda: running.lines)
    assert ledger(spool_dir) == ["long", "new"]
    assert list(other.iterdir())


def test_a_job_whose_file_is_taken_away_is_ended_and_recorded_nowhere(
    start: Callable[..., Running], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "TAKEN_EVERY", 0.1)
    noted(spool_dir, "long", f"sleep 600; touch {spool_dir.parent}/late", timeout=0)
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["long"])
    (spool_dir / "processing" / "slurm" / "long.json").unlink()
    wait_until(lambda: any("long was taken away" in line for line in running.lines))
    wait_until(lambda: packs_in(spool_dir.parent / "share") == [])
    assert where_is(spool_dir, "long") == []


@pytest.mark.parametrize("refused", ["settle_all", "wishes.minutes"])
def test_a_disk_that_refuses_for_a_moment_costs_no_job_its_run(
    start: Callable[..., Running], spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """An outcome that cannot be recorded, and jobs that are claimed and in no pack, are found again as after a crash."""
    monkeypatch.setattr("queuectl.worker.dispatch_open.OPEN_AGAIN", 0.2)
    works, refusals = attrgetter(refused)(handover), [1]

    def refuse_once(*args: Any, **options: Any) -> Any:
        if refusals:
            refusals.pop()
            raise OSError(28, "No space left on device")
        return works(*args, **options)

    monkeypatch.setattr(f"queuectl.worker.handover.{refused}", refuse_once)
    noted(spool_dir, "a")
    running = start()
    wait_until(are_done(spool_dir, "a"), message=lambda: running.lines)
    assert (ledger(spool_dir), refusals) == (["a"], [])
    assert len(record(spool_dir, "a")["history"]) == 1
    wait_until(lambda: packs_in(share) == [])


def test_what_must_not_run_after_all_does_not(start: Callable[..., Running], spool_dir: Path) -> None:
    """It has expired, or that for which it waits has decided so."""
    spool = Spool(spool_dir)
    noted(spool_dir, "parent", "exit 3", max_retries=0)
    noted(spool_dir, "child", after=["parent"], if_blocked="dead")
    noted(spool_dir, "late", expires_at=time.time() - 1)
    running = start()
    wait_until(lambda: spool.counts()["dead"] == 3, message=lambda: running.lines)
    assert ledger(spool_dir) == ["parent"]


def test_a_job_that_expires_while_it_waits_on_the_cluster_does_not_run(
    start: Callable[..., Running], spool_dir: Path, engine: LocalNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full cluster may begin it hours later. One that runs already goes on."""
    monkeypatch.setattr(dispatcher, "TAKEN_EVERY", 0.1)
    noted(spool_dir, "runs", "sleep 600", expires_at=time.time() + 3600)
    running = start()
    wait_until(lambda: ledger(spool_dir) == ["runs"], message=lambda: running.lines)
    engine.is_still = True
    noted(spool_dir, "late", expires_at=time.time() + 3600)
    wait_until(lambda: len(engine.sent) == 2, message=lambda: running.lines)
    real = running.one._storage.now
    monkeypatch.setattr(running.one._storage, "now", lambda: real() + 7200)
    wait_until(lambda: where_is(spool_dir, "late") == ["dead"], message=lambda: running.lines)
    assert "expired" in record(spool_dir, "late")["last_error"].lower()
    assert where_is(spool_dir, "runs") == ["processing/slurm"]
    assert ledger(spool_dir) == ["runs"]


def test_a_job_finds_those_for_which_it_has_waited(
    start: Callable[..., Running], spool_dir: Path, share: Path
) -> None:
    """The list is in the shared folder, as no node sees the spool."""
    noted(spool_dir, "parent", "echo result", queue="here")
    drain(spool_dir)
    look = f'echo "$QUEUECTL_AFTER" > {spool_dir.parent}/where; cat "$QUEUECTL_AFTER"; echo "$QUEUECTL_AFTER_OUT"'
    Spool(spool_dir).enqueue(look, id="child", after=["parent"])
    Spool(spool_dir).enqueue('echo "${QUEUECTL_AFTER-none}"', id="alone")
    running = start()
    wait_until(are_done(spool_dir, "child", "alone"), message=lambda: running.lines)
    out = spool_dir / "logs" / "parent.1.out"
    told = f"parent\tcompleted\t{spool_dir}/done/parent.json\t{out}\n{out}\n"
    assert record(spool_dir, "child")["output"] == told
    assert (spool_dir.parent / "where").read_text().startswith(f"{share}/")
    assert record(spool_dir, "alone")["output"] == "none\n"


def test_a_hook_on_the_cluster_finds_of_what_it_tells(start: Callable[..., Running], spool_dir: Path) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}")
    noted(spool_dir, "bad", "exit 3", max_retries=1)
    running = start()
    wait_until(lambda: len(told(spool_dir)) > 0, message=lambda: running.lines)
    assert told(spool_dir)[0].startswith("dead bad dead")


def test_output_that_comes_into_the_spool_is_not_printed_again(
    start: Callable[..., Running], spool_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """`logs -f` has read it in the shared folder while it ran. Its copy in logs/ is another file."""
    noted(
        spool_dir, "long", f"echo so far; until test -e {spool_dir.parent}/go; do sleep 0.05; done; echo end"
    )
    running = start()
    wait_until(lambda: "long" in dispatched.read(running.one.layout, "slurm"))
    reader = LogReader(Spool(spool_dir), "long", 1, "out", Sink(sys.stdout, raw=True))
    wait_until(lambda: reader.written_at() > 0)
    reader.copy_new()
    (spool_dir.parent / "go").touch()
    wait_until(are_done(spool_dir, "long"), message=lambda: running.lines)
    reader.copy_new()
    reader.close()
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"so far\nend\n"


def test_what_runs_where_is_told(start: Callable[..., Running], spool_dir: Path, engine: LocalNodes) -> None:
    """`worker list`, `status`, `show`, and the output while it runs. A start of a second dispatcher names the first."""
    noted(spool_dir, "long", "echo so far; sleep 600")
    running = start()
    wait_until(lambda: "long" in dispatched.read(running.one.layout, "slurm"))
    engine.is_still = True
    noted(spool_dir, "waits")
    wanted = "1 run, 1 wait there (Resources 1)"
    wait_until(lambda: wanted in run_cli("worker", "list").stdout)
    listed, status, shown = (
        run_cli(*words).stdout for words in (("worker", "list"), ("status",), ("show", "long"))
    )
    assert listed == f"slurm - PID={os.getpid()} - 2 jobs on slurm: {wanted}\n"
    assert "workers: 0\n" in status
    assert f"slurm: {wanted}\n" in status
    assert "Engine        slurm, job 7, node n2\n" in shown
    assert "Engine        slurm, job 7, waits there: Resources\n" in run_cli("show", "waits").stdout
    columns = "id,engine,engine-id,node,engine-reason"
    table = "long\tslurm\t7\tn2\t\nwaits\tslurm\t7\t\tResources\n"
    assert run_cli("list", "--engine", "slurm", "--columns", columns).stdout == table
    assert run_cli("list", "--engine", "local").stdout == ""
    there = {
        row.id: (row.engine, row.engine_id, row.node, row.engine_reason) for row in Spool(spool_dir).list()
    }
    assert there == {"long": ("slurm", "7", "n2", None), "waits": ("slurm", "7", None, "Resources")}
    told = json.loads(run_cli("show", "waits", "--json").stdout)
    assert (told["engine"], told["engine_id"], told["node"], told["engine_reason"]) == (
        "slurm",
        "7",
        None,
        "Resources",
    )
    [first, second] = json.loads(run_cli("top", "--json").stdout)["running"]
    assert {first["node"], second["node"]} == {"n2", None}
    metrics = Spool(spool_dir).metrics()
    assert 'queuectl_engine_jobs{engine="slurm",state="running"} 1.0\n' in metrics
    assert 'queuectl_engine_jobs_waiting{engine="slurm",reason="Resources"} 1.0\n' in metrics
    assert 'queuectl_dispatcher_up{engine="slurm"} 1.0\n' in metrics
    assert run_cli("logs", "long").stdout == "so far\n"
    assert run_cli("worker", "scale", "0").stdout == "No workers to stop\n"
    with pytest.raises(WorkerError, match=rf"slurm has a dispatcher already \(PID {os.getpid()}\)"):
        Dispatcher(spool_dir, may_be_root=True).register()


def test_nothing_is_handed_over_where_others_can_write(
    start: Callable[..., Running], spool_dir: Path, share: Path
) -> None:
    """They could run commands as its user. It is looked at each second."""
    running = start()
    wait_until(lambda: running.is_settled)
    share.chmod(0o777)
    wait_until(lambda: any("can be written by others" in line for line in Spool(spool_dir).notes()))
    noted(spool_dir, "a")
    running.one.flags.request_look()
    wait_until(lambda: not running.one.flags.look_requested)
    assert where_is(spool_dir, "a") == ["pending"]
    share.chmod(0o700)
    wait_until(are_done(spool_dir, "a"), message=lambda: running.lines)


def test_it_is_refused_where_it_would_be_dangerous(
    spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root, without a folder or in one where others can write; and the name stays free."""
    with monkeypatch.context() as root:
        root.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(SpoolError, match="root cannot hand jobs to Slurm"):
            dispatch_check.check(Layout(spool_dir), Settings())
    if os.geteuid() == 0:
        with pytest.raises(SpoolError, match="root cannot hand jobs to Slurm"):
            Dispatcher(spool_dir).register()
    monkeypatch.setattr(dispatch_check, "COMMANDS", ("no-such-sbatch",))
    with pytest.raises(SpoolError, match="no-such-sbatch is not found"):
        Dispatcher(spool_dir, may_be_root=True).register()
    monkeypatch.setattr(dispatch_check, "COMMANDS", ())
    share.chmod(0o777)
    with pytest.raises(SpoolError, match="can be written by others"):
        Dispatcher(spool_dir, may_be_root=True).register()
    share.rmdir()
    with pytest.raises(SpoolError, match="cannot use slurm_dir"):
        Dispatcher(spool_dir, may_be_root=True).register()
    configure(spool_dir, "engine: local\n")
    with pytest.raises(SpoolError, match="slurm_dir is not set"):
        Dispatcher(spool_dir, may_be_root=True).register()
    assert registry.live_workers(Layout(spool_dir)) == []


def test_a_share_that_hangs_keeps_nobody_from_stopping_it(
    start: Callable[..., Running], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is kept then until the process is gone: what still happens there must not meet another dispatcher."""
    monkeypatch.setattr("queuectl.worker.dispatch_stop.PATIENCE", 0.2)
    monkeypatch.setattr(dispatcher, "HANG_UP", 0.2)
    running = start()
    wait_until(lambda: running.is_settled)
    hung = threading.Event()
    share = running.share
    share.post(lambda *_: (hung.wait(60), ())[1])
    wait_until(lambda: share.busy_since is not None)
    noted(spool_dir, "a")
    try:
        running.stop()
        with pytest.raises(WorkerError, match="slurm has a dispatcher already"):
            Dispatcher(spool_dir, may_be_root=True).register()
        assert where_is(spool_dir, "a") == ["pending"]
    finally:
        hung.set()


def test_an_output_that_cannot_be_read_now_keeps_nobody_from_stopping_it(
    start: Callable[..., Running], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file server goes away when a run has just ended. The run stays claimed: the next dispatcher records it."""
    monkeypatch.setattr("queuectl.worker.dispatch_stop.PATIENCE", 0.2)
    monkeypatch.setattr(dispatcher, "HANG_UP", 0.2)
    begun, back = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> tuple[int, int]:
        begun.set()
        back.wait(120)
        return 0, 0

    monkeypatch.setattr(job_logs, "copy_output", hang)
    noted(spool_dir, "a")
    running = start()
    wait_until(begun.is_set)
    try:
        running.stop()
        assert where_is(spool_dir, "a") == ["processing/slurm"]
    finally:
        back.set()
