"""Power cuts on real disks: what was acknowledged, or synced, is there when the machine is back."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import faults
import pytest
import sweeps
from stories import STORIES, judge, set_up

from queuectl import Spool
from queuectl.system import files

import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)

SIZES = {"ext4": 64, "xfs": 300}
STEPS = dict.fromkeys(
    SIZES,
    ("write", "ftruncate", "fsync", "syncfs", "rename", "renameat2", "linkat", "unlink", "mkdir", "rmdir"),
)
SOME = {
    "ext4": ("fsync", "syncfs", "rename", "renameat2", "linkat", "unlink"),
    "xfs": ("fsync", "syncfs", "renameat2", "linkat"),
}
CUTS = 300 if sweeps.FULL else 40


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[faults.Disk]:
    kind = request.param
    if not shutil.which(f"mkfs.{kind}"):
        faults.must_not_skip(f"mkfs.{kind} is not installed")
    with faults.disk(tmp_path, kind, SIZES[kind]) as made:
        yield made


def _every(name: str, call: str) -> int:
    """Every n-th call only: most renames of this move are of files that need not survive, or only ask for rights."""
    is_long = name == "buried, and told by rules" and call in ("rename", "unlink", "fsync")
    return 20 if is_long else 1


@pytest.mark.parametrize("name", STORIES)
def test_a_power_cut_at_any_step_loses_nothing(
    name: str, disk: faults.Disk, server: faults.Server, tmp_path: Path
) -> None:
    """Whichever call of a move the power goes at, each job is whole, in one state, and runs at most once more."""
    story, kind = STORIES[name], disk.at.name
    points: Counter[str] = Counter()
    for call in ("none", *(STEPS if sweeps.FULL else SOME)[kind]):
        if call != "none" and call not in story.calls.split():
            continue
        for number in sweeps.points(_every(name, call)):
            spool, runs = disk.at / f"{call}{number}", tmp_path / f"{call}{number}.runs"
            server.boot("boot-0")
            request = set_up(story, server, spool, runs)
            known = bool(spool.exists() and faults.places(spool))
            files.sync_filesystem(str(disk.at))
            # Without a call to die at, the power goes when the move is over.
            inject = f"{'fsync' if call == 'none' else call}:signal=KILL:when={number if call != 'none' else 60000}"
            answer = server.faulted(spool, story.move, inject, threads=story.threads, **request)
            disk.cut()
            support.end_all(support.processes_of(spool))
            disk.restart()
            server.boot("boot-1")
            acked = "value" in answer
            if list((spool / "data" / "workers").glob("*.held.*")):
                # Outcomes that were not synced may be empty; the first command puts back what they were made of.
                server.do(spool, "look")
            try:
                judge(story, server, spool, runs, acked=acked, known=known)
            except AssertionError as error:
                raise AssertionError(f"cut before {call} number {number}: {error}") from error
            shutil.rmtree(spool, ignore_errors=True)
            if acked:
                break
            points[call] += 1
    print(f"points: {points.total()} {dict(points)}")


@pytest.mark.parametrize("inline", [True, False], ids=["bare", "processes"])
def test_random_power_cuts_under_load_lose_nothing(
    inline: bool, disk: faults.Disk, server: faults.Server, tmp_path: Path
) -> None:
    """Cut at random under a producer and two workers: nothing acknowledged is lost, nothing synced is run again."""
    print(f"QUEUECTL_SEED={sweeps.SEED}")
    dice = random.Random(sweeps.SEED)
    runs, acks, synced = (tmp_path / name for name in ("runs", "acks", "synced"))
    spool = disk.at / "spool"
    told: Counter[str] = Counter()
    for cut in range(CUTS // 2):
        server.boot(f"boot-{cut}")
        outside = {"runs": str(runs), "acks": str(acks)}
        pids = [server.fork(spool, "produce", name=f"j{cut}", pause=dice.choice((0, 0.002, 0.01)), **outside)]
        pids += [server.fork(spool, "serve", inline=inline, synced=str(synced)) for _ in range(2)]
        for pid in pids:
            server.go(pid)
        time.sleep(dice.uniform(0.1, 0.9))
        if dice.random() < 0.3:
            os.kill(pids[0], 19)  # the workers come to rest, and sync
            time.sleep(dice.uniform(0.0, 0.4))
        server.kill(*pids)
        disk.cut()
        support.end_all(support.processes_of(spool))
        disk.restart()
        server.boot(f"boot-{cut + 1}")
        told += faults.runs(acks)
        _judge_cut(server, spool, runs, acks, synced)
        if cut % 10 == 9:
            server.do(spool, "clear")
            acks.unlink(missing_ok=True)
            files.sync_filesystem(str(disk.at))
    total = runs.read_text(encoding="ascii").count("\n")
    print(
        f"{CUTS // 2} cuts, {told.total()} acknowledged, {total} runs, {len(faults.runs(synced))} outcomes synced, ",
        end="",
    )
    print(f"{sum(number > 1 for number in faults.runs(runs).values())} jobs run twice")
    assert total > CUTS


def _judge_cut(server: faults.Server, spool: Path, runs: Path, acks: Path, synced: Path) -> None:
    promised = set(acks.read_text(encoding="ascii").split()) if acks.exists() else set()
    durable = set(synced.read_text(encoding="ascii").split()) if synced.exists() else set()
    rows = server.do(spool, "look")
    listed = Counter(job_id for job_id, _ in rows)
    assert not [job_id for job_id, times in listed.items() if times > 1]
    assert promised <= set(listed), f"lost: {sorted(promised - set(listed))[:5]}"
    on_disk = faults.places(spool)
    settled = {job_id for job_id, folders in on_disk.items() if {"done", "dead"} & set(folders)}
    assert not (durable & set(on_disk)) - settled, "what was synced is not settled any more"
    before = faults.runs(runs)
    server.do(spool, "work", how={"inline": True})
    after = faults.runs(runs)
    again = after - before
    assert not set(again) & settled, f"run again: {set(again) & settled}"
    assert max(again.values(), default=0) <= 1
    found = faults.places(spool)
    assert all(len(folders) == 1 for folders in found.values()), [f for f in found.items() if len(f[1]) > 1]
    assert promised <= set(found)
    assert {folder for folders in found.values() for folder in folders} <= {"done", "dead"}
    once = {job_id for job_id in found if job_id.rpartition("-")[2].isdigit() and job_id.count("-") == 1}
    twice = [
        job_id
        for job_id in once
        if int(job_id.rpartition("-")[2]) % 28 in {0, 4, 8, 12, 16, 20} and after[job_id] > 1
    ]
    assert not twice, f"on_crash: dead, and run twice: {twice}"


@pytest.mark.parametrize("place", ["done", "dead", "pending"])
def test_what_a_recycled_file_held_before_is_no_outcome(place: str, spool_dir: Path) -> None:
    """A power cut can leave a job's own earlier record under the outcome's name: then it is still to be run, once."""
    spool = Spool(spool_dir)
    job = spool.enqueue("echo hi >> ran", id="a", cwd=str(spool_dir.parent))
    earlier = job.to_bytes()
    job.history.append({"run": 1, "outcome": "failed"})
    held = spool_dir / "data" / "workers" / "worker-0.held.0badb007.1"
    held.mkdir()
    (held / "a~0.json").write_bytes(job.to_bytes())
    (spool_dir / "pending" / "a.json").unlink()
    (spool_dir / place / "a.json").write_bytes(earlier)
    (spool_dir / "data" / "queuectl.db").unlink(missing_ok=True)
    support.drain(spool_dir)
    assert support.where_is(spool_dir, "a") == ["done"]
    assert (spool_dir.parent / "ran").read_text(encoding="ascii") == "hi\n"
    assert len(spool.get("a").history) == 2
    assert not list((spool_dir / "dead").iterdir())


def test_what_was_settled_is_synced_within_a_second_of_a_long_job(spool_dir: Path) -> None:
    """A job that runs for hours does not leave the outcomes before it unsynced for as long."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="short", priority=9)
    spool.enqueue(f"while [ -e {spool_dir}/wait ]; do sleep 0.05; done", id="long", timeout=60)
    (spool_dir / "wait").touch()
    workers = spool_dir / "data" / "workers"
    worker = threading.Thread(target=support.drain, args=(spool_dir,))
    worker.start()
    try:
        support.wait_until(lambda: support.where_is(spool_dir, "short") == ["done"])
        support.wait_until(lambda: support.where_is(spool_dir, "long") == ["processing/worker-0"])
        support.wait_until(
            lambda: list(workers.glob("worker-0.spare.*")) and not list(workers.glob("*.held.*")), 5
        )
        assert support.where_is(spool_dir, "long") == ["processing/worker-0"]
    finally:
        (spool_dir / "wait").unlink()
        worker.join()


