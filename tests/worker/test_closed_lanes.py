"""Lanes that are closed: what opens them again, and that neither the worker nor other jobs suffer meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import gate
import pytest
from gate import STARTED, drop_blocked, release, started, worker_in_thread

from queuectl import Spool, Worker
from queuectl.config.queues import QueueChoice
from queuectl.control.permits import Permit, Permits
from queuectl.layout import Layout
from queuectl.worker import limits
from queuectl.worker.limits import Limits

import support
from support import finished, wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.index.row import Row

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def queue(spool_dir: Path, name: str, text: str) -> None:
    """Write the file of a queue, as an editor does."""
    Layout(spool_dir).create()
    support.drop_bytes(spool_dir, f"{name}.yaml", text.encode(), folder="queues")


def resources(spool_dir: Path, text: str) -> None:
    Layout(spool_dir).create()
    support.drop_bytes(spool_dir, "config.yaml", f"resources: {text}\n".encode(), folder=".")


class Clock:
    """A monotonic clock that stands still."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def limits_of(spool: Spool, clock: Clock, said: list[str] | None = None) -> Limits:
    """The limits that a worker keeps, without the worker."""
    found = Limits(
        spool._storage, spool.settings, QueueChoice(), (said if said is not None else []).append, clock
    )
    found.look()
    return found


def rows(spool: Spool, *ids: str) -> list[Row]:
    found = spool._ask(lambda: spool._storage.index.rows_of([*ids]))
    return [found[job_id] for job_id in ids]


