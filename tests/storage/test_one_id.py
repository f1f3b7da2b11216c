"""One id is one job: looked for where nobody can hide it, and settled once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api import listing
from queuectl.config.settings import Settings
from queuectl.errors import DuplicateId, MoveError
from queuectl.storage import locate
from queuectl.storage.settle import settle
from queuectl.system import files

from support import claim_job, drain, drop, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.storage.transitions import Claim, Storage


def claimed(spool: Spool, job_id: str) -> Claim:
    spool.refresh()
    row = spool._index.get(job_id)
    assert row
    os.makedirs(spool.layout.claims("worker-0"), exist_ok=True)
    claim = claim_job(spool._storage, row, "worker-0")
    assert claim
    claim.job.fill_in(Settings())
    return claim


def test_an_id_is_looked_for_within_the_transaction(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim between the looks at two folders would hide it; claims need the same transaction."""
    spool = Spool(spool_dir)
    spool.refresh()
    look = locate.state_of
    seen: list[bool] = []

    def watched(storage: Storage, job_id: str, *, but: str | None = None) -> str | None:
        seen.append(spool._index.db.in_transaction)
        return look(storage, job_id, but=but)

    monkeypatch.setattr(locate, "state_of", watched)
    spool.enqueue("true", id="a")
    spool.enqueue_many([{"id": "b", "command": "true"}])

    assert seen == [True, True]


def test_the_id_of_a_running_job_is_taken_without_an_index_too(spool_dir: Path) -> None:
    """The folders say so."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    claimed(spool, "a")

    bare = Spool(spool_dir)

    assert locate.state_of(bare._storage, "a") == "processing"
    (spool_dir / "data" / "queuectl.db").unlink()
    with pytest.raises(DuplicateId, match="processing"):
        bare.enqueue("true", id="a")


def test_settling_again_after_trouble_makes_one_outcome(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may refuse the sync after the outcome has its name; it is settled already then."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    claim = claimed(spool, "a")

    def refuse(folder: str) -> None:
        raise OSError(5, "Input/output error", folder)

    with monkeypatch.context() as broken:
        broken.setattr(files, "sync_folder", refuse)
        with pytest.raises(OSError, match="Input/output"):
            settle(spool._storage, claim, "completed")
    assert os.path.exists(claim.path)

    assert settle(spool._storage, claim, "completed")

    assert os.listdir(spool_dir / "done") == ["a.json"]
    assert not os.path.exists(claim.path)


def test_a_scan_that_was_overtaken_vouches_for_nothing(spool_dir: Path) -> None:
    """Its stamp is gone: the folder agrees only when the scan that began last has ended."""
    spool = Spool(spool_dir)
    spool.refresh()
    index = spool._index
    index.mark_stale("done")

    index.begin_scan("done", "one")
    index.begin_scan("done", "two")
    index.end_scan("done", "one")
    early = index.db.execute("SELECT whole FROM folders WHERE place = 'done'").fetchone()
    index.end_scan("done", "two")

    assert early == (0,)
    assert index.db.execute("SELECT whole FROM folders WHERE place = 'done'").fetchone() == (2,)


@pytest.mark.parametrize("folder", ["pending", "done", "dead", "processing/worker-9"])
def test_an_id_is_taken_wherever_its_job_lies(folder: str, spool_dir: Path) -> None:
    """By its file's name alone: the index may not have seen it yet."""
    spool = Spool(spool_dir)
    spool.refresh()
    (spool_dir / folder).mkdir(exist_ok=True)
    (spool_dir / folder / "a.json").write_text('{"command": "true"}')

    with pytest.raises(DuplicateId):
        spool.enqueue("true", id="a")
    with pytest.raises(DuplicateId):
        spool.enqueue_many([{"id": "a", "command": "true"}])


