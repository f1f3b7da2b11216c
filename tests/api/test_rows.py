"""What `Spool.list` and `row` return: names, units and types as everywhere else in the API, and nothing of the index."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Job, Row, Spool

import support

if TYPE_CHECKING:
    from pathlib import Path

OF_THE_INDEX = {
    "ready_key",
    "due",
    "behind",
    "seq",
    "place",
    "name",
    "inode",
    "mtime",
    "size",
    "ours",
    "settings",
}


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """One job of each kind."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="done", tags=["a", "b"])
    spool.enqueue("exit 3", id="dead", max_retries=1)
    spool.enqueue("exit 3", id="failed", max_retries=2, backoff_base=10, max_backoff=1e6, jitter=0)
    support.drain(spool_dir)
    spool.enqueue("true", id="waits", priority=7)
    spool.enqueue("true", id="held", hold=True)
    spool.enqueue("true", id="later", delay=3600, unique="k", expires_in=7200)
    return spool


def test_a_row_says_what_the_job_says(spool: Spool) -> None:
    """The microseconds and the joined tags of the index were handed out; a sum with time.time() was wrong by a million."""
    rows = {row.id: row for row in spool.list()}

    assert rows.keys() == {"done", "dead", "failed", "waits", "held", "later"}
    shared = {
        "id",
        "state",
        "command",
        "priority",
        "unique",
        "attempts",
        "max_retries",
        "exit_code",
        "worker",
    }
    moments = {
        "created_at",
        "updated_at",
        "run_at",
        "next_retry_at",
        "expires_at",
        "started_at",
        "finished_at",
    }
    for job_id, row in rows.items():
        job = spool.get(job_id)
        assert isinstance(row, Row)
        assert {name: getattr(row, name) for name in shared} == {name: getattr(job, name) for name in shared}
        for name in (*moments, "duration"):
            assert getattr(row, name) == pytest.approx(getattr(job, name), abs=2e-6), name
        assert row.tags == (job.tags or [])
        assert row.last_error == job.last_error
        assert row == spool.rows([job_id])[job_id] or row.waited is not None


def test_a_row_has_no_column_of_the_index(spool: Spool) -> None:
    """What is public cannot be changed any more."""
    names = set(Row.__match_args__)

    assert not names & OF_THE_INDEX
    derived = {"effective_priority", "due_at", "waits_for", "waited"}
    place = {"engine", "engine_id", "node", "engine_reason"}
    assert names - derived - place < set(Job.__match_args__)


def test_a_row_says_what_its_job_waits_for(spool: Spool, spool_dir: Path) -> None:
    """The words are those of the metrics."""
    spool.enqueue("true", id="first", unique="one")
    spool.enqueue("true", id="second", unique="one", if_exists="queue")
    (spool_dir / "processing" / "worker-0").mkdir(mode=0o700, exist_ok=True)
    assert support.claim_job(spool._storage, spool._find("first"), "worker-0")
    assert not support.claim_job(
        spool._storage, spool._find("second"), "worker-0"
    )  # now it is known to have to wait
    rows = {row.id: row for row in Spool(spool_dir).list()}

    assert {name: row.waits_for for name, row in rows.items()} == {
        "done": None, "dead": None, "first": None,
        "failed": "retry", "waits": "worker", "held": "release", "later": "run_at", "second": "unique",
    }  # fmt: skip
    assert [row.id for row in rows.values() if row.held] == ["held"]
    assert rows["later"].due_at == pytest.approx(time.time() + 3600, abs=60)
    assert rows["failed"].due_at == rows["failed"].next_retry_at
    assert [rows[name].waited for name in ("held", "later", "failed", "done")] == [None] * 4
    waits = spool.row("waits")
    assert waits.waited is not None
    assert 0 <= waits.waited < 60
    assert waits.effective_priority == pytest.approx(7 + waits.waited / 60)


def test_what_a_program_prints_of_a_row_has_no_secrets(spool: Spool) -> None:
    """As of a job."""
    spool.enqueue("curl https://me:s3cret@example.org", id="a")

    assert "s3cret" not in repr(spool.row("a")) + str(spool.list(limit=99))
    assert "Row(id='a', state='pending', command='curl https://me:***@example.org', priority=5" in repr(
        spool.row("a")
    )


@pytest.mark.parametrize("way", ["first", "where"])
def test_bulk_verbs_take_a_filter(spool: Spool, way: str) -> None:
    """Without states it selects what the verb applies to, as on the command line."""

    def call(verb: str, which: Filter, **more: object) -> set[str]:
        method = getattr(spool, verb)
        found = method(which, **more) if way == "first" else method(where=which, **more)
        assert not [result for result in found.values() if isinstance(result, Exception)], found
        return set(found)

    assert call("set_many", Filter(), priority=4) == {"failed", "waits", "held", "later"}
    assert {spool.row(name).priority for name in ("failed", "waits", "held", "later")} == {4}
    assert call("set_many", Filter(states="dead"), priority=3) == {"dead"}
    assert call("hold_many", Filter(command="true")) == {"waits", "held", "later"}
    assert call("release_many", Filter()) == {"waits", "held", "later"}
    assert call("retry_many", Filter(exit_codes=3)) == {"dead", "failed"}
    assert call("cancel_many", Filter(states="pending", limit=2, sort="id")) == {"dead", "held"}
    assert call("forget_many", Filter(tags="a")) == {"done"}
    assert call("forget_many", Filter()) == {"dead", "failed", "waits", "held", "later"}
    assert spool.list() == []


def test_a_filter_retries_no_job_that_somebody_has_given_up(spool: Spool) -> None:
    """A program that retries all failures would run what a person has cancelled; so did the command line once."""
    spool.cancel("waits")
    spool.hold("failed")

    assert spool.retry_many(Filter()).keys() == {"dead"}
    assert spool.retry_many(Filter(reason="cancelled")).keys() == {"waits"}


@pytest.mark.parametrize(
    ("verb", "states"),
    [("cancel_many", "dead"), ("hold_many", "done"), ("set_many", "done"), ("retry_many", "pending"), ("forget_many", "processing")],
)  # fmt: skip
def test_a_filter_for_jobs_to_which_the_verb_does_not_apply_is_refused(
    spool: Spool, verb: str, states: str
) -> None:
    """It would select nothing, in silence."""
    fields = {"priority": 1} if verb == "set_many" else {}
    with pytest.raises(ValueError, match="jobs cannot be"):
        getattr(spool, verb)(Filter(states=states), **fields)


@pytest.mark.parametrize(
    "verb", ["cancel_many", "hold_many", "release_many", "retry_many", "forget_many", "set_many"]
)
def test_one_id_is_not_several(spool: Spool, verb: str) -> None:
    """Its letters would be taken for ids."""
    before = spool.counts()
    with pytest.raises(TypeError, match="several ids or a Filter"):
        getattr(spool, verb)("held")
    with pytest.raises(TypeError, match="not both"):
        getattr(spool, verb)(["held"], where=Filter())
    assert getattr(spool, verb)([]) == getattr(spool, verb)(Filter(tags="nobody")) == {}
    assert spool.counts() == before
