"""Where jobs run is told in the same words by lists, filters, statistics and records, whatever is out on an engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Spool
from queuectl.api import engines
from queuectl.cli.base import Session
from queuectl.cli.commands.pause import _report_running
from queuectl.config import queue_file
from queuectl.config.change import set_value
from queuectl.control import dispatched, registry
from queuectl.control.dispatched import RunThere, WaitThere
from queuectl.errors import StillUnderWay
from queuectl.layout import Layout

import support

if TYPE_CHECKING:
    from pathlib import Path

HERE = ("local", None, None, None)


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """One job of each kind: it waits, is out, or is over, on a cluster and here."""
    layout = Layout(spool_dir)
    layout.create()
    set_value(layout, "slurm_dir", "/tmp")
    queue_file.change(layout, "train", {"engine": "slurm"})
    made = Spool(spool_dir)
    made.enqueue("true", id="waits-here")
    for job_id in ("waits", "runs", "queued", "new"):
        made.enqueue("true", id=job_id, queue="train")
    claims = spool_dir / "processing" / "slurm"
    claims.mkdir(mode=0o700)
    for job_id in ("runs", "queued", "new"):
        assert support.claim_job(made._storage, made._find(job_id), "slurm")
    over = {"command": "true", "history": [], "exit_code": 0, "finished_at": "2026-11-30T10:00:00Z"}
    for job_id, worker, queue in (
        ("was-there", "slurm/n2.lab", None), ("was-here", "worker-0", "train"), ("never-ran", None, "train"),
    ):  # fmt: skip
        job = {
            **over,
            "id": job_id,
            **({"worker": worker} if worker else {}),
            **({"queue": queue} if queue else {}),
        }
        support.drop_bytes(spool_dir, f"{job_id}.json", json.dumps(job).encode(), folder="dead")
    dispatched.write(layout, "slurm", {"runs": RunThere("n1", "7", "/share/0.out", 1.0)})
    dispatched.write_waiting(layout, "slurm", [(WaitThere("8", "QOSMaxCpuPerUserLimit"), ["queued", "runs"])])
    return made


def test_each_job_is_where_it_runs_has_run_or_will_run(spool: Spool) -> None:
    """Also one that has run here before its queue went to the cluster."""
    found = {row.id: (row.engine, row.engine_id, row.node, row.engine_reason) for row in spool.list()}

    assert found == {
        "waits-here": HERE, "was-here": HERE,
        "waits": ("slurm", None, None, None), "never-ran": ("slurm", None, None, None),
        "runs": ("slurm", "7", "n1", None), "queued": ("slurm", "8", None, "QOSMaxCpuPerUserLimit"),
        "new": ("slurm", None, None, None), "was-there": ("slurm", None, "n2.lab", None),
    }  # fmt: skip


def test_a_filter_selects_what_the_rows_say(spool: Spool, spool_dir: Path) -> None:
    """In lists, in pages, and after the settings send all other queues there."""
    for name in ("local", "slurm"):
        expected = {row.id for row in spool.list() if row.engine == name}
        assert {row.id for row in spool.list(where=Filter(engines=name))} == expected
        assert {row.id for row in spool.page(Filter(engines=[name])).rows} == expected
    assert len(spool.list(where=Filter(engines=("local", "slurm")))) == 8
    set_value(Layout(spool_dir), "engine", "slurm")
    assert [row.id for row in spool.list(where=Filter(engines="local"))] == ["was-here"]
    with pytest.raises(ValueError, match="'cloud' is not one of local, slurm"):
        Filter(engines="cloud")


def test_a_filter_works_when_the_index_was_opened_anew(spool: Spool) -> None:
    """A connection does not know where queues have their jobs run."""
    where = Filter(engines="slurm", states="pending")
    assert [row.id for row in spool.list(where=where)] == ["waits"]
    spool.close()
    assert [row.id for row in spool.list(where=where)] == ["waits"]


def test_statistics_are_by_engine(spool: Spool) -> None:
    groups = spool.stats(by="engine").groups
    assert {name: tally.dead for name, tally in groups.items()} == {"slurm": 2, "local": 1}
    assert spool.stats(Filter(engines="local")).all.dead == 1


def test_metrics_tell_what_is_out_there(spool: Spool) -> None:
    """A job that runs by now is not among those that wait, although the engine was asked before."""
    told = spool.metrics()
    assert 'queuectl_engine_jobs{engine="slurm",state="running"} 1.0\n' in told
    assert 'queuectl_engine_jobs{engine="slurm",state="waiting"} 2.0\n' in told
    assert 'queuectl_engine_jobs_waiting{engine="slurm",reason="QOSMaxCpuPerUserLimit"} 1.0\n' in told
    assert 'queuectl_dispatcher_up{engine="slurm"} 0.0\n' in told


@pytest.mark.parametrize(
    "text", ["[]", '{"waiting": 3}', '{"waiting": [[1, "a", []], "x", ["7", "a", [1]]]}']
)
def test_whatever_is_in_the_file_of_reasons_is_read_with_care(
    spool: Spool, spool_dir: Path, text: str
) -> None:
    (spool_dir / "data" / "workers" / "slurm.waiting").write_text(text)
    assert dispatched.read_waiting(Layout(spool_dir), "slurm") == {}
    assert spool.row("queued").engine == "slurm"


def test_very_many_jobs_fit_into_the_files(spool_dir: Path) -> None:
    """A record has a few hundred bytes. These have as many as there are jobs out."""
    layout = Layout(spool_dir)
    layout.create()
    runs = {f"job-{number}": RunThere("n1", "7", "/share/" + "x" * 60, 1.0) for number in range(12_000)}
    dispatched.write(layout, "slurm", runs)
    assert (spool_dir / "data" / "workers" / "slurm.running").stat().st_size > registry.READ_LIMIT
    assert len(dispatched.read(layout, "slurm")) == 12_000


def test_who_waits_for_a_job_is_told_why_it_waits_there(spool: Spool) -> None:
    """But not of what is usual on a full cluster; and who waits for jobs of this machine is told of its workers."""
    dispatcher = registry.WorkerInfo("slurm", 1, 1.0, "program", (), False, None)
    assert engines.of_all(spool, ["queued", "waits"]) == "slurm"
    assert engines.of_all(spool, ["queued", "waits-here"]) is None
    assert engines.of_all(spool, ["waits-here"]) == "local"
    assert (
        engines.obstacle(spool, "slurm", ["queued"], [dispatcher])
        == "it waits in slurm: QOSMaxCpuPerUserLimit"
    )
    assert engines.obstacle(spool, "slurm", ["queued"], []) == (
        "no dispatcher of slurm runs: queuectl worker start --engine slurm"
    )
    assert engines.obstacle(spool, "slurm", ["runs"], [dispatcher]) is None
    assert spool.why_waiting("waits") == ["no dispatcher of slurm runs"]
    assert spool.why_waiting("waits-here") == ["no worker runs"]


def test_a_drain_says_that_nobody_collects(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """It would wait for ever: the jobs end on the cluster, and nobody records it."""
    with pytest.raises(
        StillUnderWay, match="the spool stays paused, and no dispatcher of slurm runs"
    ) as caught:
        spool.drain(timeout=0)
    assert caught.value.hint == "queuectl worker start --engine slurm"
    session = Session()
    session.root = spool.layout.root
    _report_running(session, ["runs"])
    told = "waiting for runs, and no dispatcher runs: queuectl worker start --engine slurm\n"
    assert capsys.readouterr().err == told
