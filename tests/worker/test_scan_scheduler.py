"""When a worker looks for new files: before each claim, after a burst, out of caution, and never at the cost of jobs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.system.locks import Lock, is_locked
from queuectl.system.watcher import BURST
from queuectl.worker import scan_scheduler

from support import drop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from queuectl.worker.burst import Burst

YEAR = 365 * 86400 * 10**9


def look_to_the_end(worker: Worker) -> None:
    """On a busy machine a single slice of a look may be over before the look is."""

    def done() -> bool:
        worker._scheduler.take_in()
        return worker._scheduler._scan is None and not worker._scheduler._edit_scan.is_running

    wait_until(done, 20)


def a_worker_with_nothing_due(spool_dir: Path) -> Worker:
    """A worker that has looked at all there is."""
    worker = Worker(spool_dir)
    worker.check()
    worker._intake.refresh()
    look_to_the_end(worker)
    return worker


def test_a_worker_that_moves_looks_again_though_nothing_shows(spool_dir: Path) -> None:
    """A drop that falls beside one of its own moves leaves no trace in the folder's time."""
    worker = a_worker_with_nothing_due(spool_dir)
    worker._scheduler._not_before = 0.0
    drop(spool_dir, "dropped", command="true")
    status = os.stat(spool_dir / "pending")
    with worker._index.write():
        worker._index.db.execute(
            "UPDATE folders SET mtime = ?, stamped = ? WHERE place = 'pending'",
            (status.st_mtime_ns, status.st_mtime_ns + YEAR),
        )
    worker._scheduler.take_in()
    assert worker._index.get("dropped") is None

    worker._scheduler.job_claimed()

    def seen() -> object:
        worker._scheduler.take_in()
        return worker._index.get("dropped")

    wait_until(seen, 5)
    worker._scheduler.close()
    worker._index.close()


def test_a_busy_worker_looks_before_each_claim(spool_dir: Path) -> None:
    """The end of a job and the claim of the next share a transaction only if nothing has dropped in meanwhile."""
    worker = a_worker_with_nothing_due(spool_dir)
    assert worker._scheduler.is_up_to_date()

    drop(spool_dir, "urgent", command="true")

    assert not worker._scheduler.is_up_to_date()
    worker._scheduler.close()
    worker._index.close()


def test_a_long_look_for_edits_does_not_hold_the_jobs_up(spool_dir: Path) -> None:
    """Beyond its first slice a busy worker's look for files edited in place takes a twentieth of its time, and ends."""
    worker = Worker(spool_dir)
    worker.check()
    worker._intake.refresh()
    steps = iter(range(10**9))
    worker._intake.edits = lambda: (None for _ in steps)  # type: ignore[method-assign]
    scheduler = worker._scheduler
    scheduler.job_claimed()
    scheduler.take_in()
    begun = next(steps)
    assert begun > 0

    scheduler.take_in()

    assert next(steps) == begun + 1
    assert scheduler._edit_scan.is_running
    scheduler._edit_scan.end_pause()
    scheduler.take_in()
    assert next(steps) > begun + 2
    scheduler.close()
    assert not is_locked(str(spool_dir / "data" / "edits.lock"))
    worker._index.close()


def test_an_edit_that_was_told_to_a_lost_index_is_told_to_the_next(spool_dir: Path) -> None:
    """A file is edited in place just when the index is deleted and made anew by others: it is looked at again."""
    path = drop(spool_dir, "a", command="true", hold=True)
    worker = Worker(spool_dir)
    worker.check()
    worker._intake.refresh()
    worker._scheduler.take_in()
    assert not worker._watch.is_edited
    for one in (spool_dir / "data").glob("queuectl.db*"):
        one.unlink()
    Spool(spool_dir).refresh()
    path.write_text('{"command": "true"}')
    worker._watch.is_edited = True

    with worker._barrier:
        worker._scheduler.take_in()
    assert not worker._index.usable
    worker._intake.refresh()
    worker._scheduler.take_in()

    assert worker._index.ready_and_due()[0]
    worker._scheduler.close()
    worker._index.close()


