"""Jobs that wait for jobs, as workers run them: by real files, moved by workers and by hand."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import gate
import pytest
from gate import drop_blocked, release, started, worker_in_thread
from noted import NOTED, drop, order

from queuectl import Spool
from queuectl.errors import InvalidJob, MoveError, NeverStarts, StillNeeded
from queuectl.job import record
from queuectl.storage import dependencies
from queuectl.system import files
from queuectl.worker import maintenance

import support
from support import finished, load, wait_until, where_is

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def move(spool_dir: Path, job_id: str, place: str, to: str) -> None:
    (spool_dir / place / f"{job_id}.json").rename(spool_dir / to / f"{job_id}.json")


def test_files_of_a_chain_run_in_its_order_however_they_were_dropped(spool_dir: Path, home: Path) -> None:
    """Trap 6. A child whose parent has not come yet waits for it, and is not taken for one without a parent."""
    drop(spool_dir, "mail", after_any=["load"], priority=10)
    drop(spool_dir, "load", after=["extract", "fetch"], priority=9)
    drop(spool_dir, "fetch")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: finished(spool_dir, "fetch"))
        assert where_is(spool_dir, "load") == ["pending"]
        drop(spool_dir, "extract")
        wait_until(lambda: finished(spool_dir, "mail", "load", "extract"))
    assert order(home) == ["fetch", "extract", "load", "mail"]


@pytest.mark.parametrize(
    ("exit_code", "ran", "places"),
    [
        (0, ["ok", "tidy"], {"ok": "done", "tidy": "done", "alarm": "done"}),
        (1, ["tidy", "alarm"], {"ok": "pending", "tidy": "done", "alarm": "done"}),
    ],
)
def test_each_kind_of_condition_follows_the_end_of_its_parent(
    spool_dir: Path, home: Path, exit_code: int, ran: list[str], places: dict[str, str]
) -> None:
    """After success, after any end, after failure. What is not needed ends without a run, and says why."""
    drop(spool_dir, "parent", command=f"exit {exit_code}")
    drop(spool_dir, "ok", after=["parent"])
    drop(spool_dir, "tidy", after_any="parent")
    drop(spool_dir, "alarm", after_failure=["parent"])
    support.drain(spool_dir)
    assert sorted(order(home)) == sorted(ran)
    assert {job_id: where_is(spool_dir, job_id) for job_id in places} == {
        job_id: [place] for job_id, place in places.items()
    }
    alarm = load(spool_dir / "done" / "alarm.json")
    assert alarm.get("not_run") == (None if exit_code else "job parent succeeded")
    assert bool(alarm.get("history")) == bool(exit_code)


def test_a_dead_parent_that_is_mended_lets_its_children_go(spool_dir: Path, home: Path) -> None:
    """Trap 1. Nobody has to touch the children."""
    drop(spool_dir, "parent", command='[ -e "$HOME/mended" ]')
    drop(spool_dir, "child", after=["parent"])
    drop(spool_dir, "grandchild", after=["child"])
    support.drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in ("parent", "child")] == [["dead"], ["pending"]]
    (home / "mended").touch()
    move(spool_dir, "parent", "dead", "pending")
    support.drain(spool_dir)
    assert order(home) == ["child", "grandchild"]


def test_a_parent_put_back_before_the_child_began_is_waited_for_again(spool_dir: Path, home: Path) -> None:
    """Trap 2. The index still thinks that the parent is done."""
    drop(spool_dir, "parent")
    support.drain(spool_dir)
    drop(spool_dir, "child", after=["parent"])
    move(spool_dir, "parent", "done", "pending")
    drop(spool_dir, "first", priority=10)
    support.drain(spool_dir)
    assert order(home) == ["parent", "first", "parent", "child"]


def test_a_parent_that_is_gone_is_never_taken_for_a_finished_one(spool_dir: Path, home: Path) -> None:
    """Trap 5. Its record was deleted, and the index as well: nobody knows that it succeeded."""
    drop(spool_dir, "parent")
    support.drain(spool_dir)
    (spool_dir / "done" / "parent.json").unlink()
    drop(spool_dir, "child", after=["parent"])
    support.drain(spool_dir)
    (spool_dir / "data" / "queuectl.db").unlink()
    support.drain(spool_dir)
    assert order(home) == ["parent"]
    assert where_is(spool_dir, "child") == ["pending"]


def test_a_parent_given_up_by_hand_is_noticed_by_a_working_worker(spool_dir: Path, home: Path) -> None:
    """Trap 13. A file manager moves it from pending/ to dead/. No worker did it, and no worker looks there otherwise."""
    drop(spool_dir, "parent", hold=True)
    drop(spool_dir, "alarm", after_failure=["parent"])
    drop_blocked(spool_dir, "busy")
    with worker_in_thread(spool_dir, 2):
        wait_until(lambda: started(home) == {"busy": 1})
        move(spool_dir, "parent", "pending", "dead")
        wait_until(lambda: finished(spool_dir, "alarm"))
        release(home, lambda: finished(spool_dir, "busy"))
    assert order(home) == ["alarm"]


def test_if_blocked_sends_a_chain_to_dead(spool_dir: Path, home: Path) -> None:
    """Each says which parent is dead, and none is charged an attempt."""
    drop(spool_dir, "parent", command="exit 1")
    drop(spool_dir, "child", after=["parent"], if_blocked="dead")
    drop(spool_dir, "grandchild", after=["child"], if_blocked="dead")
    support.drain(spool_dir)
    found = {job_id: load(spool_dir / "dead" / f"{job_id}.json") for job_id in ("child", "grandchild")}
    assert [one["last_error"] for one in found.values()] == [
        "Parent job parent is dead",
        "Parent job child is dead",
    ]
    assert [one.get("attempts", 0) for one in found.values()] == [0, 0]
    assert order(home) == []


def test_a_join_waits_for_all_of_its_batch_and_is_no_part_of_it(spool_dir: Path, home: Path) -> None:
    """Traps 10 and 12. It came first, and its batch is empty when it comes."""
    drop(spool_dir, "join", after=["batch:x=20"], batch="x", priority=10)
    with worker_in_thread(spool_dir, 4):
        for number in range(20):
            drop(spool_dir, f"part{number}", batch="x")
        wait_until(lambda: finished(spool_dir, "join"))
    assert order(home)[-1] == "join"
    assert len(order(home)) == 21


def test_a_dead_member_keeps_the_join_waiting_until_it_is_mended(spool_dir: Path, home: Path) -> None:
    """Half of a batch is no batch. after_any would take it."""
    drop(spool_dir, "part", batch="x")
    drop(spool_dir, "broken", batch="x", command='[ -e "$HOME/mended" ]')
    drop(spool_dir, "join", after=["batch:x"])
    drop(spool_dir, "any", after_any=["batch:x"])
    drop(spool_dir, "none", after=["batch:y"])
    drop(spool_dir, "empty", after=["batch:y=0"])
    support.drain(spool_dir)
    assert sorted(order(home)) == ["any", "empty", "part"]
    (home / "mended").touch()
    move(spool_dir, "broken", "dead", "pending")
    support.drain(spool_dir)
    assert "join" in order(home)
    assert where_is(spool_dir, "none") == ["pending"]


def test_an_index_deleted_between_the_parents_end_and_the_childs_start_changes_nothing(
    spool_dir: Path, home: Path
) -> None:
    """Trap 14."""
    drop(spool_dir, "parent")
    drop(spool_dir, "child", after=["parent"], run_at="2031-01-01T00:00:00Z")
    support.drain(spool_dir)
    (spool_dir / "data" / "queuectl.db").unlink()
    support.drain(spool_dir, now=lambda: 1_925_000_000.0)
    assert order(home) == ["parent", "child"]


def test_a_command_finds_what_its_parents_have_left(spool_dir: Path, home: Path) -> None:
    """The output of one parent by a variable; those of many by a file, as no variable can hold ten thousand ids."""
    for number in range(3):
        drop(spool_dir, f"part{number}", batch="x", command=f"echo out{number}")
    drop(spool_dir, "one", after=["part1"], command='cat "$QUEUECTL_AFTER_OUT" > "$HOME/one"')
    drop(spool_dir, "all", after=["batch:x"], command='cp "$QUEUECTL_AFTER" "$HOME/all"')
    support.drain(spool_dir)
    assert (home / "one").read_text() == "out1\n"
    lines = [line.split("\t") for line in (home / "all").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[f"part{number}", "completed"] for number in range(3)]
    assert [load(Path(line[2]))["id"] for line in lines] == ["part0", "part1", "part2"]
    assert [Path(line[3]).read_text() for line in lines] == ["out0\n", "out1\n", "out2\n"]


def test_a_list_of_ten_thousand_parents_asks_no_index_and_parses_no_whole_record(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does nothing else while it writes the list: it took 1.2 s for ten thousand."""
    spool = Spool(spool_dir)
    spool.enqueue_many({"command": "true", "id": f"p{number}"} for number in range(3))
    for number in range(3):
        path = spool_dir / "pending" / f"p{number}.json"
        path.write_text(json.dumps({**load(path), "history": [{}] * 2, "history_left_out": number}))
        move(spool_dir, f"p{number}", "pending", "done")
        (spool_dir / "logs" / f"p{number}.{2 + number}.out").touch()
    spool.refresh()
    join = record.parse(b'{"command": "true", "id": "join", "after": ["p0", "p1", "p2"]}')
    monkeypatch.setattr(type(spool._index), "get", None)
    monkeypatch.setattr(record, "parse", None)

    dependencies.describe(spool._storage, join, str(spool_dir / "list"))

    lines = [line.split("\t") for line in (spool_dir / "list").read_text().splitlines()]
    assert [line[3] for line in lines] == [
        str(spool_dir / "logs" / name) for name in ("p0.2.out", "p1.3.out", "p2.4.out")
    ]
    assert {line[1] for line in lines} == {"completed"}


