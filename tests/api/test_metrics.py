"""Prometheus gets numbers that are true, under names that its conventions allow, and never half a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queuectl import Spool, SpoolError
from queuectl.api import listing

from support import JOB_FOLDERS, claim_job, drain, drop_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

BASE_UNITS = ("_seconds", "_bytes", "_info")


def values(text: str) -> dict[str, float]:
    """Each sample as it is written, without its blanks."""
    found = re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, flags=re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.fixture
def mixed(spool_dir: Path) -> Spool:
    """A spool with jobs in every state but processing."""
    spool = Spool(spool_dir)
    for code in (0, 3, 3):
        spool.enqueue(f"exit {code}", max_retries=1)
    spool.enqueue("exit 1", max_retries=2, backoff_base=1000)
    drain(spool_dir)
    drop_bytes(spool_dir, "bad.json", b"{", "dead")
    spool.enqueue("true")
    spool.enqueue("true", delay="1h")
    spool.enqueue("true", hold=True)
    return spool


def test_numbers_are_those_of_the_spool(mixed: Spool, spool_dir: Path) -> None:
    """By state, by what they wait for, dead ones by exit code."""
    told = values(mixed.metrics())

    states = {"pending": 3, "processing": 0, "completed": 1, "failed": 1, "dead": 3}
    assert {name: told[f'queuectl_jobs{{state="{name}"}}'] for name in states} == states
    waits = {"worker": 1, "run_at": 1, "retry": 1, "release": 1}
    assert {name: told[f'queuectl_jobs_waiting{{for="{name}"}}'] for name in waits} == waits
    dead = {"3": 2, "": 1}
    assert {code: told[f'queuectl_jobs_dead{{exit_code="{code}"}}'] for code in dead} == dead
    assert abs(told["queuectl_jobs_last_end_timestamp_seconds"] - time.time()) < 60
    files = [path for folder in JOB_FOLDERS for path in (spool_dir / folder).glob("*.json")]
    assert told["queuectl_job_files_bytes"] == sum(path.stat().st_size for path in files)


def test_a_job_that_waits_for_its_unique_key_is_not_held(spool_dir: Path) -> None:
    """An alarm about held jobs must not go off for it, and the next jobs include it."""
    spool = Spool(spool_dir)
    for name in ("runs", "waits"):
        spool.enqueue("true", id=name, unique="k", if_exists="queue")
    (spool_dir / "processing" / "worker-0").mkdir()
    for name in ("runs", "waits"):  # the second one is found to have to wait
        claim_job(spool._storage, listing.one(spool, name), "worker-0")
    spool.enqueue("true", id="ready")
    spool.enqueue("true", id="later", delay="1h")

    told = values(spool.metrics())

    waits = {"worker": 1, "run_at": 1, "retry": 0, "release": 0, "unique": 1}
    assert {name: told[f'queuectl_jobs_waiting{{for="{name}"}}'] for name in waits} == waits
    assert [row.id for row in spool.next_up(9)] == ["ready", "waits", "later"]


def test_oldest_waiting_job(spool_dir: Path) -> None:
    """Its age counts from when it could run, whatever its priority; without one it is 0."""
    spool = Spool(spool_dir)
    assert values(spool.metrics())["queuectl_jobs_oldest_waiting_seconds"] == 0

    spool.enqueue("true", id="old", priority=1)
    began = time.monotonic()
    spool.enqueue("true", priority=9, run_at=0)
    wait_until(lambda: time.monotonic() > began + 0.3)

    assert 0.3 < values(spool.metrics())["queuectl_jobs_oldest_waiting_seconds"] < 60
    spool.forget("old")
    spool.enqueue("true", delay=1000)
    spool.enqueue("true", hold=True)
    assert 0.3 < values(spool.metrics())["queuectl_jobs_oldest_waiting_seconds"] < 60


def test_workers_and_what_they_run(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """One that runs a job is busy, the other idle; how long the job runs is told."""
    cli("enqueue", "--timeout", "0", f"while [ ! -e '{tmp_path}/go' ]; do sleep 0.05; done", expect=0)
    workers(2)

    def busy() -> dict[str, float]:
        told = values(cli("metrics", expect=0).stdout)
        # Claimed a moment before it starts, a job makes its worker busy and has not run yet.
        has_begun = told['queuectl_workers{state="busy"}'] and told["queuectl_jobs_longest_running_seconds"]
        return told if has_begun else {}

    told = wait_until(busy)
    (tmp_path / "go").touch()

    assert told['queuectl_workers{state="idle"}'] == 1
    assert told["queuectl_jobs_longest_running_seconds"] < 60


def test_conventions(mixed: Spool) -> None:
    """What promtool's lint asks: a prefix, base units, help in sentences, no _total on a gauge, few labels."""
    text = mixed.metrics()
    families = list(text_string_to_metric_families(text))

    assert len(families) > 10
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.type == "gauge"
        assert re.fullmatch(r"queuectl(_[a-z]+)+", family.name)
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_gauge"))
        assert not re.search(r"_(milliseconds|ms|minutes|hours|kilobytes|kb|mb|percent)\b", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.name == family.name
            assert len(sample.labels) <= 1
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels)
    for family in families:
        if "second" in family.documentation.lower() or "size" in family.documentation.lower():
            assert family.name.endswith(BASE_UNITS), family.name
    assert text.endswith("\n")


def test_textfile_is_whole_or_the_old_one(cli: Cli, mixed: Spool, tmp_path: Path) -> None:
    """Written beside and renamed: the collector never reads half, and nothing is left lying about."""
    folder = tmp_path / "collector"
    folder.mkdir()
    target = folder / "queuectl.prom"
    target.write_text("old")
    inode = target.stat().st_ino

    done = cli("metrics", "--textfile", "queuectl.prom", cwd=folder, expect=0)

    assert done.stdout == ""
    assert target.stat().st_ino != inode
    assert values(target.read_text()).keys() == values(mixed.metrics()).keys()
    assert list(folder.iterdir()) == [target]


def test_textfile_that_cannot_be(cli: Cli, mixed: Spool, tmp_path: Path) -> None:
    """A wrong ending would be passed over by the collector in silence; a folder that is not there is told of."""
    assert "end in .prom" in cli("metrics", "--textfile", tmp_path / "queuectl.txt", expect=2).stderr
    refused = cli("metrics", "--textfile", tmp_path / "no" / "queuectl.prom", expect=3)

    assert refused.stderr == f"error: cannot write {tmp_path}/no/queuectl.prom: no such file or directory\n"
    with pytest.raises(SpoolError):
        mixed.metrics(tmp_path / "no" / "queuectl.prom")


def test_json_has_the_same_numbers(cli: Cli, mixed: Spool) -> None:
    """For programs that are not Prometheus."""
    told = json.loads(cli("metrics", "--json", expect=0).stdout)

    assert {"name": "queuectl_jobs", "labels": {"state": "dead"}, "value": 3.0} in told


def test_empty_spool_has_metrics(cli: Cli, spool_dir: Path) -> None:
    """Before the first job there are zeros, not gaps."""
    told = values(cli("metrics", expect=0).stdout)

    assert told['queuectl_jobs{state="pending"}'] == told['queuectl_workers{state="busy"}'] == 0


def test_only_this_command_loads_the_library(spool_dir: Path) -> None:
    """Nobody else pays for prometheus_client."""
    script = "import sys; from queuectl.cli import main; main(['status']); print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False"