def test_a_look_out_of_caution_rests_and_gives_way_to_a_real_one(spool_dir: Path) -> None:
    """It takes a twentieth of a busy worker's time, believes what was believed, and ends as soon as something drops in."""
    worker = a_worker_with_nothing_due(spool_dir)
    steps, asked = iter(range(10**9)), []

    def scan(_place: str, *, find_missing: bool, note_time: bool) -> Iterator[None]:
        asked.append((find_missing, note_time))
        return (None for _ in steps)

    worker._intake.scan = scan  # type: ignore[method-assign, assignment]
    scheduler = worker._scheduler
    scheduler.job_claimed()
    scheduler._not_before = scheduler._safety_at = 0.0
    scheduler.take_in()
    assert asked == [(False, False)]
    begun = next(steps)

    scheduler.take_in()
    assert next(steps) == begun + 1
    assert scheduler.is_up_to_date()

    drop(spool_dir, "urgent", command="true")
    assert not scheduler.is_up_to_date()
    scheduler.take_in()
    assert asked == [(False, False), (False, True)]
    scheduler.close()
    worker._index.close()


def test_a_look_goes_on_while_a_long_job_runs(spool_dir: Path) -> None:
    """Nobody else can look meanwhile: a drop would wait for as long as that job takes."""
    worker = a_worker_with_nothing_due(spool_dir)
    steps = iter(range(10**9))
    worker._intake.scan = lambda *_, **__: (None for _ in steps)  # type: ignore[method-assign]
    drop(spool_dir, "dropped", command="true")
    worker._scheduler.take_in()
    begun = next(steps)
    assert begun > 0

    worker._upkeep.run(busy=True)

    assert next(steps) > begun + 1
    worker._scheduler.close()
    worker._index.close()


def test_only_a_look_in_vain_is_a_cost(spool_dir: Path) -> None:
    """What takes in new files is not followed by a rest; a look at what is known, or at what stays half written, is."""
    worker = a_worker_with_nothing_due(spool_dir)
    scheduler = worker._scheduler
    for number in range(500):
        drop(spool_dir, f"job{number}", command="true")
    scheduler._not_before = 0.0
    look_to_the_end(worker)
    cheap = scheduler._cost

    scheduler.job_claimed()
    scheduler._not_before = scheduler._safety_at = 0.0
    look_to_the_end(worker)
    assert scheduler._cost > 2 * cheap
    scheduler.close()
    worker._index.close()


def a_listening_worker(spool_dir: Path) -> Worker:
    """A worker at rest that is told what lands."""
    worker = Worker(spool_dir)
    worker.check()

    def armed() -> bool:
        worker._watch._retry_at = 0.0
        return worker._watch.start()

    wait_until(armed, 60, "an inotify instance, of which a user has 128")
    worker._intake.refresh()
    look_to_the_end(worker)
    assert worker._watch.names_all
    return worker


def test_a_doubt_waits_for_a_colleagues_look_and_no_job_for_either(spool_dir: Path) -> None:
    """One of dozens looks at everything; the others take the next job beside the end of one, and look later."""
    worker = a_listening_worker(spool_dir)
    scheduler = worker._scheduler
    scheduler.job_claimed()
    scheduler._safety_at = 0.0
    assert not scheduler.is_up_to_date()
    colleague = Lock.acquire(str(spool_dir / "data" / "intake.lock"))
    assert colleague
    scheduler.take_in()
    assert scheduler.is_up_to_date()
    assert scheduler.may_have_missed
    colleague.release()
    scheduler._not_before = scheduler._safety_at = 0.0
    scheduler.take_in()
    assert not scheduler.may_have_missed


def test_what_is_named_is_taken_in_without_a_look_at_all_the_others(spool_dir: Path) -> None:
    """An urgent job starts at the next gap, however many wait; a busy worker makes sure of the whole only later."""
    worker = a_listening_worker(spool_dir)
    worker._intake.scan = lambda *_, **__: pytest.fail("looked at all")  # type: ignore[method-assign]
    worker._scheduler.job_claimed()
    drop(spool_dir, "urgent", command="true")
    (spool_dir / "pending" / "no-job.txt").write_text("{}")
    path = spool_dir / "pending" / "edited.json"
    path.write_text('{"command": "true"}')

    worker._scheduler.take_in()

    row = worker._index.get("urgent")
    assert row is not None
    assert worker._index.get("edited") is not None
    assert worker._scheduler.is_up_to_date()
    path.write_text('{"command": "true", "priority": 9}')
    assert worker._watch.read()
    assert not worker._scheduler.is_up_to_date()
    worker._scheduler.take_in()
    edited = worker._index.get("edited")
    assert edited is not None
    assert edited.priority == 9
    worker._scheduler.close()
    worker._index.close()
    worker._watch.stop()