def test_a_parent_is_kept_while_a_child_waits(spool_dir: Path, home: Path) -> None:
    """Trap 4. Its record would be deleted at once, and the child would be blocked for ever."""
    drop(spool_dir, "parent", batch="x")
    support.drain(spool_dir)
    spool = Spool(spool_dir)
    drop(spool_dir, "child", after=["parent"], hold=True)
    drop(spool_dir, "join", after=["batch:x"], hold=True)
    spool.refresh()
    kept = spool.purge(keep=0)
    assert (kept.jobs, kept.kept) == (0, 1)
    with pytest.raises(MoveError, match="waits for it"):
        spool.forget("parent")
    assert where_is(spool_dir, "parent") == ["done"]
    assert set(spool.forget_many(["parent", "join", "child"])) == {"parent", "join", "child"}
    assert where_is(spool_dir, "parent") == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"after": ["typo"]}, "no job is called typo, so this could never start"),
        ({"id": "me", "after_any": ["me"]}, "after_any: it cannot wait for itself"),
        (
            {"after": ["there"], "after_failure": ["there"]},
            "after_failure: could never start: there is in after, too",
        ),
        ({"after": ["a b"]}, "after: 'a b' is no id and no batch:NAME"),
        ({"after": ["a", 1]}, "after: must be a list of ids, and has a number in it"),
        ({"after": ["batch:x=-1"]}, "after: the count of batch:x must be a whole number"),
    ],
)
def test_what_could_never_start_is_refused(spool_dir: Path, fields: dict[str, object], words: str) -> None:
    """The producer learns of it at once, and nothing is queued."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="there")
    job: dict[str, Any] = {"command": "true", **fields}
    for call in (lambda: spool.enqueue(job), lambda: spool.enqueue_many([job])):
        with pytest.raises((InvalidJob, NeverStarts), match=re.escape(words)):
            call()
    assert spool.counts()["pending"] == 1


def test_a_ring_in_a_list_is_refused_whole(spool_dir: Path) -> None:
    """Each waits for the next. The way is told, or nobody finds the mistake among a thousand jobs."""
    spool = Spool(spool_dir)
    jobs: list[dict[str, Any]] = [
        {"id": "extract", "command": "true", "after": ["load"]},
        {"id": "load", "command": "true", "after": ["extract"]},
        {"id": "other", "command": "true"},
    ]
    with pytest.raises(NeverStarts, match=r"waits for itself: (extract, load, extract|load, extract, load)"):
        spool.enqueue_many(jobs)
    assert spool.counts()["pending"] == 0


def test_a_ring_of_dropped_files_ends_in_dead_with_its_last_file(spool_dir: Path, home: Path) -> None:
    """Trap 17. The others are blocked, and wait for somebody to mend the one."""
    for job_id, parent in (("a", "b"), ("b", "c")):
        drop(spool_dir, job_id, after=[parent])
    support.drain(spool_dir)
    drop(spool_dir, "c", after=["a"])
    support.drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in "abc"] == [["pending"], ["pending"], ["dead"]]
    reason = (spool_dir / "dead" / "c.json.reason").read_text()
    assert "c waits for itself: c, a, b, c" in reason


def test_a_ring_through_a_batch_is_refused_when_its_last_job_comes(spool_dir: Path, home: Path) -> None:
    """The join waits for the batch, and the last job of the batch for the join. Only doctor told that none could start."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="part", batch="x")
    spool.enqueue("true", id="join", batch="x", after=["batch:x"])
    spool.enqueue("true", id="report", after=["join"])
    with pytest.raises(NeverStarts, match="late waits for itself: late, report, join, batch:x, late"):
        spool.enqueue("true", id="late", batch="x", after=["report"])
    drop(spool_dir, "dropped", batch="x", after=["join"])
    assert spool.counts() == {**dict.fromkeys(spool.counts(), 0), "pending": 3, "dead": 1}
    reason = (spool_dir / "dead" / "dropped.json.reason").read_text()
    assert "dropped waits for itself: dropped, join, batch:x, dropped" in reason

    move(spool_dir, "part", "pending", "done")
    spool.refresh()
    row = spool._index.get("join")
    assert row is not None
    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700)
    assert support.claim_job(spool._storage, row, "worker-0")
    spool.enqueue("true", id="late", batch="x", after=["report"])  # what runs waits for nothing


