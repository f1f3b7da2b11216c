"""Unique keys: what a producer is told, who may come in, and that two of one key never run side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.api import listing
from queuectl.api.enqueue import prepare
from queuectl.errors import KeyTaken
from queuectl.index.index import Index
from queuectl.index.row import Row
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.storage import dead_letters, unique_keys
from queuectl.storage.claim import release
from queuectl.storage.settle import settle
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id

import support
from support import claim_job, first_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ALONE = "mkdir '{0}/alone' || {{ echo two >> '{0}/side-by-side'; exit 0; }}; sleep 0.05; rmdir '{0}/alone'; echo x >> '{0}/ran'"
"""A command that leaves a mark if another of its kind runs at the same time."""


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    made = Spool(spool_dir)
    made.refresh()
    return made


def failing(spool: Spool, job_id: str, **fields: Any) -> None:
    """Have a job in the state failed: it waits for its second attempt."""
    spool.enqueue("exit 1", id=job_id, backoff_base=1000, **fields)
    support.drain(spool.layout.root)  # type: ignore[arg-type]
    assert spool.get(job_id).state == "failed"


def opened(spool_dir: Path, path: str | None = None) -> Storage:
    """A storage with an index of its own."""
    layout = Layout(spool_dir)
    index = Index(path or layout.index, layout.root, boot_id())
    index.open()
    return Storage(layout, index)


# -- what a producer is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "failed", "processing"])
def test_skip_queues_nothing_and_gives_the_job_that_is_there(
    spool: Spool, workers: Callable[..., Any], state: str
) -> None:
    """Whether it waits, waits for a retry or runs: the caller gets that job, and can tell."""
    if state == "failed":
        failing(spool, "first", unique="k")
    else:
        spool.enqueue("sleep 30", id="first", unique="k")
    if state == "processing":
        workers(1)
        support.wait_until(lambda: spool.get("first").state == "processing")

    there = spool.enqueue("true", unique="k")

    assert (there.id, there.state, there.skipped) == ("first", state, True)
    assert sum(spool.counts().values()) == 1
    assert not spool.enqueue("true", unique="other").skipped


@pytest.mark.parametrize("how", ["completed", "dead", "deleted"])
def test_a_key_is_free_once_its_job_is_over(spool: Spool, spool_dir: Path, how: str) -> None:
    """Done, dead or deleted by hand: the next one is queued."""
    spool.enqueue("true" if how == "completed" else "exit 1", id="first", unique="k", max_retries=1)
    if how == "deleted":
        (spool_dir / "pending" / "first.json").unlink()
    else:
        support.drain(spool_dir)

    assert not spool.enqueue("true", id="second", unique="k").skipped


def test_one_that_has_expired_keeps_nobody_out(spool: Spool, spool_dir: Path) -> None:
    """No worker was there to give it up: the nightly job of a machine that was off must not stop all that follow."""
    spool.enqueue("true", id="monday", unique="k", expires_at=time.time() - 5)
    support.drop(spool_dir, "tuesday", command="true", unique="k")

    assert spool.counts()["pending"] == 2
    assert spool.enqueue("true", unique="k").id == "tuesday"
    support.drain(spool_dir)

    assert spool.get("monday").last_error.startswith("Expired")  # type: ignore[union-attr]
    assert support.where_is(spool_dir, "tuesday") == ["done"]


def test_the_command_says_which_happened(cli: Cli, spool_dir: Path) -> None:
    """Exit code 0 each time: queued, skipped with the one that is there, or replaced; --json and --quiet too."""
    assert cli("enqueue", "--id", "a", "--unique", "k", "true", expect=0).stdout == "enqueued job a\n"

    skipped = cli("enqueue", "--unique", "k", "true", expect=0).stdout
    assert skipped == "skipped: job a (pending) has the unique key 'k'\n"
    assert cli("enqueue", "--unique", "k", "--quiet", "true", expect=0).stdout == ""
    for words, lines in (["true"], None), (["--file", "-"], '{"command": "true"}'):
        [told] = json.loads(cli("enqueue", "--unique", "k", "--json", *words, stdin=lines, expect=0).stdout)
        assert (told["id"], told["state"], told["unique"], told["skipped"]) == ("a", "pending", "k", True)
        assert told["command"] == "true"

    flags = ["--unique", "k", "--if-exists", "replace"]
    assert cli("enqueue", "--id", "b", *flags, "true", expect=0).stdout == "enqueued job b\nreplaced job a\n"
    [told] = json.loads(cli("enqueue", "--id", "c", *flags, "true", "--json", expect=0).stdout)
    assert (told["id"], told["state"], told["replaced"]) == ("c", "pending", ["b"])
    assert "skipped" not in told
    assert cli("list").stdout == "c - pending - true\n"


def test_a_key_that_is_taken_goes_before_an_id_that_is(spool: Spool) -> None:
    """The same job handed in again, id and all, is skipped; with another key its id is refused as ever."""
    spool.enqueue("true", id="nightly", unique="k")

    assert spool.enqueue("true", id="nightly", unique="k").skipped


def test_many_jobs_are_told_apart(spool: Spool, cli: Cli) -> None:
    """Of a list each is queued or skipped, in order; one may be in the way of a later one of the same list."""
    records = [
        {"command": "true", "id": name, "unique": key}
        for name, key in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z"), ("e", "y")]
    ]
    told: list[str] = []

    told.extend(spool.enqueue_stream(records, skipped=lambda taken: told.append(f"-{taken.job_id}")))

    assert told == ["a", "b", "-a", "d", "-b"]
    lines = "".join(json.dumps({**record, "id": f"{record['id']}2"}) + "\n" for record in records)
    lines += '{"command": "true", "id": "last"}\n'
    said = cli("enqueue", "--file", "-", stdin=lines, expect=0).stdout.splitlines()
    assert [line.split()[0] for line in said] == ["skipped:"] * 5 + ["enqueued"]
    assert os.listdir(spool.layout.tmp) == []


def test_all_or_nothing_counts_a_skipped_one_as_done(spool: Spool) -> None:
    """It asked for that; a job of the list that cannot be queued still takes all others back."""
    spool.enqueue("true", id="a", unique="x")
    records = [{"command": "true", "id": "b", "unique": "x"}, {"command": "true", "id": "c", "unique": "y"}]
    skipped: list[KeyTaken] = []

    assert spool.enqueue_many(records, all_or_nothing=True, skipped=skipped.append) == ["c"]

    assert [taken.job_id for taken in skipped] == ["a"]


def test_replace_lets_a_running_one_finish(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """What waits is given up, what runs is left alone, and the new one goes behind it."""
    gate = spool_dir.parent / "gate"
    spool.enqueue(f"while [ ! -e {gate} ]; do sleep 0.05; done", id="runs", unique="k", timeout=60)
    workers(2)
    support.wait_until(lambda: spool.get("runs").state == "processing")
    spool.enqueue("true", id="waits", unique="k", if_exists="queue")

    job = spool.enqueue("true", id="new", unique="k", if_exists="replace")

    assert job.replaced == ["waits"]
    assert spool.get("runs").state == "processing"
    gate.touch()
    support.wait_until(lambda: support.finished(spool_dir, "runs", "new"))
    assert spool.get("new").started_at >= spool.get("runs").finished_at  # type: ignore[operator]


def test_a_job_says_for_which_one_it_waits(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any], cli: Cli
) -> None:
    """Who wonders why a job does not start is told what runs with its key, and nothing once that is over."""
    gate = spool_dir.parent / "gate"
    spool.enqueue(f"while [ ! -e {gate} ]; do sleep 0.05; done", id="first", unique="k")
    spool.enqueue("true", id="second", unique="k", if_exists="queue")
    assert "waits for" not in cli("show", "second", expect=0).stdout
    workers(1)
    support.wait_until(lambda: spool.get("first").state == "processing")

    assert "k (queue), waits for first\n" in cli("show", "second", expect=0).stdout
    assert "waits for" not in cli("show", "first", expect=0).stdout

    gate.touch()
    support.wait_until(lambda: support.finished(spool_dir, "first", "second"))
    assert "waits for" not in cli("show", "second", expect=0).stdout


def test_retrying_all_that_is_dead_leaves_out_what_was_replaced(
    spool: Spool, spool_dir: Path, cli: Cli
) -> None:
    """Who runs again what has failed does not mean the old versions of newer jobs; by name they can be had."""
    spool.enqueue("exit 1", id="failed", max_retries=1)
    support.drain(spool_dir)
    support.drop(spool_dir, "old", command="true", unique="k")
    spool.enqueue("true", id="new", unique="k", if_exists="replace")

    done = cli("dlq", "retry", "--all", expect=0)
    assert done.stdout == "requeued job failed\n"
    assert "1 job not retried, because a newer job replaced" in done.stderr
    assert cli("dlq", "retry", "old", expect=0).stdout == "requeued job old\n"


@pytest.mark.parametrize("how", ["enqueued", "in a list", "dropped"])
def test_a_job_that_is_replaced_again_and_again_keeps_its_place(
    spool: Spool, spool_dir: Path, how: str
) -> None:
    """At the end of the line each time it would never run while others arrive."""
    fields: dict[str, Any] = {"unique": "k", "if_exists": "replace"}
    spool.enqueue("true", id="first")
    spool.enqueue("true", id="v0", **fields)
    since = listing.one(spool, "v0").arrived
    for number in range(1, 4):
        spool.enqueue("true", id=f"other{number}")
        if how == "dropped":
            support.drop(spool_dir, f"v{number}", command="true", **fields)
            spool.refresh()
        elif how == "in a list":
            list(spool.enqueue_many([{"id": f"v{number}", "command": "true", **fields}]))
        else:
            spool.enqueue("true", id=f"v{number}", **fields)

    assert [row.id for row in spool.next_up(9)] == ["first", "v3", "other1", "other2", "other3"]
    assert listing.one(spool, "v3").arrived == since


def test_a_job_that_replaces_one_that_could_not_run_yet_begins_to_wait_now(spool: Spool) -> None:
    """A held job and a scheduled one have not waited."""
    began = time.time() * 1e6
    for key, fields in (("h", {"hold": True}), ("s", {"delay": 3600})):
        spool.enqueue("true", id=f"old-{key}", unique=key, **fields)
        spool.enqueue("true", id=f"new-{key}", unique=key, if_exists="replace")
        assert began <= listing.one(spool, f"new-{key}").arrived <= time.time() * 1e6
        assert spool.row(f"new-{key}").waits_for == "worker"


# -- races -----------------------------------------------------------------------------------------------------------

PRODUCER = """
import sys
from queuectl import Spool
spool = Spool(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print("skipped" if spool.enqueue("true", unique="k", if_exists=sys.argv[2]).skipped else "queued")
"""


def race(spool_dir: Path, if_exists: str, number: int = 8) -> list[str]:
    """Have so many producers hand in a job with one key at the same moment; returns what each was told."""
    producers = [
        subprocess.Popen(
            [sys.executable, "-c", PRODUCER, str(spool_dir), if_exists],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    for one in producers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in producers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return [one.communicate(timeout=40)[0].strip() for one in producers]


@pytest.mark.parametrize("index", ["there", "none", "deleted all the time", "not to be kept"])
def test_of_eight_producers_at_once_one_wins(spool: Spool, spool_dir: Path, index: str) -> None:
    """The folders decide, whatever becomes of the index meanwhile."""
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.001):
            (spool_dir / "data" / "queuectl.db").unlink(missing_ok=True)

    if index != "there":
        spool._index.close()
        for path in (spool_dir / "data").glob("queuectl.db*"):
            path.unlink()
    if index == "not to be kept":
        (spool_dir / "data" / "queuectl.db").mkdir()
    thread = threading.Thread(target=delete)
    if index == "deleted all the time":
        thread.start()
    try:
        told = race(spool_dir, "skip")
    finally:
        over.set()
        if thread.is_alive():
            thread.join()

    assert sorted(told) == ["queued"] + ["skipped"] * 7
    assert len(list((spool_dir / "pending").iterdir())) == 1


def test_who_comes_second_waits_for_the_first_to_decide(spool: Spool, spool_dir: Path) -> None:
    """Between a look and what follows from it nobody else looks, whatever index each of them has."""
    other = Spool(spool_dir)
    there: list[Job] = []
    thread = threading.Thread(target=lambda: there.append(other.enqueue("true", id="second", unique="k")))
    with unique_keys.locked(spool._storage):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        spool.enqueue("true", id="first", unique="k")
    thread.join()

    assert [(job.id, job.skipped) for job in there] == [("first", True)]


def test_of_eight_that_replace_one_is_left(spool: Spool, spool_dir: Path) -> None:
    """Each supersedes those before it."""
    assert race(spool_dir, "replace") == ["queued"] * 8

    assert spool.counts() == {"pending": 1, "processing": 0, "completed": 0, "failed": 0, "dead": 0}


def test_what_has_run_before_it_is_replaced_is_kept(spool: Spool, spool_dir: Path) -> None:
    """Its attempts have something to tell: it lies in dead/ and says what took its place."""
    failing(spool, "old", unique="k")

    assert spool.enqueue("true", id="new", unique="k", if_exists="replace").replaced == ["old"]

    record = support.load(spool_dir / "dead" / "old.json")
    assert (record["last_error"], record["attempts"]) == ("Replaced by job new", 1)


def test_one_that_is_claimed_just_before_it_is_replaced_runs_on(spool: Spool, spool_dir: Path) -> None:
    """Its file is gone from pending/ by the time it is to be given up: nothing of it is touched, in the index neither."""
    spool.enqueue("true", id="old", unique="k")
    storage = opened(spool_dir)
    (spool_dir / "processing" / "worker-0").mkdir()
    row = storage.index.get("old")
    assert row is not None
    assert claim_job(storage, row, "worker-0") is not None

    assert unique_keys._remove_replaced(storage, row, Job(id="new")) is False
    assert dead_letters.forget(storage, row, unchanged=True) is False

    assert support.where_is(spool_dir, "old") == ["processing/worker-0"]
    assert storage.index.get("old").state == "processing"  # type: ignore[union-attr]
    storage.index.close()


def test_a_producer_that_is_killed_leaves_no_lock(spool: Spool, spool_dir: Path) -> None:
    """The lock is the kernel's: it goes with its holder, at whatever point that was."""
    code = (
        "import os, signal, sys; from queuectl import Spool; from queuectl.storage import unique_keys\n"
        "spool = Spool(sys.argv[1])\n"
        "with unique_keys.locked(spool._storage): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(spool_dir)], check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    began = time.monotonic()

    assert not spool.enqueue("true", unique="k").skipped

    assert time.monotonic() - began < 5


def test_dying_in_the_middle_of_a_replacement_loses_no_job(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one is on the disk before the old one is given up: after a crash both wait, one behind the other."""
    spool.enqueue("true", id="old", unique="k")
    died = RuntimeError("killed here")

    def die(*_: object, **__: object) -> None:
        raise died

    monkeypatch.setattr(dead_letters, "forget", die)
    with pytest.raises(RuntimeError):
        spool.enqueue("true", id="new", unique="k", if_exists="replace")
    monkeypatch.undo()
    assert support.where_is(spool_dir, "old") == support.where_is(spool_dir, "new") == ["pending"]

    support.drain(spool_dir)

    assert support.finished(spool_dir, "old", "new")


# -- never side by side ----------------------------------------------------------------------------------------------


@pytest.fixture
def restless(spool_dir: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """An index that is left alone, deleted again and again, or cannot be kept at all."""
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.05):
            (spool_dir / "data" / "queuectl.db").unlink(missing_ok=True)

    thread = threading.Thread(target=delete)
    if request.param == "deleted":
        thread.start()
    if request.param == "in memory":
        for path in (spool_dir / "data").glob("queuectl.db*"):
            path.unlink()
        (spool_dir / "data" / "queuectl.db").mkdir(parents=True)
    yield
    over.set()
    if thread.is_alive():
        thread.join()


@pytest.mark.parametrize("restless", ["kept", "deleted", "in memory"], indirect=True)
@pytest.mark.usefixtures("restless")
def test_two_of_one_key_never_run_side_by_side(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Four workers, twelve jobs of one key and some others: each of the twelve finds itself alone."""
    command = ALONE.format(spool_dir)
    for number in range(12):
        support.drop(spool_dir, f"job{number}", command=command, unique="k", if_exists="queue")
        support.drop(spool_dir, f"other{number}", command="sleep 0.02")

    workers(4)

    done = spool_dir / "done"
    support.wait_until(
        lambda: done.is_dir() and len(list(done.iterdir())) == 24,
        timeout=50,
        message=lambda: os.listdir(spool_dir / "pending"),
    )
    assert not (spool_dir / "side-by-side").exists()
    assert len((spool_dir / "ran").read_text().split()) == 12


def test_a_claim_looks_into_the_folders(spool: Spool, spool_dir: Path) -> None:
    """An index that has not heard of a colleague's claim, as one in memory, starts no second one all the same."""
    for name in ("first", "second"):
        spool.enqueue("true", id=name, unique="k", if_exists="queue")
    mine, theirs = opened(spool_dir), opened(spool_dir, ":memory:")
    for worker in ("worker-0", "worker-1"):
        (spool_dir / "processing" / worker).mkdir()
    first, second = mine.index.get("first"), mine.index.get("second")
    assert first is not None
    assert second is not None
    second.seq = None
    theirs.index.put(Row(**{name: getattr(second, name) for name in Row.__match_args__}))
    row = theirs.index.get("second")
    assert row is not None

    assert claim_job(mine, first, "worker-0") is not None
    assert claim_job(theirs, row, "worker-1") is None

    assert support.where_is(spool_dir, "second") == ["pending"]
    assert theirs.index.ready_and_due() == (False, None)
    mine.index.close()
    theirs.index.close()


def test_those_that_wait_behind_another_are_no_work(spool: Spool, spool_dir: Path) -> None:
    """Idle workers must not reach for them again and again: they are out of the order until the key is free."""
    storage = opened(spool_dir)
    (spool_dir / "processing" / "worker-0").mkdir()
    for number in range(50):
        spool.enqueue("true", id=f"job{number:02}", unique="k", if_exists="queue")
    suggested = first_ready(storage.index)
    assert suggested is not None
    claim = claim_job(storage, suggested, "worker-0")
    assert claim is not None

    following = first_ready(storage.index)
    assert following is not None
    assert claim_job(storage, following, "worker-1") is None

    assert storage.index.ready_and_due() == (False, None)
    assert storage.index.has_work(later=True)
    assert not any(row.held for row in spool.list("pending"))
    assert spool.enqueue("true", id="free").state == "pending"
    assert first_ready(storage.index).id == "free"  # type: ignore[union-attr]
    release(storage, claim)
    assert [row.id for row in spool.list() if row.waits_for == "worker"] == ["job00", "job01", "free"]
    storage.index.close()


def test_a_job_that_has_begun_has_its_key_until_it_is_over(spool: Spool, spool_dir: Path) -> None:
    """Between two attempts as well: the newer one must not overtake it, however urgent."""
    failing(spool, "old", unique="k", max_retries=2)
    spool.enqueue("true", id="new", unique="k", if_exists="queue", priority=10)

    support.drain(spool_dir)
    assert support.where_is(spool_dir, "new") == ["pending"]
    support.drain(spool_dir, now=lambda: time.time() + 2000)
    support.drain(spool_dir)

    assert support.finished(spool_dir, "old", "new")
    assert spool.get("new").started_at > spool.get("old").finished_at  # type: ignore[operator]


def test_a_held_one_between_two_attempts_is_not_waited_for(spool: Spool, spool_dir: Path) -> None:
    """Or `worker start --drain --wait-retries` would wait until somebody releases it."""
    failing(spool, "held", unique="k")
    path = spool_dir / "pending" / "held.json"
    record = support.load(path)
    support.drop_bytes(spool_dir, "held.json", json.dumps({**record, "hold": True}).encode())
    spool.enqueue("true", id="next", unique="k", if_exists="queue")

    support.drain(spool_dir, wait_retries=True)

    assert support.where_is(spool_dir, "next") == ["done"]


def test_the_next_one_starts_as_soon_as_the_key_is_free(spool: Spool, spool_dir: Path) -> None:
    """Not at some later look: short ones in a row take no second each, though two workers reach for them."""
    for number in range(12):
        spool.enqueue("true", id=f"job{number}", unique="k", if_exists="queue")
    began = time.monotonic()
    worker = Worker(spool_dir, drain=True, wait_retries=True)
    thread = threading.Thread(target=worker.run)
    thread.start()
    support.drain(spool_dir, wait_retries=True)
    thread.join()

    assert len(list((spool_dir / "done").iterdir())) == 12
    assert time.monotonic() - began < 15


def test_those_that_have_not_begun_keep_the_usual_order(spool: Spool, spool_dir: Path) -> None:
    """A scheduled or a held one does not keep its key from others, and the more urgent one goes first."""
    spool.enqueue("true", id="later", unique="k", delay="1h")
    spool.enqueue("true", id="held", unique="k", if_exists="queue", hold=True)
    spool.enqueue("true", id="calm", unique="k", if_exists="queue", priority=2)
    spool.enqueue("true", id="urgent", unique="k", if_exists="queue", priority=9)

    support.drain(spool_dir)

    assert spool.get("urgent").started_at < spool.get("calm").started_at  # type: ignore[operator]
    assert support.where_is(spool_dir, "later") == support.where_is(spool_dir, "held") == ["pending"]


@pytest.mark.parametrize("how", ["cancelled", "deleted", "moved", "held"])
def test_the_next_one_is_let_in_however_the_first_in_line_leaves(
    spool: Spool, spool_dir: Path, how: str
) -> None:
    """The one that was let in next may be gone before it runs; those behind it must not wait for ever."""
    storage = opened(spool_dir)
    (spool_dir / "processing" / "worker-0").mkdir()
    for name in ("runs", "next", "last"):
        spool.enqueue("true", id=name, unique="k", if_exists="queue")
    claim = claim_job(storage, first_ready(storage.index), "worker-0")  # type: ignore[arg-type]
    assert claim_job(storage, first_ready(storage.index), "worker-1") is None  # type: ignore[arg-type]
    assert claim is not None
    settle(storage, claim, "completed")
    storage.index.close()

    path = spool_dir / "pending" / "next.json"
    if how == "cancelled":
        spool.cancel("next")
    elif how == "deleted":
        path.unlink()
    elif how == "moved":
        path.rename(spool_dir / "dead" / "next.json")
    else:
        record = support.load(path)
        support.drop_bytes(spool_dir, "next.json", json.dumps({**record, "hold": True}).encode())
    spool.refresh()
    assert first_ready(spool._index).id == "last"  # type: ignore[union-attr]
    support.drain(spool_dir)

    assert support.where_is(spool_dir, "last") == ["done"]


def test_a_running_jobs_file_that_was_deleted_by_hand_frees_its_key(spool: Spool, spool_dir: Path) -> None:
    """Nobody tells the index; the chores of a worker look."""
    storage = opened(spool_dir)
    (spool_dir / "processing" / "worker-0").mkdir()
    for name in ("runs", "next"):
        spool.enqueue("true", id=name, unique="k", if_exists="queue")
    assert claim_job(storage, first_ready(storage.index), "worker-0") is not None  # type: ignore[arg-type]
    assert claim_job(storage, first_ready(storage.index), "worker-1") is None  # type: ignore[arg-type]
    (spool_dir / "processing" / "worker-0" / "runs.json").unlink()

    unique_keys.unblock(storage)

    assert first_ready(storage.index).id == "next"  # type: ignore[union-attr]
    storage.index.close()


def test_a_worker_killed_with_a_key_gives_it_back(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """Its job stays the owner until it is put back; then both run, one after the other."""
    spool.enqueue("sleep 0.5", id="runs", unique="k", timeout=30)
    workers(1)
    support.wait_until(lambda: spool.get("runs").state == "processing")
    spool.enqueue("true", id="next", unique="k", if_exists="queue")
    os.kill(spool.workers()[0].pid, signal.SIGKILL)

    workers(2)

    support.wait_until(lambda: support.finished(spool_dir, "runs", "next"))


def test_drain_waits_behind_a_running_one_and_not_for_held_ones(spool: Spool, spool_dir: Path) -> None:
    """--wait-retries: what will run by itself is waited for, what somebody has to release is not."""
    spool.enqueue("true", id="held", hold=True)
    spool.enqueue("sleep 0.6", id="runs", unique="k")
    worker = Worker(spool_dir)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        support.wait_until(lambda: spool.get("runs").state == "processing")
        spool.enqueue("true", id="behind", unique="k", if_exists="queue")
        worker.stop()
        support.drain(spool_dir, wait_retries=True)
    finally:
        worker.stop()
        thread.join()

    assert support.finished(spool_dir, "runs", "behind")
    assert support.where_is(spool_dir, "held") == ["pending"]


# -- dropped files, and what people do by hand -----------------------------------------------------------------------


def test_a_dropped_file_is_skipped_with_its_bytes_untouched(spool: Spool, spool_dir: Path) -> None:
    """It lies in dead/ with the reason beside it; mended or put back it waits for its turn."""
    spool.enqueue("true", id="first", unique="k", hold=True)
    path = support.drop(spool_dir, "second", command="true", unique="k")
    data = path.read_bytes()

    spool.refresh()

    assert support.where_is(spool_dir, "second") == ["dead"]
    assert (spool_dir / "dead" / "second.json").read_bytes() == data
    reason = (spool_dir / "dead" / "second.json.reason").read_text()
    assert reason == "job first (pending) has the unique key 'k', and if_exists is skip\n"
    spool.retry("second")
    spool.refresh()
    assert support.where_is(spool_dir, "second") == ["pending"]


def test_dropped_files_replace_and_queue(spool: Spool, spool_dir: Path) -> None:
    """The same rules as for enqueue, when the file is taken in."""
    spool.enqueue("true", id="first", unique="k")
    support.drop(spool_dir, "second", command="true", unique="k", if_exists="queue")
    spool.refresh()
    assert spool.counts()["pending"] == 2

    support.drop(spool_dir, "third", command="true", unique="k", if_exists="replace")
    spool.refresh()

    assert [(row.id, row.state, row.last_error) for row in spool.list()] == [
        ("second", "dead", "Replaced by job third"),
        ("third", "pending", None),
    ]


def test_an_index_made_anew_judges_nobody_again(spool: Spool, spool_dir: Path) -> None:
    """A dropped file that was there first stays, though a later one of its key is seen together with it."""
    support.drop(spool_dir, "first", command="true", unique="k")
    spool.refresh()
    spool.enqueue("true", id="second", unique="k", if_exists="queue")
    spool._index.close()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()

    assert Spool(spool_dir).counts()["pending"] == 2


@pytest.mark.parametrize("folder", ["done", "dead"])
def test_what_a_person_puts_back_waits_for_its_turn(spool: Spool, spool_dir: Path, folder: str) -> None:
    """Moved back by hand beside a job that has its key now: neither is refused, and they run one after the other."""
    spool.enqueue("true" if folder == "done" else "exit 1", id="old", unique="k", max_retries=1)
    support.drain(spool_dir)
    spool.enqueue("true", id="new", unique="k")
    (spool_dir / folder / "old.json").rename(spool_dir / "pending" / "old.json")

    assert spool.counts()["pending"] == 2
    support.drain(spool_dir)
    assert support.finished(spool_dir, "old", "new")


def test_a_key_written_into_a_waiting_file_counts_at_the_claim(spool: Spool, spool_dir: Path) -> None:
    """Edited in place, so that the index does not know: the claim reads the file, and the job waits for its turn."""
    storage = opened(spool_dir)
    for worker in ("worker-0", "worker-1"):
        (spool_dir / "processing" / worker).mkdir()
    spool.enqueue("true", id="runs", unique="k")
    spool.enqueue("true", id="edited")
    assert claim_job(storage, first_ready(storage.index), "worker-0") is not None  # type: ignore[arg-type]
    path = spool_dir / "pending" / "edited.json"
    path.write_text(path.read_text().replace('"priority"', '"unique": "k", "priority"'))

    for _ in range(2):
        assert claim_job(storage, storage.index.get("edited"), "worker-1") is None  # type: ignore[arg-type]

    assert support.where_is(spool_dir, "edited") == ["pending"]
    assert storage.index.ready_and_due() == (False, None)
    storage.index.close()


# -- what it is for --------------------------------------------------------------------------------------------------


def test_runs_that_take_longer_than_the_pause_between_them_do_not_pile_up(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any], cli: Cli
) -> None:
    """The cron pile-up: a job every moment, a run longer than that. One runs, none waits, whatever cron does."""
    workers(3)
    command = ALONE.format(spool_dir)
    told = []
    for _ in range(20):
        told.append(cli("enqueue", "--unique", "backup", command, expect=0).stdout.split()[0])
        assert spool.counts()["pending"] + spool.counts()["processing"] <= 1
    support.wait_until(lambda: not (spool.counts()["pending"] or spool.counts()["processing"]))

    assert set(told) <= {"enqueued", "skipped:"}
    assert not (spool_dir / "side-by-side").exists()
    assert len((spool_dir / "ran").read_text().split()) == told.count("enqueued")


def test_an_index_that_breaks_while_it_is_asked_hides_no_key(spool_dir: Path) -> None:
    """Deleted or damaged between the look at the folders and the question, it is made anew and asked then."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="first", unique="k")
    again = prepare({"command": "true", "id": "second", "unique": "k"}, spool._job_defaults())
    spool.refresh()
    spool._index.broken = "gone"

    with pytest.raises(KeyTaken, match="first"):
        unique_keys.admit(spool._storage, again)
