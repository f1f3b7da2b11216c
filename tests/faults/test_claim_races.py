"""Many workers, one spool: every job runs exactly as often as it should, and nobody waits for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api import listing
from queuectl.errors import DuplicateId, MoveError
from queuectl.storage.claim import claim_files, read_claim
from queuectl.system import files

from support import claim_job, drop, finished, load, run_cli, wait_until, where_is, with_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


UNTIL_GO = 'while [ ! -e "$HOME/go" ]; do sleep 0.05; done'


def ran(ledger: Path) -> list[str]:
    """What the jobs wrote down, a line each."""
    return ledger.read_text().split() if ledger.exists() else []


def put_in(spool_dir: Path, count: int, **fields: Any) -> list[str]:
    """Queue so many jobs that write their id into the ledger beside the spool."""
    ledger = spool_dir.parent / "ledger"
    command = fields.pop("command", f'echo "$QUEUECTL_JOB_ID" >> {ledger}')
    return Spool(spool_dir).enqueue_many({"command": command, **fields} for _ in range(count))


def is_empty(spool_dir: Path) -> bool:
    counts = Spool(spool_dir).counts()
    return counts["pending"] + counts["failed"] + counts["processing"] == 0


def test_five_hundred_jobs_over_two_pools_run_once_each(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """Eight workers, started by two commands, run each of 500 jobs exactly once."""
    ids = put_in(spool_dir, 500)
    began = time.monotonic()
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "queuectl", "worker", "start", "--count", "4"], stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [start.wait(40) for start in starts] == [0, 0]
    wait_until(lambda: is_empty(spool_dir), 40, lambda: str(Spool(spool_dir).counts()))
    took = time.monotonic() - began
    assert Counter(ran(spool_dir.parent / "ledger")) == Counter(ids)
    assert len(list((spool_dir / "done").glob("*.json"))) == 500
    assert Spool(spool_dir).counts()["completed"] == 500
    # One second of sleep after each job, or after each lost claim, would take a minute and more.
    assert took < 30


def test_workers_that_never_heard_of_the_index_still_share_by_rename(spool_dir: Path, workers: Cli) -> None:
    """The claim is the rename: deleting the index again and again while eight workers run doubles nothing."""
    ids = put_in(spool_dir, 150)
    workers(4)
    for _ in range(10):
        for ending in ("", "-wal", "-shm"):
            (spool_dir / "data" / f"queuectl.db{ending}").unlink(missing_ok=True)
        time.sleep(0.05)
    wait_until(lambda: finished(spool_dir, *ids), 30, lambda: str(Spool(spool_dir).counts()))
    assert Counter(ran(spool_dir.parent / "ledger")) == Counter(ids)


def test_a_failing_job_among_eight_workers_runs_max_retries_times(spool_dir: Path, workers: Cli) -> None:
    """A retry that comes due is seen by all idle workers at once and taken by one of them."""
    ledger = spool_dir.parent / "ledger"
    command = f'echo "$QUEUECTL_JOB_ID" >> {ledger}; exit 3'
    ids = put_in(spool_dir, 12, command=command, max_retries=4, backoff_base=1)
    workers(8)
    wait_until(lambda: finished(spool_dir, *ids), 30)
    assert Counter(ran(ledger)) == dict.fromkeys(ids, 4)
    for job_id in ids:
        record = load(spool_dir / "dead" / f"{job_id}.json")
        assert (record["attempts"], [entry["attempt"] for entry in record["history"]]) == (4, [1, 2, 3, 4])


def test_a_second_pool_leaves_running_jobs_alone(spool_dir: Path, workers: Cli) -> None:
    """Starting workers takes back nothing from workers that live, and a job longer than any rescan runs once."""
    ledger, go = spool_dir.parent / "ledger", spool_dir.parent / "home" / "go"
    ids = put_in(spool_dir, 2, command=f'echo "$QUEUECTL_JOB_ID" >> {ledger}; {UNTIL_GO}')
    workers(2)
    wait_until(lambda: len(ran(ledger)) == 2)
    workers(2)
    time.sleep(2.2)
    assert Spool(spool_dir).counts()["processing"] == 2
    go.touch()
    wait_until(lambda: finished(spool_dir, *ids))
    assert Counter(ran(ledger)) == Counter(ids)
    assert all(len(load(spool_dir / "done" / f"{job_id}.json")["history"]) == 1 for job_id in ids)


def test_no_worker_idles_while_jobs_wait(spool_dir: Path, workers: Cli) -> None:
    """The loser of a claim takes the next job: two workers keep two jobs running at nearly all times."""
    ids = put_in(spool_dir, 60, command="sleep 0.1")
    workers(2)
    wait_until(lambda: finished(spool_dir, *ids), 30)
    runs = [load(spool_dir / "done" / f"{job_id}.json") for job_id in ids]
    first, last = min(r["started_at"] for r in runs), max(r["finished_at"] for r in runs)
    shares = Counter(r["worker"] for r in runs)
    assert min(shares.values()) >= 20
    from queuectl.job.times import parse_moment

    # 60 jobs of 0.1 s are 3 s for two; a pause of a second after a lost claim would show at once.
    assert parse_moment(last) - parse_moment(first) < 8


def test_a_worker_does_not_pause_between_jobs(spool_dir: Path, workers: Cli) -> None:
    """200 jobs of no length are a matter of seconds for two workers."""
    ids = put_in(spool_dir, 200, command=["true"])
    began = time.monotonic()
    workers(2)
    wait_until(lambda: is_empty(spool_dir), 30)
    assert time.monotonic() - began < 10
    assert len(list((spool_dir / "done").iterdir())) == len(ids)


def test_a_job_due_in_an_hour_does_not_put_the_worker_to_sleep(spool_dir: Path, workers: Cli) -> None:
    """With one job scheduled far ahead, one that is dropped now starts within a second."""
    Spool(spool_dir).enqueue("true", id="later", delay=3600)
    workers(1)
    time.sleep(0.3)
    began = time.monotonic()
    drop(spool_dir, "now", command="true")
    wait_until(lambda: where_is(spool_dir, "now") == ["done"])
    assert time.monotonic() - began < 1.5
    assert where_is(spool_dir, "later") == ["pending"]


def test_retry_of_a_job_that_is_not_dead_is_refused(spool_dir: Path, workers: Cli) -> None:
    """`dlq retry` on a waiting, running or completed job says no and changes nothing: it would run twice."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="over")
    spool.enqueue(UNTIL_GO, id="running", timeout=0)
    spool.enqueue("true", id="waiting", delay=3600)
    workers(1)
    wait_until(
        lambda: where_is(spool_dir, "running") == ["processing/worker-0"] and finished(spool_dir, "over")
    )
    before = {job_id: where_is(spool_dir, job_id) for job_id in ("over", "running", "waiting")}
    for job_id in before:
        refused = run_cli("dlq", "retry", job_id, expect=1)
        assert job_id in refused.stderr
    for job_id in ("running", "waiting"):
        with pytest.raises(MoveError):
            spool.retry(job_id)
    assert {job_id: where_is(spool_dir, job_id) for job_id in before} == before
    (spool_dir.parent / "home" / "go").touch()
    wait_until(lambda: finished(spool_dir, "running"))


