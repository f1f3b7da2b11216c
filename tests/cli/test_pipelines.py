"""Jobs of one input that wait for each other: `enqueue --file`, also from a pipe, under new ids each day."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api.spool_enqueue import BATCH
from queuectl.errors import DuplicateId, NeverStarts

import support
from support import load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

DAG = """
- {id: mail, command: 'true', after_failure: [load, other]}
- {id: extract, command: 'true'}
- {id: load, command: 'true', after: [extract, 'batch:parts=0']}
- {id: tidy, command: 'true', after_any: load}
"""


def lines(*jobs: dict[str, Any]) -> str:
    """Jobs as JSON, one on each line."""
    return "".join(f"{json.dumps({'command': 'true', **job})}\n" for job in jobs)


def test_a_pipeline_is_queued_under_new_ids_each_day(spool_dir: Path, cli: Cli, tmp_path: Path) -> None:
    """The prefix goes before the ids of the file wherever they stand, and before nothing else."""
    cli("enqueue", "--id", "other", "true", expect=0)
    (tmp_path / "dag.yaml").write_text(DAG)
    for day in ("mon-", "tue-"):
        cli("enqueue", "--file", str(tmp_path / "dag.yaml"), "--prefix", day, "--batch", day, expect=0)
        found = {name: load(spool_dir / "pending" / f"{day}{name}.json") for name in ("load", "tidy", "mail")}
        assert found["load"]["after"] == [f"{day}extract", "batch:parts=0"]
        assert found["tidy"]["after_any"] == [f"{day}load"]
        assert found["mail"]["after_failure"] == [f"{day}load", "other"]
        assert {one["batch"] for one in found.values()} == {day}
    again = cli("enqueue", "--file", str(tmp_path / "dag.yaml"), "--prefix", "mon-", expect=1).stderr
    assert "job 1: job id 'mon-mail' is taken" in again


def test_a_prefix_works_for_jobs_from_a_pipe(spool_dir: Path, cli: Cli) -> None:
    """A program that writes JSON, one job on each line, may put the child first."""
    jobs = lines({"id": "b", "after": ["a"]}, {"id": "a"}, {})
    told = cli("enqueue", "--file", "-", "--prefix", "x.", stdin=jobs, expect=0).stdout.splitlines()
    assert told[:2] == ["enqueued job x.b", "enqueued job x.a"]
    assert not told[2].startswith("enqueued job x.")
    assert load(spool_dir / "pending" / "x.b.json")["after"] == ["x.a"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["true"], "--prefix works only with --file"),
        (["--file", "-", "--prefix", "-"], "'-a' cannot be an id"),
    ],
)
def test_a_prefix_that_cannot_be_one_is_refused(cli: Cli, flags: list[str], words: str) -> None:
    """Else it would be ignored, or each job refused for itself."""
    assert words in cli("enqueue", "--prefix", "x-", *flags, stdin=lines({"id": "a"}), expect=2).stderr


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"timeout": -1},
            "stdin line 3: invalid job: timeout: must not be negative, not -1; none was queued",
        ),
        ({"id": "a"}, "stdin line 3: job id 'a' is taken: that job is earlier in the same list; none was"),
        ({"needs": {"gpu": 2}}, "stdin line 3: no resource is called gpu; none was queued"),
        ({"after": ["typo"]}, "no job is called typo, so this could never start"),
    ],
)
def test_half_a_pipeline_is_never_queued(spool_dir: Path, cli: Cli, wrong: dict[str, Any], told: str) -> None:
    """The jobs before the wrong one would be in the way when the file has been mended, as their ids would be taken."""
    jobs = lines({"id": "a"}, {"id": "b", "after": ["a"]}, wrong, {"id": "d"})
    assert f"error: {told}" in cli("enqueue", "--file", "-", stdin=jobs, expect=1).stderr
    assert Spool(spool_dir).counts()["pending"] == 0


def test_a_file_that_breaks_off_queues_no_half_of_a_pipeline(
    spool_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    """Its last part was not written, and would have had the job that waits."""
    (tmp_path / "dag.json").write_text(lines({"id": "a"}, {"id": "b"}) + '{"id": "c", "after": ["b"], "comm')
    told = cli("enqueue", "--file", str(tmp_path / "dag.json"), expect=1).stderr
    assert "dag.json line 3: invalid job: not JSON" in told
    assert "; none was queued" in told
    assert not list((spool_dir / "pending").glob("*.json"))


def test_a_pipeline_that_waits_for_a_skipped_job_says_so(cli: Cli) -> None:
    """The rest of it is queued, and blocked for ever: a unique key is taken by a job of yesterday."""
    cli("enqueue", "--unique", "k", "true", expect=0)
    jobs = lines({"id": "c", "after": "b"}, {"id": "b", "unique": "k"}, {"id": "a", "unique": "k"})
    told = cli("enqueue", "--file", "-", stdin=jobs, expect=0)
    assert told.stdout.splitlines()[0] == "enqueued job c"
    assert told.stderr == "note: others of these jobs wait for skipped ones: b; queuectl list --blocked\n"


def test_a_ring_is_told_from_its_first_job_on(spool_dir: Path, cli: Cli) -> None:
    """The order of the file is the order in which its author looks for the mistake."""
    jobs = lines({"id": "extract", "after": ["load"]}, {"id": "load", "after": ["extract"]}, {"id": "other"})
    told = cli("enqueue", "--file", "-", stdin=jobs, expect=1).stderr
    assert told.splitlines()[0] == "error: extract waits for itself: extract, load, extract"
    assert not list((spool_dir / "pending").glob("*.json"))


def test_a_ring_of_very_many_jobs_is_told_in_one_line(spool_dir: Path) -> None:
    """Each waits for the next one, and the last for the first: the whole list would fill the screen for minutes."""
    jobs = [
        {"id": f"j{number}", "command": "true", "after": [f"j{(number + 1) % 500}"]} for number in range(500)
    ]
    with pytest.raises(NeverStarts) as caught:
        Spool(spool_dir).enqueue_many(jobs)
    way = str(caught.value).partition("j0 waits for itself: ")[2].split(", ")
    assert (way[:2], way[10], way[-2:], len(way)) == (["j0", "j1"], "481 more", ["j499", "j0"], 21)


def test_a_ring_through_a_batch_is_refused(spool_dir: Path) -> None:
    """A part that waits for the join of its own batch would wait for ever, and nobody would be told."""
    jobs: list[dict[str, Any]] = [
        {"id": "part", "command": "true", "batch": "x", "after": ["join"]},
        {"command": "true", "batch": "x"},
        {"id": "join", "command": "true", "batch": "x", "after": ["batch:x"]},
    ]
    with pytest.raises(NeverStarts, match="part waits for itself: part, join, batch:x, part"):
        Spool(spool_dir).enqueue_many(jobs)


def test_a_ring_through_a_job_of_the_spool_is_refused(spool_dir: Path) -> None:
    """A dropped file waits for a job that has not come yet. The list that brings it may not close a ring."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="root")
    support.drop(spool_dir, "there", command="true", after=["b"])
    spool.refresh()
    jobs: list[dict[str, Any]] = [
        {"id": "a", "command": "true", "after": ["there"]},
        {"id": "b", "command": "true", "after": ["a"]},
    ]
    with pytest.raises(NeverStarts, match="a waits for itself: a, there, b, a"):
        spool.enqueue_many(jobs)
    assert [row.id for row in spool.list()] == ["root", "there"]