# -- waiting costs nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["a place", "a unit", "one of two", "a lower limit"])
def test_a_worker_that_waits_for_a_permit_does_not_wake_itself(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A try in vain opened and closed the files that the worker watches. It tried 800 times a second, for ever."""
    permits, fields = Permits(Layout(spool_dir).permits), dict[str, Any](queue="mail")
    queue(spool_dir, "mail", "limit: 2\n" if missing in ("a place", "a lower limit") else "")
    resources(spool_dir, "gpu=1 memory=1")
    if missing == "a place":
        held = [permits.take("mail", 2, {}, {}) for _ in range(2)]
    elif missing == "a lower limit":
        held = [permits.take("mail", 5, {}, {}) for _ in range(4)]
        for permit in held[:2]:
            assert isinstance(permit, Permit)
            permit.release()
    else:
        held = [permits.take("mail", None, {"memory": 1}, {"memory": 1})]
        fields = {"needs": {"memory": 1} if missing == "a unit" else {"gpu": 1, "memory": 1}}
    tries: Counter[str] = Counter()
    take = Limits._take_spare

    def counted(mine: Limits, row: Row, *more: Any) -> bool:
        tries[row.id] += 1
        return take(mine, row, *more)

    monkeypatch.setattr(Limits, "_take_spare", counted)
    support.drop(spool_dir, "job", command="true", **fields)
    with worker_in_thread(spool_dir) as one, worker_in_thread(spool_dir) as two:
        wait_until(lambda: one._permit_watch._is_on and two._permit_watch._is_on)
        tries.clear()
        time.sleep(2)
        assert tries["job"] <= 16  # each tries again once a second, before and after it begins to watch
        for permit in held:
            assert isinstance(permit, Permit)
            permit.release()
        wait_until(lambda: finished(spool_dir, "job"))


# -- what a worker holds itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", ["queue", "resource"])
def test_the_permit_of_an_ended_job_goes_to_the_first_in_order(spool_dir: Path, shared: str) -> None:
    """Kept for the next job of its own lane, it closed the other lane: an urgent job waited behind all of the first lane."""
    queue(spool_dir, "mail", "limit: 1\n")
    resources(spool_dir, "gpu=1")
    first, second = (
        ({"queue": "mail"}, {"queue": "mail", "needs": {"gpu": 1}})
        if shared == "queue"
        else ({"queue": "a", "needs": {"gpu": 1}}, {"queue": "b", "needs": {"gpu": 1}})
    )
    spool = Spool(spool_dir)
    for job_id, fields in (("one", first), ("urgent", second), ("two", first)):
        spool.enqueue("true", id=job_id, **fields)
    one, urgent, two = rows(spool, "one", "urgent", "two")
    mine = limits_of(spool, Clock())
    assert mine.admit([one], 1) == [one]
    assert mine.can_start(one)
    permit = mine.start(one)
    assert permit is not None
    mine.end(one.lane, permit, reuse=True)
    assert mine.admit([urgent, two], 1) == [urgent]
    assert mine.start(urgent) is not None


def test_each_job_that_starts_at_once_has_a_permit_and_those_behind_it_none(spool_dir: Path) -> None:
    """Claimed for a free slot without a permit, a job is put back, and no idle worker finds it meanwhile."""
    queue(spool_dir, "mail", "limit: 2\n")
    spool = Spool(spool_dir)
    ids = [f"job{number}" for number in range(6)]
    for job_id in ids:
        spool.enqueue("true", id=job_id, queue="mail")
    found, mine = rows(spool, *ids), limits_of(spool, Clock())
    assert mine.admit(found, 8) == found[:2]
    mine.give_back_unused([])
    assert mine.admit(found, 1) == found


def test_a_lane_opens_when_the_worker_gives_back_what_closed_it(spool_dir: Path) -> None:
    """A draining worker left, with the lane closed by a permit of its own, and jobs of the lane waiting."""
    resources(spool_dir, "gpu=1")
    spool = Spool(spool_dir)
    for job_id in ("a", "b"):
        spool.enqueue("true", id=job_id, queue=job_id, needs={"gpu": 1})
    a, b = rows(spool, "a", "b")
    mine = limits_of(spool, Clock())
    assert mine.admit([a, b], 2) == [a]
    assert not mine.is_open(b.lane)
    mine.give_back_unused([])
    assert mine.is_open(b.lane)


def test_a_closed_lane_is_tried_again_when_its_time_is_over(spool_dir: Path) -> None:
    """A busy worker waits for nothing, so nothing else opened the lane: its jobs waited for the end of all others."""
    queue(spool_dir, "mail", "limit: 1\n")
    spool, clock = Spool(spool_dir), Clock()
    spool.enqueue("true", id="job", queue="mail")
    other = Permits(Layout(spool_dir).permits).take("mail", 1, {}, {})
    assert isinstance(other, Permit)
    mine, found = limits_of(spool, clock), rows(spool, "job")
    assert mine.admit(found, 1) == []
    other.release()
    assert mine.admit(found, 1) == []
    clock.now += limits.LOOK_AGAIN
    assert mine.admit(found, 1) == found


def test_after_five_minutes_what_a_large_job_needs_is_kept_for_it(spool_dir: Path) -> None:
    """One of two units is free, and jobs that need one come without end. Until then they pass the large job."""
    resources(spool_dir, "gpu=2")
    spool, clock = Spool(spool_dir), Clock()
    spool.enqueue("true", id="large", needs={"gpu": 2})
    spool.enqueue("true", id="small", needs={"gpu": 1})
    spool.enqueue("true", id="plain")
    other = Permits(Layout(spool_dir).permits).take("q", None, {"gpu": 1}, {"gpu": 2})
    assert isinstance(other, Permit)
    mine = limits_of(spool, clock)
    assert mine.admit(rows(spool, "large"), 1) == []
    clock.now += limits.PASSED_OVER - 1
    assert [row.id for row in mine.ready(5)] == ["large", "small", "plain"]
    clock.now += 1
    assert [row.id for row in mine.ready(5)] == ["large", "plain"]
    other.release()
    assert [row.id for row in mine.admit(mine.ready(5), 1)] == ["large", "plain"]
    assert [row.id for row in mine.ready(5)] == ["large", "small", "plain"]


def test_a_job_of_a_queue_with_a_rate_is_claimed_alone(spool_dir: Path) -> None:
    """Its start is noted at the claim. Behind others it would begin later, and the next span would have one too many."""
    queue(spool_dir, "mail", "rate: 5/1s\n")
    spool = Spool(spool_dir)
    for job_id in ("mail", "next"):
        spool.enqueue("true", id=job_id, queue="mail")
    spool.enqueue("true", id="plain")
    mail, follows, plain = rows(spool, "mail", "next", "plain")
    mine = limits_of(spool, Clock())
    assert mine.admit([plain, mail], 9) == [plain]
    assert mine.admit([mail, plain], 9) == [mail]
    assert mine.admit([follows, mail], 9) == [follows]


# -- starts that did not happen ----------------------------------------------------------------------------------------


def test_a_start_that_is_given_back_opens_its_queue(spool_dir: Path) -> None:
    """1/1h: the first job was not started after all. The second must not wait for an hour."""
    queue(spool_dir, "mail", "rate: 1/1h\n")
    spool = Spool(spool_dir)
    for job_id in ("a", "b"):
        spool.enqueue("true", id=job_id, queue="mail")
    a, b = rows(spool, "a", "b")
    mine = limits_of(spool, Clock())
    assert mine.admit([a], 1) == [a]
    assert mine.admit([b], 1) == []
    assert not mine.is_open(b.lane)
    mine.give_back_unused([])
    assert mine.admit([b], 1) == [b]


def test_a_start_that_another_worker_gives_back_is_seen(spool_dir: Path) -> None:
    """Nothing reports it. A worker that waits for its own moment waits for an hour."""
    queue(spool_dir, "mail", "rate: 1/1h\n")
    spool, clock = Spool(spool_dir), Clock()
    for job_id in ("a", "b"):
        spool.enqueue("true", id=job_id, queue="mail")
    a, b = rows(spool, "a", "b")
    one, two = limits_of(spool, clock), limits_of(spool, clock)
    assert one.admit([a], 1) == [a]
    assert two.admit([b], 1) == []
    one.give_back_unused([])
    clock.now += limits.RATE_AGAIN
    assert two.admit([b], 1) == [b]


@pytest.mark.parametrize("reason", ["expired", "refused"])
def test_a_job_that_was_not_started_costs_no_start(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """It expired after its claim, or its output files could not be made. The next one would wait for an hour."""
    from queuectl.job.record import Job
    from queuectl.worker.job_run import JobRun

    queue(spool_dir, "mail", "rate: 1/1h\n")
    support.drop(spool_dir, "first", command=STARTED, queue="mail", priority=9)
    support.drop(spool_dir, "second", command=STARTED, queue="mail")
    if reason == "expired":
        monkeypatch.setattr(Job, "expired", lambda job, _: job.id == "first")
    else:
        from queuectl.errors import SpoolError

        tries = []
        start = JobRun._start_command

        def refused(run: JobRun) -> Any:
            tries.append(run.job_id)
            if len(tries) == 1:
                raise SpoolError("no room for its output")
            return start(run)

        monkeypatch.setattr(JobRun, "_start_command", refused)
    with worker_in_thread(spool_dir):
        wait_until(lambda: len(started(home)) == 1)
    assert started(home) == {"second" if reason == "expired" else "first": 1}


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [("limit: 2\n", "mail.0"), ("rate: 5/1s\n", "mail.starts")])
def test_files_of_a_queue_that_cannot_be_used_stop_that_queue_alone(
    spool_dir: Path, home: Path, text: str, name: str
) -> None:
    """The worker claimed in the transaction that records an outcome. The fault of a lock file ended the worker there."""
    queue(spool_dir, "mail", text)
    (spool_dir / "data" / "queues" / name).mkdir(parents=True)
    said: list[str] = []
    drop_blocked(spool_dir, "first", priority=10)
    with worker_in_thread(spool_dir, say=said.append) as worker:
        wait_until(lambda: started(home) == {"first": 1} and worker._watch._inotify is not None)
        Spool(spool_dir).enqueue("true", id="mail", queue="mail", priority=9)
        Spool(spool_dir).enqueue("true", id="plain")
        release(home, lambda: finished(spool_dir, "first", "plain"))
        assert where_is(spool_dir, "mail") == ["pending"]
        wait_until(lambda: sum(name in line for line in said) == 1, 5, lambda: said)
        os.rmdir(spool_dir / "data" / "queues" / name)
        wait_until(lambda: finished(spool_dir, "mail"))
    assert sum(name in line for line in said) == 1
    assert not any("cannot record" in line for line in said)


def test_a_job_that_needs_more_files_than_a_process_may_open_stops_no_other(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got the lock of each unit, and then no file for its output. It was tried again each second, and nothing else."""
    from queuectl.errors import SpoolError
    from queuectl.system import open_files

    def none_left(number: int) -> None:
        if number > 500:
            raise SpoolError("this process may open 200 files")

    monkeypatch.setattr(open_files, "require_free", none_left)
    resources(spool_dir, "memory=1000")
    spool, said = Spool(spool_dir), list[str]()
    spool.enqueue("true", id="large", needs={"memory": 500})
    spool.enqueue("true", id="small", needs={"memory": 1})
    large, small = rows(spool, "large", "small")
    assert limits_of(spool, Clock(), said).admit([large, small], 2) == [small]
    assert said == [
        "cannot take what a job of the lane default memory=500 needs: this process may open 200 files"
    ]


# -- others need not wait ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["paused", "full"])
def test_no_job_waits_for_a_suspect_whose_queue_is_closed(spool_dir: Path, home: Path, closed: str) -> None:
    """It is the suspect's turn, and it cannot start. The worker started nothing else until the queue had room."""
    queue(spool_dir, "mail", "limit: 1\n")
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 2) as worker:
        wait_until(lambda: len(started(home)) == 1)
        support.drop(spool_dir, "suspect", command=STARTED, crashes=2, queue="mail")
        wait_until(lambda: worker._slots.suspects)
        permit = None
        if closed == "paused":
            (spool_dir / "queues" / "mail.paused").touch()
            wait_until(lambda: not worker._limits.is_open("mail"))
        else:

            def taken() -> bool:
                nonlocal permit
                permit = Permits(Layout(spool_dir).permits).take("mail", 1, {}, {})
                return isinstance(permit, Permit)

            wait_until(taken)
        release(home, lambda: finished(spool_dir, "long"))
        support.drop(spool_dir, "plain", command=STARTED)
        wait_until(lambda: finished(spool_dir, "plain"))
        assert where_is(spool_dir, "suspect") == ["pending"]
        if isinstance(permit, Permit):
            permit.release()
        else:
            (spool_dir / "queues" / "mail.paused").unlink()
        wait_until(lambda: finished(spool_dir, "suspect"))


