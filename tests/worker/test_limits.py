"""Limits of queues, rates and resources, as workers keep them: with real jobs, killed workers and deleted indexes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import gate
import psutil
import pytest
from gate import drop_blocked, release, started, worker_in_thread, worker_process

from queuectl import Spool
from queuectl.control.permits import Permit, Permits
from queuectl.job import times
from queuectl.layout import Layout
from queuectl.worker import limits, prefetch
from queuectl.worker.permit_watch import PermitWatch

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

LOGGED = 'echo "+" >> "$HOME/log"; sleep 0.03; echo "-" >> "$HOME/log"'
"""Notes its start and its end. The order of the lines shows how many ran at once."""


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def queue(spool_dir: Path, name: str, text: str) -> None:
    """Write the file of a queue, as an editor does."""
    layout = Layout(spool_dir)
    layout.create()
    support.drop_bytes(spool_dir, f"{name}.yaml", text.encode(), folder="queues")


def settings(spool_dir: Path, text: str) -> None:
    Layout(spool_dir).create()
    support.drop_bytes(spool_dir, "config.yaml", text.encode(), folder=".")


def most_at_once(home: Path) -> int:
    """How many jobs have run at once, by their own notes."""
    now = most = 0
    for line in (home / "log").read_text().split():
        now += 1 if line == "+" else -1
        most = max(most, now)
    return most


def drop_many(spool_dir: Path, number: int, prefix: str = "job", **fields: Any) -> list[str]:
    ids = [f"{prefix}{place}" for place in range(number)]
    for job_id in ids:
        support.drop(spool_dir, job_id, **{"command": LOGGED, "timeout": 60} | fields)
    return ids


# -- limits ------------------------------------------------------------------------------------------------------------


def test_one_worker_with_many_slots_keeps_a_limit(spool_dir: Path, home: Path) -> None:
    """Eight slots are free, and two jobs of the queue may run."""
    queue(spool_dir, "mail", "limit: 2\n")
    ids = drop_many(spool_dir, 12, queue="mail")
    with worker_in_thread(spool_dir, 8):
        wait_until(lambda: finished(spool_dir, *ids), 30)
    assert most_at_once(home) == 2


def test_a_limit_holds_while_the_index_is_deleted_again_and_again(spool_dir: Path, home: Path) -> None:
    """Trap 1. A limit that is counted in the index is exceeded when the index is made anew."""
    queue(spool_dir, "mail", "limit: 2\n")
    ids = drop_many(spool_dir, 60, queue="mail")
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.05):
            for name in ("queuectl.db", "queuectl.db-wal", "queuectl.db-shm"):
                (spool_dir / "data" / name).unlink(missing_ok=True)

    thread = threading.Thread(target=delete)
    with worker_in_thread(spool_dir, 3), worker_in_thread(spool_dir, 3):
        thread.start()
        try:
            wait_until(lambda: finished(spool_dir, *ids), 60)
        finally:
            over.set()
            thread.join()
    assert most_at_once(home) <= 2


def test_the_next_job_waits_for_the_processes_of_a_killed_worker(spool_dir: Path, home: Path) -> None:
    """Trap 2. The worker of a job that ignores TERM is killed. The queue has room when the job has ended, and not before."""
    settings(spool_dir, "kill_grace: 1\n")
    queue(spool_dir, "mail", "limit: 1\n")
    stubborn = 'trap "" TERM; echo "+" >> "$HOME/log"; echo $$ > "$HOME/pid"; while :; do sleep 0.05; done'
    support.drop(spool_dir, "first", command=stubborn, queue="mail", timeout=0, on_crash="dead")
    was_alive = []

    def is_over() -> bool:
        with suppress(psutil.NoSuchProcess):
            was_alive.append(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        return where_is(spool_dir, "second") == ["done"]

    with worker_process(spool_dir) as process:
        wait_until(lambda: (home / "pid").exists() and (home / "pid").read_text().strip())
        pid = int((home / "pid").read_text())
        process.kill()
        process.wait(10)
        assert Permits(Layout(spool_dir).permits).take("mail", 1, {}, {}) == "", (
            "the job has not inherited it"
        )
        support.drop(spool_dir, "second", command='echo "second" >> "$HOME/log"', queue="mail")
        with worker_in_thread(spool_dir):
            wait_until(is_over, 30)
    assert was_alive[0]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert (home / "log").read_text().split() == ["+", "second"]
    assert times.parse_moment(load(spool_dir / "dead" / "first.json")["finished_at"]) <= times.parse_moment(
        load(spool_dir / "done" / "second.json")["started_at"]
    )


def test_a_changed_limit_takes_effect_on_living_workers(
    spool_dir: Path, home: Path, cli: Callable[..., Any]
) -> None:
    """Trap 3. Lowered from 4 to 2 while four run: none starts until one is left. Raised again: more start at once."""
    queue(spool_dir, "mail", "limit: 4\n")
    drop_blocked(spool_dir, *(f"first{number}" for number in range(4)), queue="mail")
    with worker_in_thread(spool_dir, 8) as worker:
        wait_until(lambda: len(started(home)) == 4, 30)
        queue(spool_dir, "mail", "limit: 2\n")
        wait_until(lambda: worker._limits._queues.get("mail").limit == 2)
        drop_blocked(spool_dir, *(f"next{number}" for number in range(4)), queue="mail")
        for number in range(2):
            cli("cancel", f"first{number}", expect=0)
            wait_until(partial(finished, spool_dir, f"first{number}"))
        wait_until(lambda: worker._limits.is_full)
        assert len(started(home)) == 4
        cli("cancel", "first2", expect=0)
        wait_until(lambda: len(started(home)) == 5)
        queue(spool_dir, "mail", "limit: 3\n")
        wait_until(lambda: len(started(home)) == 6)
        ids = [f"{kind}{number}" for kind in ("first", "next") for number in range(4)]
        release(home, lambda: finished(spool_dir, *ids))


def test_a_daemon_that_a_job_leaves_behind_frees_its_place(spool_dir: Path, home: Path) -> None:
    """Trap 5. The daemon has the lock's file open for as long as it lives. The job has ended all the same."""
    queue(spool_dir, "mail", "limit: 1\n")
    support.drop(spool_dir, "daemon", command="sleep 60 & echo x", queue="mail")
    ids = drop_many(spool_dir, 3, queue="mail")
    with worker_in_thread(spool_dir), worker_in_thread(spool_dir):
        wait_until(lambda: finished(spool_dir, "daemon", *ids), 30)
    assert most_at_once(home) == 1
    support.end_all(support.processes_of(spool_dir))


