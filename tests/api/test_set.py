"""Changing fields of jobs that wait: typed, checked, on many at once, and never of a job that has been taken."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import InvalidJob, KeyTaken, MoveError, Spool

from support import drain, drop, drop_bytes, finished, load, wait_until, where_is

if TYPE_CHECKING:
    import os
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_fields_are_changed_in_the_file(cli: Cli, spool_dir: Path) -> None:
    """Each is read as its type wants it, and written as a job file has it."""
    Spool(spool_dir).enqueue("true", id="a")
    before = time.time()

    done = cli("set", "a", "priority=9", "run_at=+1h", "timeout=10m", "tags=x,y", "max-retries=7", 'env={"A": "b"}',
               "jitter=0.5", "give_up_on=100 101", "command=echo a=b", expect=0)  # fmt: skip

    assert done.stdout == "a: changed\n"
    record = load(spool_dir / "pending" / "a.json")
    job = Spool(spool_dir).get("a")
    assert {name: record[name] for name in ("priority", "timeout", "tags", "max_retries", "env", "jitter")} == {
        "priority": 9, "timeout": 600, "tags": ["x", "y"], "max_retries": 7, "env": {"A": "b"}, "jitter": 0.5,
    }  # fmt: skip
    assert (record["give_up_on"], record["command"]) == ([100, 101], "echo a=b")
    assert before + 3590 < (job.run_at or 0) < time.time() + 3610


def test_field_without_a_value_is_taken_away(cli: Cli, spool_dir: Path) -> None:
    """Then the settings decide, as for a job that never had it; what has no setting is gone."""
    cli("config", "set", "priority", "3", expect=0)
    Spool(spool_dir).enqueue("true", id="a", priority=9, run_at=time.time() + 3600, tags=["x"])

    cli("set", "a", "priority=", "run_at=", "tags=", expect=0)

    record = load(spool_dir / "pending" / "a.json")
    assert record["priority"] == 3
    assert not {"run_at", "tags"} & set(record)
    drain(spool_dir)
    assert where_is(spool_dir, "a") == ["done"]


def test_tags_are_added_and_removed(cli: Cli, spool_dir: Path) -> None:
    """The other tags of each job stay as they are; what is there already, or is not, is no error."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", tags=["x", "y"])
    spool.enqueue("true", id="b")

    cli("set", "a", "b", "tags+=y,z", expect=0)
    assert (spool.get("a").tags, spool.get("b").tags) == (["x", "y", "z"], ["y", "z"])
    told = json.loads(cli("set", "a", "b", "tags-=y,z", "--json", expect=0).stdout)

    assert [one.get("tags") for one in told] == [["x"], None]
    assert "tags" not in load(spool_dir / "pending" / "b.json")
    assert "priority+= is for lists of names only" in cli("set", "a", "priority+=1", expect=2).stderr
    assert "cannot be a tag" in cli("set", "a", "tags+=a b!", expect=2).stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "prio=9"], "no field 'prio'; did you mean priority?"),
        (["a", "priority=11"], "priority: must be 1 to 10, not 11"),
        (["a", "timeout=soon"], "timeout: "),
        (["a", "run_at=+soon"], "run_at: "),
        (["a", "id=b"], "the id of a job cannot be changed"),
        (["a", "state=dead"], "state is written by queuectl"),
        (["a"], "add FIELD=VALUE"),
        (["priority=9"], "name the jobs"),
        (["a", "--all", "priority=9"], "not both"),
        (["--state", "done", "priority=9"], "completed jobs cannot be changed"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(cli: Cli, spool_dir: Path, words: list[str], told: str) -> None:
    """One line says what is wrong, and nothing is changed."""
    Spool(spool_dir).enqueue("true", id="a")
    before = (spool_dir / "pending" / "a.json").read_bytes()

    refused = cli("set", *words, expect=2)

    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (spool_dir / "pending" / "a.json").read_bytes() == before


def test_many_are_changed_by_filters(cli: Cli, spool_dir: Path) -> None:
    """Filters mean waiting jobs; dead ones have to be named, or asked for by their state."""
    spool = Spool(spool_dir)
    for number in range(3):
        spool.enqueue("true", id=f"a{number}", tags=["x"], run_at=time.time() + 3600)
    spool.enqueue("exit 1", id="dead", tags=["x"], max_retries=1)
    spool.enqueue("true", id="done", tags=["x"])
    drain(spool_dir)

    assert cli("set", "--tag", "x", "priority=9", "--dry-run", expect=0).stdout.count("would change") == 3
    told = json.loads(cli("set", "--tag", "x", "priority=9", "--json", expect=0).stdout)
    assert told == [{"id": f"a{number}", "state": "pending", "priority": 9} for number in range(3)]
    assert cli("set", "--all", "priority=8", expect=0).stdout.count("changed") == 3
    assert cli("set", "--state", "dead", "max_retries=2", expect=0).stdout == "dead: changed\n"
    assert load(spool_dir / "dead" / "dead.json")["max_retries"] == 2
    refused = cli("set", "a0", "done", "priority=1", expect=1)
    assert refused.stdout == "a0: changed\n"
    assert "job 'done' is completed and cannot be changed" in refused.stderr


def test_changed_priority_changes_the_order(spool_dir: Path) -> None:
    """The worker goes by what the file says, not by what it said; with the index, and without."""
    spool = Spool(spool_dir)
    for job_id in ("a", "b", "c"):
        spool.enqueue("true", id=job_id)
    spool.set("c", priority=9)
    spool.set("b", priority=8)
    spool._index.close()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()

    said = [line.split()[2] for line in drain(spool_dir) if line.startswith("executing")]

    assert said == ["c:", "b:", "a:"]


def test_running_worker_obeys_at_once(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """A job that waited for tomorrow runs now."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", run_at=time.time() + 86400)
    workers(1)

    spool.set("a", run_at=None)

    wait_until(lambda: finished(spool_dir, "a"), timeout=5)


def test_failed_job_is_tried_again_when_run_at_says(cli: Cli, spool_dir: Path) -> None:
    """What a failed job waits for is its next attempt: run_at moves that, and it stays failed with its attempts."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="a", backoff_base=1000)
    drain(spool_dir)
    assert spool.get("a").state == "failed"

    cli("set", "a", "run_at=+2h", expect=0)
    job = spool.get("a")
    assert (job.state, job.attempts) == ("failed", 1)
    assert time.time() + 7000 < (job.next_retry_at or 0) < time.time() + 7300
    cli("set", "a", "run_at=now", "command=true", expect=0)
    drain(spool_dir)

    assert where_is(spool_dir, "a") == ["done"]
    assert spool.get("a").attempts == 2


def test_running_job_cannot_be_changed(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """What runs is what was read when it was taken."""
    Spool(spool_dir).enqueue("sleep 30", id="a", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "a") == ["processing/worker-0"])

    assert "job 'a' is processing and cannot be changed" in cli("set", "a", "priority=9", expect=1).stderr


def test_python_takes_values_as_a_file_has_them(spool_dir: Path) -> None:
    """The same checks, and the job as it is now."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")

    assert spool.set("a", priority=9, tags=["x"]).priority == 9
    for wrong in ({"priority": 0}, {"prio": 1}, {"id": "b"}, {"state": "dead"}, {"command": None}):
        with pytest.raises(InvalidJob):
            spool.set("a", **wrong)
    assert spool.get("a").priority == 9


def test_dropped_file_keeps_what_it_is(spool_dir: Path) -> None:
    """A field changed in a stranger's file: its other fields stay, and what was settled for it stays settled."""
    spool = Spool(spool_dir)
    drop(spool_dir, "a", command="true", note="mine", timeout=9)
    assert spool.get("a").max_retries == 3
    (spool_dir / "config.yaml").write_text("max_retries: 1\n")

    spool.set("a", priority=2)

    record = load(spool_dir / "pending" / "a.json")
    assert (record["note"], record["timeout"], record["priority"], record["max_retries"]) == ("mine", 9, 2, 3)


def test_rejected_file_is_mended_by_a_field(spool_dir: Path) -> None:
    """A dead file with one wrong value becomes a dead job that can be retried."""
    spool = Spool(spool_dir)
    spool.refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "a.json", b'{"command": "true", "priority": 99}')
    drain(spool_dir)
    assert where_is(spool_dir, "a") == ["dead"]

    spool.set("a", priority=9)
    spool.retry("a")
    drain(spool_dir)

    assert where_is(spool_dir, "a") == ["done"]


def test_unique_key_that_another_job_has_is_refused(spool_dir: Path) -> None:
    """A key is unique in whichever way a job comes by it; its own it may keep."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", unique="k")
    spool.enqueue("true", id="b")

    with pytest.raises(KeyTaken):
        spool.set("b", unique="k")
    assert spool.get("b").unique is None
    assert spool.set("a", unique="k", priority=9).priority == 9
    assert spool.set("b", unique="other").unique == "other"


def test_job_does_not_grow_beyond_what_can_be_read(spool_dir: Path) -> None:
    """What would be buried as too large when it is next read is refused now."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")

    with pytest.raises(InvalidJob, match="too large"):
        spool.set("a", env={"A": "x" * (1 << 20)})

    assert spool.get("a").env is None
    assert list((spool_dir / "tmp").iterdir()) == []


def test_gone_job_is_said_to_be_gone(cli: Cli, spool_dir: Path) -> None:
    """Not found is no traceback."""
    Spool(spool_dir).refresh()

    assert "no job 'a'" in cli("set", "a", "priority=9", expect=1).stderr


def test_job_that_is_taken_meanwhile_is_not_changed(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file manager moves it away between our reading and our writing: refused, and no second one appears."""
    from queuectl.system import files

    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    real = files.write_new

    def write_new(path: str, data: bytes, *, sync: bool) -> os.stat_result:
        (spool_dir / "pending" / "a.json").rename(spool_dir / "dead" / "a.json")
        return real(path, data, sync=sync)

    monkeypatch.setattr(files, "write_new", write_new)
    with pytest.raises(MoveError, match="just been taken"):
        spool.set("a", priority=9)

    assert where_is(spool_dir, "a") == ["dead"]
    assert load(spool_dir / "dead" / "a.json")["priority"] == 5