def test_one_id_enqueued_by_many_at_once_is_one_job(spool_dir: Path, workers: Cli) -> None:
    """Of ten that enqueue the same id while workers claim, one is told yes and the job runs once."""
    ledger = spool_dir.parent / "ledger"
    workers(2)
    code = (
        "import sys; from queuectl import Spool; from queuectl.errors import DuplicateId\n"
        "spool = Spool(); yes = 0; sys.stdin.readline()\n"
        "for n in range(40):\n"
        "    try: spool.enqueue(sys.argv[1], id=f'same{n}'); yes += 1\n"
        "    except DuplicateId: pass\n"
        "print(yes)"
    )
    command = f'echo "$QUEUECTL_JOB_ID" >> {ledger}'
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", code, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for rival in rivals:
        assert rival.stdin
        rival.stdin.write("go\n")
        rival.stdin.flush()
    told = sum(int(rival.communicate(timeout=40)[0]) for rival in rivals)
    ids = [f"same{n}" for n in range(40)]
    assert told == 40
    wait_until(lambda: finished(spool_dir, *ids), message=lambda: str(Spool(spool_dir).counts()))
    assert Counter(ran(ledger)) == Counter(ids)
    with pytest.raises(DuplicateId):
        Spool(spool_dir).enqueue("true", id="same0")