@pytest.mark.parametrize("place", ["done", "dead", "pending"])
def test_an_outcome_without_its_bytes_beside_the_claim_is_cleared(
    place: str, spool_dir: Path, server: faults.Server, tmp_path: Path
) -> None:
    """A power cut between the outcome's new name and the claim's end leaves bytes of nothing: the job is run again, once."""
    runs = tmp_path / "runs"
    server.boot("boot-0")
    server.do(spool_dir, "enqueue", command=f"echo a >> {runs}", fields={"id": "a"})
    server.do(spool_dir, "hold")
    (spool_dir / place / "a.json").write_bytes(bytes(832))
    server.boot("boot-1")
    server.do(spool_dir, "work")
    assert faults.places(spool_dir) == {"a": ["done"]}
    assert [path.name for path in (spool_dir / "done").iterdir()] == ["a.json"]
    assert faults.runs(runs)["a"] == 1


def test_a_disk_boots_with_what_it_has_although_a_container_holds_the_old_mount(disk: faults.Disk) -> None:
    """Each container copies the mounts. While one lived, these tests went on with a disk without power, at random."""
    (disk.at / "kept").write_text("x", encoding="ascii")
    files.sync_filesystem(str(disk.at))
    with subprocess.Popen(["unshare", "--mount", "sleep", "60"]) as container:
        try:
            support.wait_until(
                lambda: os.readlink(f"/proc/{container.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
            )
            for name in ("first", "second"):
                (disk.at / name).write_text("x", encoding="ascii")
                disk.cut()
                disk.restart()
                assert [path.name for path in disk.at.iterdir() if path.name != "lost+found"] == ["kept"]
        finally:
            container.kill()