def test_a_list_may_name_its_jobs_in_any_order(spool_dir: Path, home: Path) -> None:
    """Trap 16. A job of a list may wait for one that comes later in it."""
    spool = Spool(spool_dir)
    jobs: list[dict[str, Any]] = [
        {"id": f"j{number}", "command": NOTED, "after": [f"j{number + 1}"]} for number in range(30)
    ]
    spool.enqueue_many([*jobs, {"id": "j30", "command": NOTED}])
    support.drain(spool_dir)
    assert order(home) == [f"j{number}" for number in range(30, -1, -1)]


def test_old_records_are_kept_while_a_child_waits(spool_dir: Path, home: Path) -> None:
    """Trap 4. Nothing is to be kept, and the child starts an hour after its parent: it finds the parent's output."""
    (spool_dir / "pending").mkdir(parents=True, mode=0o700)
    spool_dir.chmod(0o700)
    (spool_dir / "config.yaml").write_text("keep_done: 0\n")
    drop(spool_dir, "parent", command="echo hello")
    drop(spool_dir, "child", after=["parent"], command='cat "$QUEUECTL_AFTER_OUT" > "$HOME/found"', hold=True)
    support.drain(spool_dir)
    Spool(spool_dir).refresh()
    now = time.time() + 3600
    support.drain(spool_dir, now=lambda: now)
    assert where_is(spool_dir, "parent") == ["done"]
    Spool(spool_dir).release("child")
    support.drain(spool_dir, now=lambda: now)
    assert (home / "found").read_text() == "hello\n"
    support.drain(spool_dir, now=lambda: now + 3600)
    support.drain(spool_dir, now=lambda: now + 7200)
    wait_until(lambda: not where_is(spool_dir, "parent"), 5)


