"""Short jobs that a worker claims several at a time: none is lost, run twice, or kept from others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api import listing
from queuectl.control import commands, run_lock
from queuectl.index.index import Index
from queuectl.index.row import Row
from queuectl.job.record import Job
from queuectl.storage.claim import claim_files, read_claim
from queuectl.storage.settle import settle_all
from queuectl.system import files
from queuectl.worker import prefetch as claiming
from queuectl.worker import settle_batch
from queuectl.worker.prefetch import BATCH_SECONDS, LONG_JOB, MAX_BATCH, Prefetch

from support import drain, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl.layout import Layout

WORKER = """
import sys
from queuectl.system import watcher
from queuectl.worker import prefetch, signals; from queuectl import Worker
at_once, prefetch.LONG_JOB = int(sys.argv[2]), float(sys.argv[3])
prefetch.WAITING_SHARE, prefetch.BATCH_SECONDS, watcher.LOAD_AFTER = 1, 1e9, 0
prefetch.Prefetch._next_size = lambda _: at_once
worker = Worker(sys.argv[1], drain=True, say=lambda line: print(line, flush=True))
signals.listen(worker.flags, reread=worker.read_settings, in_terminal=False)
worker.run()
"""
"""It always claims that many at once, on a slow machine and with few jobs too, and it has a watch,
as after a second of work."""

FOREVER = 1e8


@pytest.fixture
def busy(spool_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a worker that works through several jobs at a time, as in busy(8, long=0.005)."""
    started: list[subprocess.Popen[str]] = []

    def start(at_once: int, long: float = FOREVER) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WORKER, str(spool_dir), str(at_once), str(long)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def enqueue(spool_dir: Path, *commands: str, **fields: Any) -> list[str]:
    """Queue jobs that note in the file `runs` that they run; returns their ids, in order."""
    spool = Spool(spool_dir)
    spool.refresh()
    before = sum(spool.counts().values())
    ids = [f"job{before + number}" for number in range(len(commands))]
    for job_id, command in zip(ids, commands, strict=True):
        spool.enqueue(f"echo {job_id} >> {spool_dir}/runs; {command}", id=job_id, **fields)
    return ids


def runs(spool_dir: Path) -> list[str]:
    """The jobs in the order of their starts."""
    return (spool_dir / "runs").read_text().split() if (spool_dir / "runs").exists() else []


def claimed_by_worker(spool_dir: Path) -> list[str]:
    """What lies in the first worker's folder."""
    return sorted(path.stem for path in (spool_dir / "processing" / "worker-0").glob("*.json"))


KILLS = "[ -e $QUEUECTL_SPOOL/killed ] || { touch $QUEUECTL_SPOOL/killed; kill -9 $PPID; sleep 1; }"
"""The first run kills its worker, like a job that uses up all memory."""


# -- a worker that dies ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_no_outcome_and_charges_no_job_it_had_not_begun(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """Of eight claimed jobs three had finished, one killed the worker, and four had not started: only that one runs again."""
    ids = enqueue(spool_dir, "true", "echo said", "printf a; printf a >&2", KILLS, *["true"] * 4)
    assert busy(8).wait(20) == -signal.SIGKILL
    assert claimed_by_worker(spool_dir) == ids
    assert runs(spool_dir) == ids[:4]

    said = drain(spool_dir)

    assert sorted(runs(spool_dir)) == sorted([*ids, ids[3]])
    records = [load(spool_dir / "done" / f"{job_id}.json") for job_id in ids]
    assert {record["state"] for record in records} == {"completed"}
    outcomes = [[run["outcome"] for run in record["history"]] for record in records]
    assert outcomes == [["succeeded"]] * 3 + [["interrupted", "succeeded"]] + [["succeeded"]] * 4
    assert [record["attempts"] for record in records] == [1] * 8
    assert [record["output"] for record in records[:3]] == ["", "said\n", "a\na"]
    for record in records[:3]:
        assert record["worker"] == "worker-0"
        assert record["exit_code"] == 0
        assert record["started_at"] < record["finished_at"]
        assert record["duration"] > 0
    assert sum("had run it, and died before it was settled" in line for line in said) == 3
    assert sum("had not begun it" in line for line in said) == 4
    assert sum("died while running it" in line for line in said) == 1


