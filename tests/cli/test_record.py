"""One record of a job: `list --json`, `show --json`, the job's file and Python have the same names and values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from queuectl import Spool
from queuectl.api import json_view, listing
from queuectl.job import record, times
from queuectl.job.schema import record_schema

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

FULL: dict[str, Any] = {
    "command": ["echo", "a b"],
    "priority": 7,
    "run_at": "2031-01-02T00:00:00Z",
    "timeout": "10m",
    "max_retries": 2,
    "backoff_base": 3,
    "cwd": "/srv",
    "env": {"LANG": "C", "API_TOKEN": "s3cret"},
    "on_crash": "dead",
    "max_backoff": 60,
    "jitter": 0.5,
    "retry_on": [75],
    "give_up_on": [1],
    "expires_at": "2032-01-01T00:00:00Z",
    "tags": ["nightly"],
    "unique": "backup",
    "if_exists": "queue",
    "queue": "mail",
    "needs": {"gpu": 1},
    "owner": "me",
}


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """Jobs in five states: with every field, held, done, failed, dead, and a file that is no job."""
    made = Spool(spool_dir)
    made.layout.create()
    (spool_dir / "config.yaml").write_text("resources: gpu=1\n")
    made.enqueue({**FULL, "id": "full"})
    made.enqueue("true", id="held", hold=True)
    made.enqueue("echo " + "x" * 300, id="done")
    made.enqueue("exit 3", id="failed", max_retries=2)
    made.enqueue("exit 3", id="dead", max_retries=1)
    support.drop_bytes(spool_dir, "odd.json", b'{"command": 5}')
    support.drain(spool_dir)
    return made


def listed(cli: Cli) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in json.loads(cli("list", "--json", expect=0).stdout)}


def shown(cli: Cli, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("show", job_id, "--json", expect=0).stdout)
    return found


def without(names: tuple[str, ...], one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in (*names, "effective_priority")}


def test_list_and_show_print_the_same_record(spool: Spool, cli: Cli) -> None:
    """`list --json` had other names, and no timeout, cwd, env, backoff_base, on_crash, retry_on or expires_at."""
    support.wait_until(lambda: "odd" in listed(cli), message="the end of the file's settle time")
    rows = listed(cli)

    assert set(rows) == {"full", "held", "done", "failed", "dead", "odd"}
    for job_id in ("full", "failed", "odd"):
        assert without((), rows[job_id]) == without(json_view.LONG, shown(cli, job_id))
        assert rows[job_id].keys() | {*json_view.LONG} == shown(cli, job_id).keys()


def test_the_record_says_what_the_file_says(spool: Spool, spool_dir: Path, cli: Cli) -> None:
    """Under the file's names; secrets alone are masked."""
    there = {path.stem: path for path in spool_dir.glob("*/*.json")}
    for job_id in ("full", "held", "done", "failed", "dead"):
        file = support.load(there[job_id])
        found = shown(cli, job_id)
        if job_id == "full":
            assert found["env"] == {"LANG": "C", "API_TOKEN": "***"}
            found["env"] = file["env"]
        assert {name: found[name] for name in file} == file, job_id
        more = {name for name in found.keys() - file.keys() if found[name] not in (None, [], False, 0)}
        assert more - {"effective_priority"} == {"engine"}


def test_python_has_the_record_under_the_same_names(spool: Spool, cli: Cli) -> None:
    """As typed attributes: moments are epoch seconds there."""
    job, found = spool.get("full"), shown(cli, "full")
    for name in record.FIELDS:
        value = getattr(job, name)
        if name in ("run_at", "expires_at", "created_at", "updated_at"):
            value = times.iso(value)
        if name != "env":
            assert found[name] == value, name


def test_the_record_fits_its_schema(spool: Spool, cli: Cli) -> None:
    """`queuectl schema --record` describes every name that is printed, and no other."""
    schema = json.loads(cli("schema", "--record", expect=0).stdout)
    assert schema == record_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    for job_id, one in listed(cli).items():
        judge.validate(one)
        judge.validate(shown(cli, job_id))
    assert shown(cli, "done").keys() == schema["properties"].keys()


def test_a_job_that_is_gone_is_listed_as_the_index_knew_it(spool: Spool) -> None:
    """It is deleted while the list is printed."""
    rows = {row.id: row for row in listing.select(spool)}
    before = json_view.listed(spool, rows["failed"])
    spool.forget("failed")

    known = json_view.listed(spool, rows["failed"])
    assert known.keys() == before.keys()
    for name in (
        "id",
        "state",
        "command",
        "attempts",
        "max_retries",
        "last_error",
        "finished_at",
        "duration",
    ):
        assert known[name] == before[name], name


def test_a_list_of_one_state_has_no_job_that_has_left_it(spool: Spool) -> None:
    """A worker claims one while the list is printed: the file that is read then says another state."""
    kept, claimed = spool.enqueue_many({"command": "true"} for _ in range(2))
    rows = listing.select(spool, "pending")
    spool.cancel(claimed)

    shown = [(one["id"], one["state"]) for one in json_view.of_rows(spool, rows, ("pending",))]
    assert shown == [(row.id, "pending") for row in rows if row.id != claimed]
    assert kept in dict(shown)
    assert {one["state"] for one in json_view.of_rows(spool, rows, ())} > {"dead"}
