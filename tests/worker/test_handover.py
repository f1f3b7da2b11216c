"""Jobs of a real spool on a cluster that is this machine: the script for nodes, started as an engine would do it."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from local_nodes import LocalNodes

from queuectl import Spool
from queuectl.config.settings import Settings
from queuectl.doctor import doctor
from queuectl.engine import packs
from queuectl.engine.tracker import Tracker
from queuectl.engine.verdict import Limits
from queuectl.index.index import Index
from queuectl.intake.reconcile import Intake
from queuectl.layout import Layout
from queuectl.storage.transitions import Storage
from queuectl.system import files
from queuectl.system.host import boot_id
from queuectl.worker.handover import Handover

from support import claim_job, drop, end_all, load, processes_of, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from queuectl.worker.share import Order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes run Linux")


class Desk:
    """A dispatcher without a loop."""

    def __init__(self, spool: Path, share: Path, engine: LocalNodes) -> None:
        self.layout = Layout(spool)
        index = Index(self.layout.index, self.layout.root, boot_id())
        self.storage = Storage(self.layout, index)
        self.intake = Intake(self.layout, index, self.storage, Settings)
        self.said: list[str] = []
        self.tracker = Tracker(str(share), packs.write_script(str(share)), engine, Limits(0.2, 30, 0.3), 0)
        self.orders: list[Order] = []
        self.handover = Handover(self.storage, Settings, self.orders.append, "slurm", self.said.append)
        os.makedirs(self.layout.claims("slurm"), exist_ok=True)

    def feed(self, *ids: str) -> None:
        """Claim these jobs and hand them over."""
        self.intake.refresh()
        rows = self.storage.index.rows_of(list(ids))
        claims = [claim for job_id in ids if (claim := claim_job(self.storage, rows[job_id], "slurm"))]
        assert len(claims) == len(ids)
        self.handover.hand(claims, 1, pack=100, short=60)
        self.obey()

    def obey(self) -> None:
        """Carry out what the handover has ordered."""
        while self.orders:
            self.handover.settle(self.orders.pop(0)(self.tracker, time.monotonic()))

    def look(self, now: float) -> None:
        """One look at everything."""
        self.handover.settle(self.tracker.tick(now))
        self.obey()

    def adopt(self) -> None:
        """Take over what an earlier one has left."""
        self.intake.refresh()
        self.handover.adopt()
        self.obey()

    def cancel(self, job_id: str) -> None:
        """As the user's order to cancel does it."""
        self.handover.cancel({job_id: 1})
        self.obey()

    def take_back(self) -> int:
        """As a pause does it; how many jobs were taken back."""
        found = self.tracker.take_back()
        self.handover.settle(found)
        self.obey()
        return len(found)

    def clear(self) -> None:
        """Delete what is over."""
        self.handover.clear()
        self.obey()

    def finish(self) -> None:
        """Look until nothing is out any more."""

        def is_over() -> bool:
            self.look(time.monotonic())
            return not self.handover.jobs

        wait_until(is_over, message=lambda: self.said)
        self.clear()

    def die(self) -> None:
        """Nothing of it gets to run any more."""
        self.storage.index.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalNodes]:
    made = LocalNodes()
    yield made
    made.end()
    end_all(processes_of(tmp_path))


@pytest.fixture
def desk(spool_dir: Path, share: Path, engine: LocalNodes) -> Iterator[Desk]:
    Spool(spool_dir).counts()
    made = Desk(spool_dir, share, engine)
    yield made
    made.die()


def record(spool_dir: Path, job_id: str) -> dict[str, Any]:
    [place] = where_is(spool_dir, job_id)
    return load(spool_dir / place / f"{job_id}.json")


def leftovers(share: Path) -> list[str]:
    return [path.name for path in share.iterdir() if path.is_dir()]