@pytest.mark.parametrize("first", ["the job", "the stranger"])
def test_of_two_files_seen_at_once_the_one_called_by_the_id_is_the_job(
    spool_dir: Path, cli: Callable[..., Any], first: str
) -> None:
    """A done job is put back by hand, and before anybody looks a stranger asks for its id."""
    drop(spool_dir, "job", command="echo mine")
    drain(spool_dir)
    if first == "the stranger":
        drop(spool_dir, "other", id="job", command="echo theirs")
    (spool_dir / "done" / "job.json").rename(spool_dir / "pending" / "job.json")
    if first == "the job":
        drop(spool_dir, "other", id="job", command="echo theirs")

    assert cli("list", expect=0).stdout.splitlines()[0] == "job - pending - echo mine"
    assert "duplicate id: 'job'" in (spool_dir / "dead" / "other.json.reason").read_text()
    drain(spool_dir)
    assert load(spool_dir / "done" / "job.json")["output"] == "mine\n"


def test_two_files_that_swap_their_names_and_ids_are_two_jobs(spool_dir: Path) -> None:
    """Whatever they are called, no id is there twice."""
    drop(spool_dir, "a", id="b", command="echo b")
    drop(spool_dir, "b", id="a", command="echo a")
    drain(spool_dir)
    assert [load(spool_dir / "done" / f"{name}.json")["output"] for name in "ab"] == ["a\n", "b\n"]


def test_a_job_taken_back_is_no_duplicate_of_its_own_claim(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's claim is deleted just when somebody sees the job back in pending/: between two looks at the folders."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job1")
    claim = spool_dir / "processing" / "worker-9" / "job1.json"
    claim.parent.mkdir(mode=0o700)
    (spool_dir / "pending" / "job1.json").rename(claim)
    record = load(claim)
    interrupted = {"run": 1, "attempt": 1, "worker": "worker-9", "outcome": "interrupted"}
    drop(spool_dir, "job1", **{**record, "crashes": 1, "history": [interrupted]})
    asked = locate.state_of

    def settled_meanwhile(storage: Storage, job_id: str, *, but: str | None = None) -> str | None:
        found = asked(storage, job_id, but=but)
        claim.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(locate, "state_of", settled_meanwhile)

    [row] = listing.select(spool)
    assert (row.id, row.state, row.place) == ("job1", "pending", "pending")
    assert list((spool_dir / "dead").iterdir()) == []


@pytest.mark.parametrize("deleted", [True, False])
def test_a_dead_job_that_goes_or_changes_while_it_is_sent_back_is_left_alone(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """The disk takes its time over the mended file; what a person does to the job meanwhile is not undone."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.cancel("a")
    path = spool_dir / "dead" / "a.json"
    edited = path.read_bytes().replace(b'"true"', b'"false"')
    write = files.write_new

    def slow(*given: Any, **how: Any) -> Any:
        written = write(*given, **how)
        path.unlink()
        if not deleted:
            path.write_bytes(edited)
        return written

    monkeypatch.setattr(files, "write_new", slow)
    with pytest.raises(MoveError):
        spool.retry("a")

    assert list((spool_dir / "pending").glob("*.json")) == []
    assert not path.exists() if deleted else path.read_bytes() == edited
    assert [name for name in os.listdir(spool_dir / "tmp") if name.endswith(".tmp")] == []


@pytest.mark.parametrize("place", ["pending", "done", "dead"])
@pytest.mark.parametrize("many", [True, False])
def test_the_id_of_a_job_that_was_deleted_by_hand_is_free_at_once(
    spool_dir: Path, place: str, many: bool
) -> None:
    """The index still has the old job, and that must not hide the new one."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    if place == "done":
        drain(spool_dir)
    elif place == "dead":
        spool.cancel("a")
    assert [job.id for job in spool.list()] == ["a"]

    (spool_dir / place / "a.json").unlink()
    spool.enqueue_many([{"id": "a", "command": "echo new"}]) if many else spool.enqueue("echo new", id="a")

    assert [(job.id, job.state, job.command) for job in spool.list()] == [("a", "pending", "echo new")]
    assert spool.counts()["pending"] == 1
    assert spool.counts()["completed"] + spool.counts()["dead"] == 0