def test_a_job_edited_between_look_and_claim_is_not_lost(spool_dir: Path) -> None:
    """What is put back at the claim because it was edited in place is looked at again, not forgotten."""
    from queuectl import Worker

    path = drop(spool_dir, "job1", command="echo old")
    spool_dir.chmod(0o700)
    Spool(spool_dir).refresh()
    with path.open("r+b") as file:  # the same inode, as an editor without a backup file writes it
        file.write(b'{"command": "')
        file.truncate()
        file.flush()
        Worker(spool_dir, drain=True).run()
        assert where_is(spool_dir, "job1") == ["pending"]
        file.write(b'echo new"}')
    Worker(spool_dir, drain=True).run()
    assert load(spool_dir / "done" / "job1.json")["output"] == "new\n"


@pytest.mark.parametrize(
    "edit", [{"run_at": 4e9}, {"hold": True}, {"id": "other"}], ids=lambda edit: next(iter(edit))
)
def test_what_is_claimed_is_read_again(spool_dir: Path, edit: dict[str, Any]) -> None:
    """An edit that nobody has seen yet counts at the claim: the job goes back, and is looked at anew."""
    path = drop(spool_dir, "job1", command="true")
    spool = Spool(spool_dir)
    [row] = listing.select(spool)
    with path.open("r+b") as file:  # the same inode, so that no folder's time tells of it
        file.write(json.dumps({"command": "true", **edit}).encode())

    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700)
    with spool._index.moving():
        [taken] = claim_files(spool._storage, [row], "worker-0")
    assert read_claim(spool._storage, *taken) is None
    assert where_is(spool_dir, "job1") == ["pending"]
    assert [again.ready_key is None for again in listing.select(spool)] == [edit != {"id": "other"}]


def test_a_job_postponed_in_place_waits_and_then_runs(spool_dir: Path, workers: Cli) -> None:
    """A run_at written into a waiting file counts, and the job is run when it is due."""
    Spool(spool_dir).enqueue("sleep 1", id="first", priority=10)
    path = drop(spool_dir, "job1", command="true")
    Spool(spool_dir).refresh()
    workers(1)
    wait_until(lambda: where_is(spool_dir, "first") == ["processing/worker-0"])
    due = time.time() + 2.5
    with path.open("r+b") as file:
        file.write(b'{"command": "true", "run_at": %.3f}' % due)
    wait_until(lambda: finished(spool_dir, "job1"), message=lambda: str(where_is(spool_dir, "job1")))
    from queuectl.job.times import parse_moment

    assert due <= parse_moment(load(spool_dir / "done" / "job1.json")["started_at"]) < due + 2


@pytest.mark.parametrize("flags", [True, False], ids=["renameat2", "no renameat2"])
def test_a_claim_never_lands_on_a_job_in_hand(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, flags: bool
) -> None:
    """A wrong index suggests a copy of the job that the worker runs; the rename destroyed the file of that job."""
    if not flags:
        monkeypatch.setattr(files, "_rename_with_flag", lambda *_: False)
    spool = Spool(spool_dir)
    spool.enqueue("echo first", id="job1")
    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700)
    [row] = listing.select(spool)
    assert claim_job(spool._storage, row, "worker-0")
    drop(spool_dir, "copy", command="echo second", id="job1")
    spool._index.put(with_fields(row, name="copy.json"))

    assert claim_job(spool._storage, with_fields(row, name="copy.json"), "worker-0") is None

    assert load(spool_dir / "processing" / "worker-0" / "job1.json")["command"] == "echo first"
    spool.refresh()
    assert "duplicate id" in (spool_dir / "dead" / "copy.json.reason").read_text()