def test_jobs_come_back_as_if_they_had_run_here(desk: Desk, spool_dir: Path, share: Path) -> None:
    """Output, logs, history, retries, and a dropped file; and the spool and the share are in order after it."""
    spool = Spool(spool_dir)
    spool.enqueue(
        'echo "$WORD $QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT"; echo err >&2', id="good", env={"WORD": "grün"}
    )
    spool.enqueue("exit 3", id="bad", max_retries=1)
    spool.enqueue("exit 4", id="again", max_retries=2, backoff_base=60)
    drop(spool_dir, "dropped", command="echo from a file")
    desk.feed("good", "bad", "again", "dropped")
    desk.finish()

    good = record(spool_dir, "good")
    assert where_is(spool_dir, "good") == where_is(spool_dir, "dropped") == ["done"]
    assert (good["output"], good["exit_code"], good["worker"]) == ("grün good 1\nerr\n", 0, "slurm/n2")
    assert good["history"][0]["stdout_bytes"] == len("grün good 1\n".encode())
    assert (spool_dir / "logs" / "good.1.out").read_text() == "grün good 1\n"
    assert (spool_dir / "logs" / "good.1.err").stat().st_mode & 0o777 == 0o600
    assert (where_is(spool_dir, "bad"), record(spool_dir, "bad")["last_error"]) == (["dead"], "Exit code 3")
    again = record(spool_dir, "again")
    assert (where_is(spool_dir, "again"), again["state"], again["attempts"]) == (["pending"], "failed", 1)
    assert leftovers(share) == []
    assert [one for one in doctor.examine(Layout(spool_dir)) if not one.harmless] == []
    assert Spool(spool_dir).counts() == {
        "pending": 0,
        "processing": 0,
        "completed": 2,
        "failed": 1,
        "dead": 1,
    }