def test_what_a_killed_worker_had_not_begun_keeps_its_place_in_the_line(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """It runs before jobs that arrived later, and its waiting time counts from its arrival."""
    ids = enqueue(spool_dir, KILLS, "true", "true", "true", "true")
    before = [row.id for row in Spool(spool_dir).list("pending")]
    busy(3).wait(20)

    Spool(spool_dir).refresh()
    drain(spool_dir)

    assert [job_id for job_id in runs(spool_dir)[1:] if job_id != ids[0]] == ids[1:]
    arrived = {row.id: row.arrived for row in listing.select(Spool(spool_dir))}
    assert [arrived[job_id] for job_id in before] == sorted(arrived.values())


def test_a_job_that_must_not_run_twice_is_never_claimed_beside_another(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """After a power cut every claimed job counts as started, so this one would be given up without having run."""
    look = "ls $QUEUECTL_SPOOL/processing/worker-0 >> $QUEUECTL_SPOOL/$QUEUECTL_JOB_ID.list"
    first = enqueue(spool_dir, look, look)
    fragile = enqueue(spool_dir, look, look, on_crash="dead")
    last = enqueue(spool_dir, look, look)
    assert busy(8).wait(20) == 0

    assert runs(spool_dir) == [*first, *fragile, *last]
    for job_id in (*first, *fragile, *last):
        seen = {name.removesuffix(".json") for name in (spool_dir / f"{job_id}.list").read_text().split()}
        assert job_id in seen
        assert not seen & set(fragile) - {job_id}
    assert set(claimed_by_worker(spool_dir)) == set()


@pytest.mark.parametrize("on_crash", ["retry", "dead"])
def test_after_a_power_cut_what_was_claimed_counts_as_begun(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]], on_crash: str
) -> None:
    """The run file may be older than the claim: what it says about another boot proves nothing."""
    ids = enqueue(spool_dir, KILLS, "true")
    busy(2).wait(20)
    path = spool_dir / "data" / "workers" / "worker-0.run"
    job_id, run, boot, *rest = path.read_text().split(maxsplit=3)
    assert job_id == ids[0]
    path.write_text(f"{job_id} {run} another-{boot} {' '.join(rest)}")
    claimed = spool_dir / "processing" / "worker-0" / f"{ids[1]}.json"
    claimed.write_text(claimed.read_text().replace('"id"', f'"on_crash": "{on_crash}", "id"'))

    drain(spool_dir)

    [place] = where_is(spool_dir, ids[1])
    record = load(spool_dir / place / f"{ids[1]}.json")
    assert record["history"][0]["outcome"] == "interrupted"
    assert place == ("dead" if on_crash == "dead" else "done")


# -- what others may rely on -------------------------------------------------------------------------------------------