def test_a_draining_worker_does_not_wait_for_what_can_never_start(spool_dir: Path) -> None:
    """With wait_retries it would wait for ever for a job that needs more than there is: somebody must change that."""
    resources(spool_dir, "gpu=1")
    support.drop(spool_dir, "large", command="true", needs={"gpu": 2})
    support.drop(spool_dir, "small", command="true", needs={"gpu": 1})
    Worker(spool_dir, drain=True, wait_retries=True).run()
    assert [where_is(spool_dir, job_id) for job_id in ("small", "large")] == [["done"], ["pending"]]


def test_a_job_grows_older_while_its_lane_is_closed(spool_dir: Path) -> None:
    """Ten minutes behind a full queue count as ten minutes of waiting: the job goes before a newer one of higher priority."""
    queue(spool_dir, "mail", "limit: 1\n")
    permits = Permits(Layout(spool_dir).permits)
    taken = permits.take("mail", 1, {}, {})
    assert isinstance(taken, Permit)
    spool = Spool(spool_dir)
    spool._storage.now = lambda: time.time() - 600
    support.drop(spool_dir, "old", command="true", queue="mail", priority=1)
    spool.refresh()
    spool._storage.now = time.time
    support.drop(spool_dir, "new", command="true", priority=5)
    spool.refresh()
    mine = limits_of(spool, Clock())
    assert [row.id for row in mine.admit(mine.ready(2), 2)] == ["new"]
    taken.release()
    mine.reopen()
    assert [row.id for row in mine.ready(2)] == ["old", "new"]