def test_a_worker_that_waits_for_a_place_starts_when_another_gives_one_back(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports it. Without that the worker would find it at its next look, which here is too late."""
    monkeypatch.setattr(limits, "LOOK_AGAIN", 600.0)
    queue(spool_dir, "mail", "limit: 1\n")
    drop_blocked(spool_dir, "first", queue="mail")
    with worker_process(spool_dir) as process:
        wait_until(lambda: started(home) == {"first": 1})
        process.terminate()  # it leaves after the job, and takes no other one
        drop_blocked(spool_dir, "second", queue="mail")
        with worker_in_thread(spool_dir) as worker:
            wait_until(lambda: worker._limits.is_full)
            release(home, lambda: finished(spool_dir, "first", "second"))


def test_jobs_behind_a_full_queue_run(spool_dir: Path, home: Path) -> None:
    """Trap 12. Those of the queue wait; what needs nothing of it does not wait with them."""
    queue(spool_dir, "mail", "limit: 1\n")
    drop_blocked(spool_dir, "first", queue="mail", priority=9)
    waiting = drop_many(spool_dir, 16, queue="mail", priority=8)
    others = drop_many(spool_dir, 8, "other")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: finished(spool_dir, *others), 30)
        assert {place for job_id in waiting for place in where_is(spool_dir, job_id)} == {"pending"}
        release(home, lambda: finished(spool_dir, "first", *waiting))
    assert most_at_once(home) <= 4


def test_a_job_between_two_attempts_holds_no_place(spool_dir: Path, home: Path) -> None:
    """Trap 11. It waits for two hours. The queue would stand still for two hours."""
    queue(spool_dir, "mail", "limit: 1\n")
    support.drop(spool_dir, "fails", command="exit 1", queue="mail", backoff_base=7200, max_backoff=7200)
    ids = drop_many(spool_dir, 2, queue="mail")
    support.drain(spool_dir)
    assert load(spool_dir / "pending" / "fails.json")["state"] == "failed"
    assert finished(spool_dir, *ids)


def test_a_job_that_is_moved_to_another_queue_counts_there(spool_dir: Path, home: Path) -> None:
    """Trap 13. Also when a person edits the file in the instant in which a worker claims it."""
    queue(spool_dir, "a", "limit: 1\n")
    drop_blocked(spool_dir, "first", queue="a")
    drop_blocked(spool_dir, "second", queue="a")
    with worker_in_thread(spool_dir, 4) as worker:
        wait_until(lambda: started(home) == {"first": 1} and worker._limits.is_full)
        Spool(spool_dir).set("second", queue="b")
        wait_until(lambda: started(home) == {"first": 1, "second": 1})
        release(home, lambda: finished(spool_dir, "first", "second"))


def test_short_jobs_of_a_queue_are_claimed_several_at_a_time(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes over the place of the one before. One by one, a queue with a limit would run at half the speed."""
    # On a busy machine `true` takes longer than a job that is claimed with others.
    monkeypatch.setattr(prefetch, "LONG_JOB", 0.5)
    monkeypatch.setattr(prefetch, "BATCH_SECONDS", 5.0)
    queue(spool_dir, "mail", "limit: 3\n")
    ids = drop_many(spool_dir, 120, queue="mail", command="true")
    sizes = []
    admit = limits.Limits.admit

    def counted(mine: limits.Limits, rows: Any, room: int) -> Any:
        taken = admit(mine, rows, room)
        sizes.append((len(taken), sum(map(len, mine._spare.values()))))
        return taken

    monkeypatch.setattr(limits.Limits, "admit", counted)
    with worker_in_thread(spool_dir):
        wait_until(lambda: finished(spool_dir, *ids), 30)
    assert max(claimed for claimed, _ in sizes) > 1
    assert {places for _, places in sizes} <= {0, 1}


def test_jobs_that_could_not_start_are_not_claimed(spool_dir: Path, home: Path) -> None:
    """Eight slots are free, and two places. The other six jobs stay in pending/, where an idle worker finds them."""
    queue(spool_dir, "mail", "limit: 2\n")
    ids = [f"job{number}" for number in range(40)]
    drop_blocked(spool_dir, *ids, queue="mail")
    with worker_in_thread(spool_dir, 8) as worker:
        wait_until(lambda: len(started(home)) == 2 and worker._limits.is_full)
        claimed = [job_id for job_id in ids if where_is(spool_dir, job_id) != ["pending"]]
        assert len(claimed) == 2
        assert not worker._prefetch


def test_the_place_of_a_job_with_a_daemon_is_not_handed_on(spool_dir: Path, home: Path) -> None:
    """The daemon has the lock of that place. When the worker is killed later, the place must be free all the same."""
    queue(spool_dir, "mail", "limit: 1\n")
    support.drop(spool_dir, "daemon", command="sleep 60 & echo x", queue="mail", priority=9)
    drop_blocked(spool_dir, "second", queue="mail")
    with worker_process(spool_dir) as process:
        wait_until(lambda: started(home) == {"second": 1}, 30)
        process.kill()
        process.wait(10)
        with worker_in_thread(spool_dir):
            wait_until(lambda: started(home) == {"second": 2}, 30)
            release(home, lambda: finished(spool_dir, "second"))
    support.end_all(support.processes_of(spool_dir))


def test_only_a_job_without_a_daemon_hands_its_place_on(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, as the worker sees it: whether the next job is claimed at once depends on what else it has to do."""
    ends = []
    end = limits.Limits.end

    def noted(mine: limits.Limits, lane: Any, permit: Any, *, reuse: bool) -> None:
        ends.append(reuse)
        end(mine, lane, permit, reuse=reuse)

    monkeypatch.setattr(limits.Limits, "end", noted)
    queue(spool_dir, "mail", "limit: 1\n")
    unmarked = (
        "sleep 0.2; env -u QUEUECTL_RUN setsid -f sleep 60 > /dev/null 2>&1"  # it is no leftover of its job
    )
    for number, command in enumerate(("sleep 60 & echo x", unmarked, "sleep 0.2", "true")):
        support.drop(spool_dir, f"job{number}", command=command, queue="mail", priority=9 - number)
    support.drain(spool_dir)
    assert ends == [False, False, True, True]
    support.end_all(support.processes_of(spool_dir))


def test_a_worker_that_waits_for_a_place_is_told_although_a_daemon_has_the_file_open(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports the last close of a file. While the daemon lives, there is none."""
    monkeypatch.setattr(limits, "LOOK_AGAIN", 600.0)
    queue(spool_dir, "mail", "limit: 1\n")
    support.drop(spool_dir, "first", command=f"{gate.BLOCKED}; sleep 60 & echo x", queue="mail", timeout=0)
    with worker_process(spool_dir) as process:
        wait_until(lambda: started(home) == {"first": 1})
        process.terminate()  # it leaves after the job, and takes no other one
        drop_blocked(spool_dir, "second", queue="mail")
        with worker_in_thread(spool_dir) as worker:
            wait_until(lambda: worker._limits.is_full and worker._permit_watch._is_on)
            wait_until(lambda: not worker._watch.is_lost)
            release(home, lambda: finished(spool_dir, "first"))
            release(home, lambda: finished(spool_dir, "second"))
    support.end_all(support.processes_of(spool_dir))


def test_a_place_that_becomes_free_just_before_the_watch_is_seen(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event has come before anybody listened."""
    monkeypatch.setattr(limits, "LOOK_AGAIN", 600.0)
    queue(spool_dir, "mail", "limit: 1\n")
    other = Permits(Layout(spool_dir).permits).take("mail", 1, {}, {})
    assert isinstance(other, Permit)
    begin = PermitWatch.begin

    def late(mine: PermitWatch) -> bool:
        if mine._limits.is_full:
            other.release()
        return begin(mine)

    monkeypatch.setattr(PermitWatch, "begin", late)
    with worker_in_thread(spool_dir) as worker:
        # At its start it looks at everything again, as it may have missed something.
        wait_until(lambda: worker._watch._inotify is not None and not worker._watch.is_lost)
        support.drop(spool_dir, "job", command="true", queue="mail")
        wait_until(lambda: finished(spool_dir, "job"))


def test_a_queue_written_into_a_waiting_file_counts_at_the_claim(spool_dir: Path, home: Path) -> None:
    """The index does not know of the edit yet. The job must not run beside another one of its queue."""
    queue(spool_dir, "mail", "limit: 1\n")
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job")
    storage = spool._storage
    (spool_dir / "processing" / "worker-0").mkdir(parents=True)
    row = spool._ask(lambda: storage.index.get("job"))
    assert row is not None
    support.drop(spool_dir, "job", command="true", queue="mail")
    assert support.claim_job(storage, row, "worker-0") is None
    assert where_is(spool_dir, "job") == ["pending"]


# -- rates -------------------------------------------------------------------------------------------------------------


def test_no_span_has_more_starts_than_its_rate(spool_dir: Path) -> None:
    """Trap 8. Two workers, and an index that is deleted in between: the starts are in a file of their own."""
    queue(spool_dir, "mail", "rate: 3/1s\n")
    ids = [f"job{number}" for number in range(7)]
    for job_id in ids:
        support.drop(spool_dir, job_id, command="true", queue="mail")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: any(where_is(spool_dir, job_id) == ["done"] for job_id in ids))
    (spool_dir / "data" / "queuectl.db").unlink()
    with worker_in_thread(spool_dir), worker_in_thread(spool_dir, 4):
        wait_until(lambda: finished(spool_dir, *ids), 30)
    starts = sorted(
        times.parse_moment(load(spool_dir / "done" / f"{job_id}.json")["started_at"]) for job_id in ids
    )
    # A start is noted just before the job starts: the moments in the files may be a little nearer to each other.
    assert all(later - earlier > 0.9 for earlier, later in zip(starts, starts[3:], strict=False))


def test_each_attempt_counts_as_a_start(spool_dir: Path) -> None:
    """A job that fails again and again would use the service more often than its rate allows."""
    queue(spool_dir, "mail", "rate: 2/1h\n")
    support.drop(spool_dir, "fails", command="exit 1", queue="mail", max_retries=5, max_backoff=0)
    support.drain(spool_dir)
    assert len(load(spool_dir / "pending" / "fails.json")["history"]) == 2


def test_a_job_that_was_put_back_costs_no_start(spool_dir: Path, home: Path) -> None:
    """It was claimed, and the spool was paused before it started. Its start would be missed for an hour."""
    queue(spool_dir, "mail", "rate: 1/1h\n")
    support.drop(spool_dir, "job", command="true", queue="mail")
    with worker_in_thread(spool_dir, 1) as worker:
        wait_until(lambda: finished(spool_dir, "job"))
        row = worker._index.get("job")
        assert row is not None
        worker._limits._too_fast.clear()
        (spool_dir / "data" / "queues" / "mail.starts").unlink()
        assert worker._limits.admit([row], 1) == [row]
        worker._limits.give_back_unused([])
        assert worker._limits.admit([row], 1) == [row]


# -- resources ---------------------------------------------------------------------------------------------------------


def test_two_jobs_at_once_have_two_gpus(spool_dir: Path, home: Path) -> None:
    """Trap 15. Each learns which one is its own, and never the same."""
    settings(spool_dir, "resources: gpu=2 memory=8\n")
    told = f'echo "$QUEUECTL_NEEDS_GPU $QUEUECTL_NEEDS_MEMORY $QUEUECTL_QUEUE" > "$HOME/$QUEUECTL_JOB_ID.told"; {gate.BLOCKED}'
    for job_id in ("a", "b", "c"):
        support.drop(spool_dir, job_id, command=told, needs={"gpu": 1, "memory": 3}, queue="train", timeout=0)
    with worker_in_thread(spool_dir, 4) as worker:
        wait_until(lambda: len(started(home)) == 2 and worker._limits.is_full)
        found = [(home / f"{job_id}.told").read_text().split() for job_id in started(home)]
        release(home, lambda: finished(spool_dir, "a", "b", "c"))
    assert sorted(gpu for gpu, _, _ in found) == ["0", "1"]
    assert sorted(",".join(memory for _, memory, _ in found).split(",")) == list("012345")
    assert {name for _, _, name in found} == {"train"}


def test_a_large_job_is_passed_over_for_a_while_and_then_what_it_needs_is_kept(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 6. A job for two GPUs behind an endless stream of jobs for one would never start."""
    monkeypatch.setattr(limits, "PASSED_OVER", 0.3)
    settings(spool_dir, "resources: gpu=2\n")
    small = {"command": "sleep 0.1", "needs": {"gpu": 1}}
    for number in range(4):
        support.drop(spool_dir, f"small{number}", **small)
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: where_is(spool_dir, "small0") == ["done"])
        support.drop(spool_dir, "large", command="true", needs={"gpu": 2})
        made = iter(range(4, 1000))

        def is_over() -> bool:
            if len(os.listdir(spool_dir / "pending")) < 4:
                support.drop(spool_dir, f"small{next(made)}", **small)
            return finished(spool_dir, "large")

        wait_until(is_over, 20)


def test_a_job_that_needs_more_than_there_is_waits_and_holds_nothing_up(spool_dir: Path) -> None:
    """More may come. It must neither die nor keep what the others need."""
    settings(spool_dir, "resources: gpu=1\n")
    support.drop(spool_dir, "large", command="true", needs={"gpu": 2}, priority=10)
    support.drop(spool_dir, "odd", command="true", needs={"gpuu": 1}, priority=10)
    support.drop(spool_dir, "small", command="true", needs={"gpu": 1})
    support.drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in ("small", "large", "odd")] == [
        ["done"],
        ["pending"],
        ["pending"],
    ]

    settings(spool_dir, "resources: gpu=2 gpuu=1\n")
    support.drain(spool_dir)
    assert finished(spool_dir, "large", "odd")


def test_a_job_that_needs_more_than_there_is_keeps_nothing_from_others(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for longer than any other job is passed over. What it needs is of use to others."""
    monkeypatch.setattr(limits, "PASSED_OVER", 0.0)
    settings(spool_dir, "resources: gpu=1\n")
    support.drop(spool_dir, "large", command="true", needs={"gpu": 2}, priority=10)
    ids = drop_many(spool_dir, 5, needs={"gpu": 1}, command="true")
    support.drain(spool_dir)
    assert finished(spool_dir, *ids)


def test_a_large_job_of_a_full_queue_keeps_nothing_from_others(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has waited for long enough, but its own queue is full: both units would be idle until that has room."""
    monkeypatch.setattr(limits, "PASSED_OVER", 0.0)
    monkeypatch.setattr(limits, "LOOK_AGAIN", 0.1)
    settings(spool_dir, "resources: gpu=2\n")
    queue(spool_dir, "train", "limit: 1\n")
    drop_blocked(spool_dir, "unit", needs={"gpu": 1}, priority=10)
    with worker_in_thread(spool_dir, 4) as worker:
        wait_until(lambda: started(home) == {"unit": 1})
        support.drop(spool_dir, "large", command="true", queue="train", needs={"gpu": 2}, priority=9)
        wait_until(lambda: bool(worker._limits._passed))
        drop_blocked(spool_dir, "other", queue="train", priority=10)
        wait_until(lambda: started(home) == {"unit": 1, "other": 1})
        wait_until(lambda: not worker._limits._passed)
        ids = drop_many(spool_dir, 3, needs={"gpu": 1}, command="true")
        wait_until(lambda: finished(spool_dir, *ids))
        assert where_is(spool_dir, "large") == ["pending"]
        release(home, lambda: finished(spool_dir, "unit", "other", "large"))


# -- queues of a worker, pauses, turns ---------------------------------------------------------------------------------


def test_a_worker_serves_its_queues_and_leaves_when_they_are_empty(spool_dir: Path) -> None:
    """Trap 16. Jobs elsewhere are none of its business."""
    from queuectl import Worker

    for job_id, fields in (("mail", {"queue": "mail"}), ("plain", {}), ("gpu", {"queue": "gpu"})):
        support.drop(spool_dir, job_id, command="true", **fields)
    Worker(spool_dir, drain=True, queues=["mail"]).run()
    assert [where_is(spool_dir, job_id) for job_id in ("mail", "plain", "gpu")] == [
        ["done"],
        ["pending"],
        ["pending"],
    ]
    Worker(spool_dir, drain=True, wait_retries=True, not_queues=["gpu"]).run()
    assert [where_is(spool_dir, job_id) for job_id in ("mail", "plain", "gpu")] == [
        ["done"],
        ["done"],
        ["pending"],
    ]


def test_nothing_of_a_paused_queue_begins_until_the_file_is_deleted(spool_dir: Path) -> None:
    """Traps 9 and 10. A worker that starts while the queue is paused must not take a job before its first look."""
    queue(spool_dir, "mail", "limit: 5\n")
    (spool_dir / "queues" / "mail.paused").write_text("the server is down\n")
    support.drop(spool_dir, "mail", command="true", queue="mail")
    support.drop(spool_dir, "plain", command="true")
    support.drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in ("mail", "plain")] == [["pending"], ["done"]]
    with worker_in_thread(spool_dir):
        (spool_dir / "queues" / "mail.paused").unlink()
        wait_until(lambda: finished(spool_dir, "mail"))


def test_queues_take_turns_if_told_to(spool_dir: Path, home: Path) -> None:
    """Trap 14. A customer with a thousand jobs keeps no other one waiting."""
    settings(spool_dir, "between_queues: turns\n")
    for name in [*(f"a{number}" for number in range(6)), "b0", "c0", "c1"]:
        command = 'printf "$QUEUECTL_JOB_ID " >> "$HOME/order"'
        support.drop(spool_dir, name, command=command, queue=name[0])
    support.drain(spool_dir)
    order = (home / "order").read_text().split()
    assert sorted(order[:3]) == ["a0", "b0", "c0"]
    assert order[3:5] in (["a1", "c1"], ["c1", "a1"])
    assert order[5:] == ["a2", "a3", "a4", "a5"]


def test_a_stopped_worker_gives_back_all_places(spool_dir: Path, home: Path) -> None:
    """A worker in a program's thread leaves while its process goes on. What it held must be free."""
    queue(spool_dir, "mail", "limit: 1\n")
    drop_blocked(spool_dir, "first", queue="mail")
    with worker_in_thread(spool_dir):
        wait_until(lambda: started(home) == {"first": 1})
    assert where_is(spool_dir, "first") == ["pending"]
    with worker_in_thread(spool_dir):
        wait_until(lambda: started(home) == {"first": 2})
        release(home, lambda: finished(spool_dir, "first"))


def test_a_stopped_process_of_a_worker_keeps_its_places(spool_dir: Path, home: Path) -> None:
    """A worker that is stopped by Ctrl+Z still runs its job: no other one may take the place."""
    queue(spool_dir, "mail", "limit: 1\n")
    drop_blocked(spool_dir, "first", queue="mail")
    with worker_process(spool_dir) as process:
        wait_until(lambda: started(home) == {"first": 1})
        process.send_signal(signal.SIGSTOP)
        drop_blocked(spool_dir, "second", queue="mail")
        with worker_in_thread(spool_dir) as worker:
            wait_until(lambda: worker._limits.is_full)
            assert started(home) == {"first": 1}
            process.send_signal(signal.SIGCONT)
            release(home, lambda: finished(spool_dir, "first", "second"))