def test_a_long_job_keeps_nobody_waiting_behind_it(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """What is claimed beside it goes back within milliseconds, in its old place; finished jobs are settled."""
    ids = enqueue(spool_dir, "true", "sleep 30", "true", "true")
    worker = busy(4, long=0.005)
    wait_until(lambda: runs(spool_dir) == ids[:2])
    wait_until(lambda: claimed_by_worker(spool_dir) == [ids[1]])

    assert where_is(spool_dir, ids[0]) == ["done"]
    rows = {row.id: row for row in Spool(spool_dir).list()}
    assert [rows[job_id].state for job_id in ids] == ["completed", "processing", "pending", "pending"]
    drain(spool_dir)

    assert runs(spool_dir) == ids
    assert [load(spool_dir / "done" / f"{job_id}.json")["attempts"] for job_id in ids[2:]] == [1, 1]
    worker.send_signal(signal.SIGINT)
    Spool(spool_dir).cancel(ids[1])
    assert worker.wait(20) == 0


def test_an_urgent_job_goes_before_those_claimed(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """It starts after the running job, and not after all jobs that were claimed with that one."""
    wait = "until [ -e $QUEUECTL_SPOOL/go ]; do sleep 0.01; done"
    ids = enqueue(spool_dir, "true", wait, *["true"] * 6)
    worker = busy(8)
    wait_until(lambda: runs(spool_dir) == ids[:2])
    assert claimed_by_worker(spool_dir) == ids
    assert [worker.job_id for worker in Spool(spool_dir).workers()] == [ids[1]]
    [urgent] = enqueue(spool_dir, "true", priority=10)
    (spool_dir / "go").touch()

    assert worker.wait(20) == 0
    assert runs(spool_dir) == [*ids[:2], urgent, *ids[2:]]


def test_a_claimed_job_that_is_cancelled_is_not_run_later(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """Its worker gives it up without starting it, and says so."""
    ids = enqueue(spool_dir, "sleep 30", "true", "true")
    busy(3, long=10)
    wait_until(lambda: runs(spool_dir) == ids[:1])
    assert claimed_by_worker(spool_dir) == ids
    spool = Spool(spool_dir)

    assert spool.cancel(ids[1]) == "cancelled"
    assert claimed_by_worker(spool_dir) == [ids[0], ids[2]], "it went back with the rest of the batch"
    assert spool.cancel(ids[0]) == "cancelled"
    wait_until(lambda: finished(spool_dir, *ids))
    assert [where_is(spool_dir, job_id) for job_id in ids] == [["dead"], ["dead"], ["done"]]
    assert ids[1] not in runs(spool_dir)


@pytest.mark.parametrize("how", ["gracefully", "by force", "paused"])
def test_a_worker_that_stops_puts_back_what_it_has_not_begun(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    """They are uncharged and unchanged; finished jobs are recorded."""
    wait = "until [ -e $QUEUECTL_SPOOL/go ]; do sleep 0.01; done"
    ids = enqueue(spool_dir, "true", wait, "true", "true")
    before = {job_id: load(spool_dir / "pending" / f"{job_id}.json") for job_id in ids}
    worker = busy(4)
    wait_until(lambda: runs(spool_dir) == ids[:2])
    spool = Spool(spool_dir)
    if how == "paused":
        spool.pause("for a while")
        wait_until(lambda: spool.workers()[0].paused)
    elif how == "by force":
        assert commands.request_stop(spool.layout, "worker-0", force=True)
    else:
        worker.send_signal(signal.SIGTERM)
    if how != "by force":
        (spool_dir / "go").touch()
    assert worker.wait(20) == 0
    (spool_dir / "go").touch()

    begun = "pending" if how == "by force" else "done"
    assert [where_is(spool_dir, job_id) for job_id in ids] == [["done"], [begun], ["pending"], ["pending"]]
    for job_id in ids[2:]:
        assert load(spool_dir / "pending" / f"{job_id}.json") == before[job_id]
    if how == "paused":
        spool.resume()
    drain(spool_dir)
    assert runs(spool_dir) == [*ids[:2], *(ids[1:2] if how == "by force" else []), *ids[2:]]


def test_a_job_that_was_taken_away_is_told_and_the_others_are_recorded(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """Somebody deletes a file from the worker's folder: before its start, or when it has finished and is not settled."""
    take = "rm $QUEUECTL_SPOOL/processing/worker-0/job0.json"
    ids = enqueue(spool_dir, "true", take, "true")
    worker = busy(3)
    said, _ = worker.communicate(timeout=20)

    assert f"{ids[0]} was taken away while it ran; its outcome is not recorded" in said
    assert [where_is(spool_dir, job_id) for job_id in ids] == [[], ["done"], ["done"]]
    assert sum(Spool(spool_dir).counts().values()) == 2


def test_an_outcome_is_recorded_when_all_that_was_claimed_with_it_has_expired(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """Then no other job is left to be settled with."""
    doors = [spool_dir.parent / "door0", spool_dir.parent / "door1"]
    wait = [f"while [ ! -e {door} ]; do sleep 0.02; done" for door in doors]
    # The worker is at work before the time begins to run, so that its start does not count.
    [before] = enqueue(spool_dir, wait[0], timeout=60)
    worker = busy(2)
    wait_until(lambda: claimed_by_worker(spool_dir) == [before])
    [first] = enqueue(spool_dir, wait[1], timeout=60)
    expiry = time.time() + 2
    [second] = enqueue(spool_dir, "true", expires_at=expiry)
    doors[0].touch()
    wait_until(lambda: claimed_by_worker(spool_dir) == [first, second])
    wait_until(lambda: time.time() > expiry)
    doors[1].touch()
    assert worker.wait(20) == 0

    assert [where_is(spool_dir, job_id) for job_id in (first, second)] == [["done"], ["dead"]]
    assert runs(spool_dir) == [before, first]


def test_the_log_tells_starts_and_ends_in_their_order(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """The lines are written together, in the order in which the jobs ran."""
    ids = enqueue(spool_dir, "true", "true", "exit 3", "true", max_retries=1)
    said, _ = busy(4).communicate(timeout=20)

    told = [
        line.split()[:3] for line in said.splitlines() if line.startswith(("executing", "completed", "dead"))
    ]
    words = [" ".join(line).partition(":")[0] for line in told]
    ends = {ids[2]: f"dead {ids[2]}"}
    assert words == [
        line
        for job_id in ids
        for line in (f"executing job {job_id}", ends.get(job_id, f"completed {job_id}"))
    ]


def test_one_with_a_unique_key_is_claimed_alone(
    spool_dir: Path, busy: Callable[..., subprocess.Popen[str]]
) -> None:
    """Whether it may run is decided for one job at a time; the next job with the key waits for its end."""
    look = "ls $QUEUECTL_SPOOL/processing/worker-0 > $QUEUECTL_SPOOL/$QUEUECTL_JOB_ID.list"
    keyed = enqueue(spool_dir, look, look, unique="k", if_exists="queue")
    assert busy(8).wait(20) == 0

    for job_id in keyed:
        assert (spool_dir / f"{job_id}.list").read_text().split() == [f"{job_id}.json"]


# -- how many ----------------------------------------------------------------------------------------------------------


def a_prefetch(waiting: int, clock: SimpleNamespace) -> Prefetch:
    """A prefetch with an index in memory that has this many waiting jobs."""
    index = Index(":memory:", "/nowhere", "boot")
    index.open()
    for number in range(waiting):
        index.put(
            Row(id=f"job{number}", state="pending", place="pending", name=f"{number}", ready_key=number)
        )
    other: Any = SimpleNamespace(index=index)
    return Prefetch(other, "worker-0", other, other, clock=lambda: clock.now)


def sizes(prefetch: Prefetch, clock: SimpleNamespace, seconds: float, turns: int = 8) -> list[int]:
    """How many jobs are claimed each time, if each job takes this many seconds."""
    found = []
    for _ in range(turns):
        found.append(len(prefetch._next_rows()))
        prefetch._started = found[-1]
        clock.now += found[-1] * seconds
    return found


def test_more_are_claimed_only_while_jobs_are_short_and_many_wait() -> None:
    """Twice as many each time, up to a batch of work; one at a time where jobs are long."""
    clock = SimpleNamespace(now=100.0)
    prefetch = a_prefetch(1000, clock)

    assert sizes(prefetch, clock, 0.001) == [1, 2, 4, 8, MAX_BATCH, MAX_BATCH, MAX_BATCH, MAX_BATCH]
    assert sizes(prefetch, clock, LONG_JOB * 1.01)[1:] == [1] * 7
    assert max(sizes(prefetch, clock, 0.004)) == int(BATCH_SECONDS / 0.004)
    clock.now += 60
    assert sizes(prefetch, clock, 0.001)[0] == 1


def test_a_slow_record_of_an_end_makes_no_job_long(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook for each job makes each record wait for the disk. Once that took 5 ms, one job at a time was claimed for ever."""
    recorded, claimed = 0, []

    def slow(*args: Any, **options: Any) -> Any:
        nonlocal recorded
        recorded += 1
        return settle_all(*args, **options)

    def noting(storage: Any, rows: list[Row], worker: str) -> Any:
        claimed.append(len(rows))
        return claim_files(storage, rows, worker)

    # A minute for each record, and next to nothing for a job, however slow this machine is.
    clock = lambda: 60.0 * recorded + time.monotonic() / 1e6  # noqa: E731
    defaults = {**(Prefetch.__init__.__kwdefaults__ or {}), "clock": clock}
    monkeypatch.setattr(Prefetch.__init__, "__kwdefaults__", defaults)
    monkeypatch.setattr(settle_batch, "settle_all", slow)
    monkeypatch.setattr(claiming, "claim_files", noting)
    Spool(spool_dir).enqueue_many([{"command": "true"}] * 40)
    drain(spool_dir)

    assert len(list((spool_dir / "done").iterdir())) == 40
    assert max(claimed) > 4


def test_the_last_waiting_jobs_are_left_for_all_workers() -> None:
    """Four jobs wait and up to sixteen could be claimed: one is claimed."""
    clock = SimpleNamespace(now=100.0)

    assert max(sizes(a_prefetch(4, clock), clock, 0.001)) == 1
    assert max(sizes(a_prefetch(8, clock), clock, 0.001)) == 2


# -- the run file ------------------------------------------------------------------------------------------------------


def signed(layout: Layout, *over: str) -> run_lock.WorkerRuns | None:
    """Have a run file written, and read it."""
    lines = [run_lock.line(Job(id=job_id, started_at=1.25), "1.0", 2.5, 0.75) for job_id in over]
    run_lock.acquire(layout, "worker-0", "mine", "1.5", "boot", lines).release()
    return run_lock.read_all(layout, "worker-0")


def test_a_run_file_tells_what_runs_what_is_over_and_what_never_began(layout: Layout) -> None:
    """A longer text that was in the file before leaves nothing behind."""
    signed(layout, *(f"older{number}" for number in range(16)))
    found = signed(layout, "a", "b")

    assert found
    (record,) = found.records
    assert (record.job_id, record.run, record.boot) == ("mine", "1.5", "boot")
    assert found.ended == {
        ("a", "1.0"): run_lock.EndedRun(1.25, 2.5, 0.75),
        ("b", "1.0"): run_lock.EndedRun(1.25, 2.5, 0.75),
    }
    assert [found.never_began(Job(id=job_id), "boot") for job_id in ("mine", "a", "other")] == [
        False,
        False,
        True,
    ]
    assert not found.never_began(Job(id="other"), "later boot")


@pytest.mark.parametrize("damage", ["cut", "rubbish", "older"])
def test_a_run_file_that_is_not_whole_proves_nothing(layout: Layout, damage: str) -> None:
    """A job that it does not name may have started all the same."""
    signed(layout, "a", "b")
    path = layout.worker_file("worker-0", "run")
    with open(path, "r+b") as file:
        data = file.read()
        if damage == "cut":
            os.ftruncate(file.fileno(), len(data) - 30)
        else:
            text = b"mine 1.5".ljust(128) if damage == "older" else data.replace(b"2.5", b"\xff.5")
            file.seek(0)
            file.write(text)
            file.truncate()
    found = run_lock.read_all(layout, "worker-0")

    assert found is None or not found.never_began(Job(id="other"), "boot")
    assert found is None or not found.ended


# -- a disk that refuses -----------------------------------------------------------------------------------------------


def test_an_outcome_that_is_refused_keeps_the_index_right_about_the_others(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three settled together the second is refused by a full disk; the index is right about the first at once."""
    spool = Spool(spool_dir)
    ids = [spool.enqueue("true", id=job_id).id or "" for job_id in "abc"]
    os.makedirs(spool.layout.claims("worker-0"))
    with spool._index.moving():
        taken = claim_files(spool._storage, spool._index.ready(3), "worker-0")
    claims = [claim for one in taken if (claim := read_claim(spool._storage, *one))]
    for claim in claims:
        claim.state = "completed"
    real = files.move_to_free_name

    def refuse(source: str, folder: str, name: str) -> str:
        if name == "b.json":
            raise OSError(28, "No space left on device")
        return real(source, folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(files, "move_to_free_name", refuse)
        with pytest.raises(OSError, match="No space"):
            settle_all(spool._storage, claims)
    assert [claim.settled for claim in claims] == [True, False, False]
    assert spool._index.broken is None
    assert spool._index.states(ids) == {"a": "completed", "b": "processing", "c": "processing"}
    assert not list((spool_dir / "tmp").iterdir())

    assert settle_all(spool._storage, claims) == []
    assert {where_is(spool_dir, job_id)[0] for job_id in ids} == {"done"}
    assert set(spool._index.states(ids).values()) == {"completed"}