def test_what_no_event_told_of_is_found_by_the_look_that_follows(spool_dir: Path) -> None:
    """Events are hints: a name that was lost is found within moments by an idle worker, and soon by a busy one."""
    worker = a_listening_worker(spool_dir)
    scheduler, watch = worker._scheduler, worker._watch
    for busy in (False, True):
        name = f"lost{busy}"
        scheduler._busy = busy
        drop(spool_dir, name, command="true")
        drop(spool_dir, f"told{busy}", command="true")
        watch.read()
        del watch.names[f"{name}.json"]
        scheduler.take_in()
        assert worker._index.get(f"told{busy}") is not None
        assert worker._index.get(name) is None
        assert scheduler.is_up_to_date()

        scheduler._check_at = scheduler._not_before = 0.0  # its time has come
        assert not scheduler.is_up_to_date()
        look_to_the_end(worker)

        assert worker._index.get(name) is not None
        assert scheduler._check_at is None
    drop(spool_dir, "silent", command="true")
    watch.read()
    watch.names.clear()
    scheduler.check_watch()
    scheduler._not_before = 0.0
    look_to_the_end(worker)
    assert worker._index.get("silent") is not None
    scheduler.close()
    worker._index.close()
    watch.stop()


def test_two_workers_take_a_burst_in_for_all(spool_dir: Path) -> None:
    """Each its half, and what the other has not got to; a third one leaves it alone, and looks when they are done."""
    one, two, third = (a_listening_worker(spool_dir) for _ in range(3))
    for number in range(4 * BURST):
        drop(spool_dir, f"job{number}", command="true")
    for worker in (one, two):
        worker._watch.read()
        assert worker._scheduler._join_burst()
        worker._scheduler._burst.add(worker._watch.names)
        worker._watch.names.clear()

    third._scheduler.take_in()

    assert not third._watch.names
    assert third._index.counts()["pending"] == 0
    assert 0 < third._scheduler.wait_limit(10) < 1
    first = next_of(one._scheduler._burst, BURST, 5), next_of(two._scheduler._burst, BURST, 5)
    assert not set(first[0]) & set(first[1])
    for burst, names in zip((one._scheduler._burst, two._scheduler._burst), first, strict=True):
        burst.add(names)
    two._scheduler._burst.leave()

    assert not one._scheduler.is_up_to_date()
    one._scheduler.take_in()

    assert one._index.counts()["pending"] == 4 * BURST
    assert not one._scheduler._burst.is_joined
    assert not third._scheduler.has_work() or third._scheduler.next_scan_in() < 1
    for worker in (one, two, third):
        worker._scheduler.close()
        worker._index.close()
        worker._watch.stop()


def next_of(burst: Burst, most: int, priority: int) -> list[str]:
    """The names that a worker takes in next when this is the priority of a job that names none."""
    burst.read_ahead(priority)
    return burst.take(most)


def test_the_urgent_of_a_burst_are_taken_in_first(spool_dir: Path) -> None:
    """However many landed before them; a worker that is alone looks for them among all, one of two in its half."""
    one, two = (a_listening_worker(spool_dir) for _ in range(2))
    bursts = [worker._scheduler._burst for worker in (one, two)]
    for number in range(4 * BURST):
        drop(spool_dir, f"job{number}", command="true", **({"priority": 7} if number % 4 == 3 else {}))
    urgent = {drop(spool_dir, f"urgent{number}", command="true", priority=10).name for number in range(8)}
    (spool_dir / "pending" / "later.json").write_text('{"command": "echo \\"priority\\": 99", "priority" :3}')
    os.mkfifo(spool_dir / "pending" / "pipe.json")
    one._watch.read()
    names = list(one._watch.names)
    assert one._scheduler._join_burst()
    bursts[0].add(names)

    alone = next_of(bursts[0], BURST, 5)
    more = next_of(bursts[0], BURST, 5)

    assert set(alone) == urgent
    assert set(more) == {f"job{number}.json" for number in range(3, 4 * BURST, 4)}
    assert next_of(bursts[0], 1, 7)[0] in {f"job{number}.json" for number in (0, 1, 2)}
    bursts[0].leave()

    assert one._scheduler._join_burst()
    assert two._scheduler._join_burst()
    halves = []
    for burst in bursts:
        burst.add(names)
        halves.append(next_of(burst, BURST, 5))
    assert halves[0]
    assert halves[1]
    assert sorted(halves[0] + halves[1]) == sorted(urgent)
    rest = [name for _ in names for name in next_of(bursts[0], BURST, 5)]
    assert rest.index("later.json") > rest.index("pipe.json")
    assert set(halves[0] + rest) == set(names)
    assert len(bursts[0]) == 0
    for worker in (one, two):
        worker._scheduler.close()
        worker._index.close()
        worker._watch.stop()