def test_a_parent_that_is_moved_after_the_claim_ends_no_worker(spool_dir: Path, home: Path) -> None:
    """The decision is made once, at the claim. Made again at the start, it would not be there any more."""
    drop(spool_dir, "parent", command="exit 1")
    drop(spool_dir, "child", after=["parent"], if_blocked="dead", hold=True)
    support.drain(spool_dir)
    spool = Spool(spool_dir)
    spool.release("child")
    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700, exist_ok=True)
    row = spool._ask(lambda: spool._index.get("child"))
    assert row is not None
    claim = support.claim_job(spool._storage, row, "worker-0")
    assert claim is not None
    assert claim.decides is not None

    move(spool_dir, "parent", "dead", "pending")
    maintenance.settle_decided(spool._storage, claim, claim.decides, None, lambda _: None)
    assert where_is(spool_dir, "child") == ["dead"]


def test_jobs_that_do_not_run_share_their_waits_for_the_disk(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job may have an alarm that is not needed, and ten thousand may give up with one parent."""
    drop(spool_dir, "parent", command="exit 1")
    drop(spool_dir, "good")
    spool = Spool(spool_dir)
    spool.enqueue_many(
        {"id": f"child{n}", "command": "true", "after": ["parent"], "if_blocked": "dead"} for n in range(40)
    )
    spool.enqueue_many({"id": f"alarm{n}", "command": "true", "after_failure": ["good"]} for n in range(40))
    waits: list[str] = []
    monkeypatch.setattr(files, "sync_file", lambda _: waits.append("file"))
    monkeypatch.setattr(files, "sync_folder", waits.append)
    support.drain(spool_dir)

    assert spool.counts() == {"pending": 0, "processing": 0, "completed": 41, "failed": 0, "dead": 41}
    assert len(waits) < 30
    assert spool.get("child7").last_error == "Parent job parent is dead"
    assert spool.get("child7").attempts == 0


def test_a_job_that_was_not_run_counts_in_no_statistics(spool_dir: Path, home: Path) -> None:
    """An alarm that was not needed is no job that ended well after 0 s; and once it has run it does count."""
    drop(spool_dir, "parent")
    drop(spool_dir, "alarm", after_failure=["parent"])
    support.drain(spool_dir)
    spool = Spool(spool_dir)
    assert spool.counts()["completed"] == 2
    assert spool.stats().all.ended == 1
    assert spool.get("alarm").not_run == "job parent succeeded"
    spool.retry("alarm", after_failure=None)
    support.drain(spool_dir)
    assert spool.get("alarm").not_run is None
    assert spool.stats().all.ended == 2


def test_a_running_child_that_keeps_its_parent_is_told_as_one(spool_dir: Path, home: Path) -> None:
    """It cannot be changed any more, so a hint to change it would not help."""
    drop(spool_dir, "parent")
    support.drain(spool_dir)
    drop_blocked(spool_dir, "child", after=["parent"])
    with worker_in_thread(spool_dir):
        wait_until(lambda: started(home) == {"child": 1})
        with (
            Spool(spool_dir) as spool,
            pytest.raises(StillNeeded, match="has waited for it, and runs") as told,
        ):
            spool.forget("parent")
        release(home, lambda: finished(spool_dir, "child"))
    assert told.value.hint == "queuectl wait child"