def test_what_has_not_begun_goes_back_as_it_was(
    desk: Desk, spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """Taken back, it keeps its attempts; cancelled, it is dead; what the engine refuses says why."""
    spool = Spool(spool_dir)
    for job_id in ("first", "second", "third"):
        spool.enqueue(f"touch {spool_dir.parent}/{job_id}", id=job_id, timeout=600)
    before = (spool_dir / "pending" / "first.json").read_bytes()
    engine.is_still = True
    desk.feed("first", "second")
    desk.cancel("second")
    assert desk.take_back() == 1
    engine.refuses = True
    desk.feed("third")
    desk.finish()

    assert (spool_dir / "pending" / "first.json").read_bytes() == before
    assert [record(spool_dir, job_id)["last_error"] for job_id in ("second", "third")] == [
        "Cancelled",
        "Invalid partition name specified",
    ]
    assert where_is(spool_dir, "second") == where_is(spool_dir, "third") == ["dead"]
    assert not [path for path in spool_dir.parent.iterdir() if path.name in ("first", "second", "third")]
    assert leftovers(share) == []


def test_a_running_job_is_cancelled(desk: Desk, spool_dir: Path) -> None:
    Spool(spool_dir).enqueue(f"echo on; touch {spool_dir.parent}/on; sleep 60", id="long", max_retries=3)
    desk.feed("long")
    wait_until((spool_dir.parent / "on").exists)
    desk.cancel("long")
    desk.finish()
    found = record(spool_dir, "long")
    assert (where_is(spool_dir, "long"), found["last_error"], found["output"]) == (
        ["dead"],
        "Cancelled",
        "on\n",
    )


def test_a_dead_dispatcher_is_followed_by_one_that_runs_nothing_twice(
    desk: Desk, spool_dir: Path, share: Path, engine: LocalNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died with jobs that run, that wait there, that were claimed only, and that were settled and are still claimed."""
    spool = Spool(spool_dir)
    for job_id in ("a", "b"):
        spool.enqueue(f"echo {job_id} >> {spool_dir.parent}/ledger; sleep 0.3", id=job_id, timeout=10)
    spool.enqueue(f"echo c >> {spool_dir.parent}/ledger", id="c")
    drop(spool_dir, "d", command=f"echo d >> {spool_dir.parent}/ledger", timeout=600)
    desk.feed("a", "b", "d")
    claim_job(desk.storage, desk.storage.index.rows_of(["c"])["c"], "slurm")
    wait_until((spool_dir.parent / "ledger").exists)
    kept = {job_id: (spool_dir / "processing" / "slurm" / f"{job_id}.json").read_bytes() for job_id in "abd"}
    desk.finish()
    desk.die()
    for job_id, data in kept.items():  # as a crash leaves them just after each outcome's rename
        (spool_dir / "processing" / "slurm" / f"{job_id}.json").write_bytes(data)

    after = Desk(spool_dir, share, engine)
    after.adopt()
    after.finish()

    assert sorted((spool_dir.parent / "ledger").read_text().split()) == ["a", "b", "d"]
    assert where_is(spool_dir, "c") == ["pending"]
    assert [where_is(spool_dir, job_id) for job_id in "abd"] == [["done"]] * 3
    assert [len(record(spool_dir, job_id)["history"]) for job_id in "abd"] == [1] * 3
    assert leftovers(share) == []
    after.die()


def test_a_dispatcher_that_dies_at_once_leaves_runs_that_the_next_one_collects(
    desk: Desk, spool_dir: Path, share: Path, engine: LocalNodes
) -> None:
    """Its packs go on without it. A dropped file does not say when it was made, and the index, which knows, is gone."""
    spool = Spool(spool_dir)
    for job_id in ("a", "b"):
        spool.enqueue(f"echo {job_id} >> {spool_dir.parent}/ledger", id=job_id, timeout=10)
    drop(spool_dir, "c", command=f"echo c >> {spool_dir.parent}/ledger", timeout=10)
    desk.feed("a", "b", "c")
    desk.die()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()
    after = Desk(spool_dir, share, engine)
    after.adopt()
    after.finish()
    assert sorted((spool_dir.parent / "ledger").read_text().split()) == ["a", "b", "c"]
    assert [where_is(spool_dir, job_id) for job_id in "abc"] == [["done"]] * 3
    assert leftovers(share) == []
    after.die()


def test_a_killed_runner_costs_its_job_no_attempt(
    desk: Desk, spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """It is recorded as the death of a worker is, and waits again: after the fence, which is simulated here."""
    Spool(spool_dir).enqueue(f"echo so far; touch {spool_dir.parent}/on; sleep 60", id="long", max_retries=1)
    desk.feed("long")
    wait_until((spool_dir.parent / "on").exists)
    for runner in engine.runners:
        runner.kill()
        runner.wait()
    now = time.monotonic()
    for later in range(0, 90, 4):
        desk.look(now + later)
    found = record(spool_dir, "long")
    assert where_is(spool_dir, "long") == ["pending"]
    assert found.get("attempts", 0) == 0
    assert found["history"][0]["outcome"] == "interrupted"
    assert "n2 has not been heard of for" in found["last_error"]
    assert (found["history"][0]["worker"], found["output"]) == ("slurm/n2", "so far\n")
    assert (spool_dir / "logs" / "long.1.out").read_text() == "so far\n"
    desk.clear()
    assert leftovers(share) == []


def test_a_job_that_needs_what_no_cluster_has_is_buried(desk: Desk, spool_dir: Path) -> None:
    """It has not run, and the reason names what is wrong."""
    drop(spool_dir, "odd", command="true", needs={"licence": 1})
    desk.feed("odd")
    assert where_is(spool_dir, "odd") == ["dead"]
    assert "licence is not one of cpu, gpu, memory" in json.dumps(record(spool_dir, "odd"))
    assert desk.handover.jobs == 0


def test_what_a_killed_forced_stop_has_ended_waits_again(
    desk: Desk, spool_dir: Path, share: Path, engine: LocalNodes
) -> None:
    """Nobody has cancelled the job: only its dispatcher was told to stop, and died before it saw the end."""
    Spool(spool_dir).enqueue(f"touch {spool_dir.parent}/on; sleep 60", id="long", max_retries=1)
    desk.feed("long")
    wait_until((spool_dir.parent / "on").exists)
    desk.handover.end_all()
    while desk.orders:
        desk.orders.pop(0)(desk.tracker, time.monotonic())
    desk.die()

    after = Desk(spool_dir, share, engine)
    after.adopt()
    after.finish()
    found = record(spool_dir, "long")
    assert (where_is(spool_dir, "long"), found["last_error"]) == (["pending"], "Stopped with its worker")
    after.die()


def test_a_running_job_that_is_moved_back_by_hand_is_not_cancelled(desk: Desk, spool_dir: Path) -> None:
    """Its run is ended, as nobody waits for it. The job itself waits again, and is no dead one."""
    Spool(spool_dir).enqueue(f"touch {spool_dir.parent}/on; sleep 60", id="long", max_retries=1)
    desk.feed("long")
    wait_until((spool_dir.parent / "on").exists)
    (spool_dir / "processing" / "slurm" / "long.json").rename(spool_dir / "pending" / "long.json")
    desk.handover.drop_taken()
    desk.obey()
    desk.feed("long")
    desk.finish()
    assert where_is(spool_dir, "long") == ["pending"]
    assert record(spool_dir, "long")["history"][0]["outcome"] == "stopped"


def test_a_job_that_its_node_could_not_begin_is_handed_over_anew(
    desk: Desk, spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """Its first pack is not deleted yet, and has its key. It says that nothing ran."""
    Spool(spool_dir).enqueue("echo ran", id="job")
    engine.is_still = True
    desk.feed("job")
    engine.is_still = False
    os.symlink("nowhere", os.path.join(engine.sent[0].folder, "0.out"))
    engine.send(engine.sent[0])

    def is_back() -> bool:
        desk.look(time.monotonic())
        return not desk.handover.jobs

    wait_until(is_back, message=lambda: desk.said)
    assert where_is(spool_dir, "job") == ["pending"]
    desk.feed("job")
    desk.finish()
    assert (where_is(spool_dir, "job"), record(spool_dir, "job")["output"]) == (["done"], "ran\n")
    assert leftovers(share) == []


def test_what_is_left_of_an_old_pack_keeps_no_job_from_being_handed_over(
    desk: Desk, spool_dir: Path, share: Path
) -> None:
    """It cannot be deleted while somebody reads it on NFS. A folder in it cannot be deleted, either."""
    for name in (".gone.old", "half"):
        (share / name / "folder").mkdir(parents=True)
    Spool(spool_dir).enqueue("true", id="job")
    desk.adopt()
    desk.feed("job")
    desk.finish()
    assert where_is(spool_dir, "job") == ["done"]
    assert sorted(leftovers(share)) == [".gone.old", "half"]


def test_a_pack_that_cannot_be_deleted_yet_takes_no_place(
    desk: Desk, spool_dir: Path, engine: LocalNodes, share: Path
) -> None:
    """It would count among those that may be out, for ever. What is left of it is deleted later."""
    Spool(spool_dir).enqueue("true", id="job")
    Spool(spool_dir).enqueue("true", id="next")
    desk.feed("job")
    folder = os.path.join(engine.sent[0].folder, "folder")
    os.mkdir(folder)
    desk.finish()
    assert desk.tracker.packs == 0
    [left] = leftovers(share)
    os.rmdir(share / left / "folder")
    desk.feed("next")
    desk.finish()
    assert leftovers(share) == []


def test_a_pack_is_deleted_only_when_its_outcomes_are_on_the_disk(
    desk: Desk, spool_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would take the outcome, and the pack was all that knew of the run: the job would run again."""
    Spool(spool_dir).enqueue("true", id="a")
    desk.feed("a")

    def is_over() -> bool:
        desk.look(time.monotonic())
        return not desk.handover.jobs

    wait_until(is_over, message=lambda: desk.said)
    packs_at_sync: list[list[str]] = []

    def refuse(_: str) -> None:
        packs_at_sync.append(leftovers(share))
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_filesystem", refuse)
        with pytest.raises(OSError, match="Input"):
            desk.clear()
        desk.obey()
    assert packs_at_sync == [leftovers(share)]
    assert len(leftovers(share)) == 1

    desk.clear()
    assert leftovers(share) == []