def test_a_long_list_is_checked_to_its_end(spool_dir: Path, cli: Cli, tmp_path: Path) -> None:
    """Its first jobs wait for nothing and fill a batch of their own. The last one of the list is wrong."""
    jobs: list[dict[str, Any]] = [{"id": f"p{number}"} for number in range(BATCH + 1)]
    jobs += [{"id": "a", "after": ["b"]}, {"id": "b", "after": ["p1", "a"]}]
    (tmp_path / "dag.json").write_text(lines(*jobs))
    told = cli("enqueue", "--file", str(tmp_path / "dag.json"), expect=1).stderr
    assert told.splitlines()[0] == "error: a waits for itself: a, b, a"
    spool = Spool(spool_dir)
    with pytest.raises(NeverStarts):
        spool.enqueue_many([{"command": "true", **job} for job in jobs])
    assert spool.counts()["pending"] == 0


def test_a_stream_is_checked_from_its_first_condition_on(spool_dir: Path) -> None:
    """It may never end, so what came long before is queued. Of the batch in hand nothing is, if it is wrong."""
    spool = Spool(spool_dir)
    jobs = [{"id": f"p{number}", "command": "true"} for number in range(BATCH + 5)]
    jobs += [{"id": "child", "command": "true", "after": f"p{number}"} for number in (1, 2)]
    with pytest.raises(DuplicateId) as caught:
        spool.enqueue_many(iter(jobs))
    assert caught.value.position == BATCH + 6  # it has the line, by which the command line names the place
    assert spool.counts()["pending"] == len(caught.value.queued) == BATCH