def test_an_urgent_file_among_many_that_nobody_has_read_is_taken_in_next(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood was taken in as it was read: an urgent file waited for all those before it, up to 0.8 s."""
    monkeypatch.setattr("queuectl.worker.burst.READ_AHEAD", 5)
    monkeypatch.setattr(scan_scheduler, "SLICE", 60.0)
    monkeypatch.setattr(scan_scheduler, "URGENT_PAUSE", 60.0)
    worker = a_listening_worker(spool_dir)
    scheduler = worker._scheduler
    for number in range(BURST):
        drop(spool_dir, f"job{number}", command="true")
    urgent = drop(spool_dir, "urgent", command="true", priority=9).name
    for number in range(BURST):
        drop(spool_dir, f"later{number}", command="true")
    parts: list[list[str]] = []
    monkeypatch.setattr(worker._intake, "take_named", parts.append)

    scheduler.take_in_named()

    assert [part for part in parts if part] == [[urgent]]
    scheduler.take_in_named(busy=True)
    assert [part for part in parts if part] == [
        [urgent]
    ]  # the running job may end now, and the urgent one starts
    scheduler.job_claimed()
    scheduler.take_in_named(busy=True)
    assert sum(map(len, parts)) == 2 * BURST + 1
    scheduler.close()
    worker._index.close()
    worker._watch.stop()


def test_a_flood_that_is_never_read_to_its_end_is_taken_in_all_the_same(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More files arrive than two workers can read: the end of each slice is for taking in."""
    monkeypatch.setattr("queuectl.worker.burst.READ_AHEAD", 5)
    monkeypatch.setattr(scan_scheduler, "SLICE", 0.02)
    monkeypatch.setattr(scan_scheduler, "NAMED", 3)
    worker = a_listening_worker(spool_dir)
    scheduler = worker._scheduler
    for number in range(2 * BURST):
        drop(spool_dir, f"job{number}", command="true")
    read = scheduler._burst.read_ahead

    def slowly(priority: int) -> None:
        read(priority)
        time.sleep(0.02)

    parts: list[list[str]] = []
    monkeypatch.setattr(scheduler._burst, "read_ahead", slowly)
    monkeypatch.setattr(worker._intake, "take_named", parts.append)

    scheduler.take_in_named()

    assert [len(part) for part in parts] == [3]
    assert not scheduler._burst.is_read
    scheduler.close()
    worker._index.close()
    worker._watch.stop()


def test_a_burst_gets_one_slice_between_two_starts(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job has three moments at which names are taken in; with a slice at each, workers start half as many."""
    worker = a_listening_worker(spool_dir)
    scheduler = worker._scheduler
    parts: list[int] = []
    take = worker._intake.take_named

    def taken(names: list[str]) -> None:
        take(names)
        parts.append(len(names))
        monkeypatch.setattr(scan_scheduler, "SLICE", 0.0)  # it is over

    def slices(*, busy: bool = False) -> int:
        monkeypatch.setattr(scan_scheduler, "SLICE", 60.0)
        before = len(parts)
        scheduler.take_in_named(busy=busy)
        return len(parts) - before

    worker._intake.take_named = taken  # type: ignore[method-assign]
    worker._intake.scan = lambda *_, **__: pytest.fail("looked at all")  # type: ignore[method-assign]
    monkeypatch.setattr(scan_scheduler, "NAMED", 1)
    for number in range(2 * BURST):
        drop(spool_dir, f"job{number}", command="true")
    colleague = Lock.acquire(scheduler._lock_path)
    assert slices() == 1
    assert scheduler._burst.is_joined
    assert colleague is not None
    colleague.release()

    again = slices(), slices(busy=True), slices()
    scheduler._check_at = scheduler._not_before = 0.0
    scheduler.take_in()
    scheduler.job_claimed()
    started = slices(), slices()
    scheduler.has_work()

    assert again == (0, 1, 0)
    assert started == (1, 0)
    assert slices() == 1
    assert worker._index.counts()["pending"] == 4
    monkeypatch.undo()
    scheduler.close()
    worker._index.close()
    worker._watch.stop()
