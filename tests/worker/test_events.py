"""A program that runs a worker is told of each run, and can do no harm by what it does then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import JobEvent, Spool, Worker

import support

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_run_is_told_with_its_job(spool_dir: Path) -> None:
    """Short jobs are settled several at a time; each has its start before its end."""
    spool = Spool(spool_dir)
    spool.enqueue_many({"command": "true", "id": f"j{n}"} for n in range(20))
    spool.enqueue("exit 3", id="fails", max_retries=2)
    spool.enqueue("exit 4", id="dies", max_retries=1)
    spool.enqueue("/no/such/program", id="odd", max_retries=1)
    told: list[JobEvent] = []
    Worker(spool_dir, drain=True, on_event=told.append).run()

    kinds: dict[str, list[str]] = {}
    for event in told:
        kinds.setdefault(event.job.id, []).append(f"{event.kind} {event.job.state}")
    well = ["started processing", "ended completed"]
    assert kinds == {
        **{f"j{n}": well for n in range(20)},
        "fails": [well[0], "ended failed"],
        "dies": [well[0], "ended dead"],
        "odd": [well[0], "ended dead"],
    }
    ends = {event.job.id: event.job for event in told if event.kind == "ended"}
    assert (ends["dies"].exit_code, ends["dies"].last_error, ends["j0"].worker) == (
        4,
        "Exit code 4",
        "worker-0",
    )
    assert ends["j0"].to_dict() == spool.get("j0").to_dict()


def test_what_the_function_does_touches_no_job(spool_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It raises, and it changes the job that it was given."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", on_crash="dead")
    spool.enqueue("true", id="b")

    def spoil(event: JobEvent) -> None:
        event.job.id, event.job.command = "other", "rm -rf /"
        raise RuntimeError("the program is wrong")

    assert Worker(spool_dir, drain=True, on_event=spoil).run() == 2
    assert [support.load(spool_dir / "done" / f"{name}.json")["command"] for name in "ab"] == ["true"] * 2
    assert caplog.text.count("has raised") == 1


def test_a_stopped_worker_stays_stopped(spool_dir: Path) -> None:
    """The stop may come before the run, from a signal: it must not be lost."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Worker(spool_dir, drain=True)
    worker.stop()

    assert (worker.run(), worker.run()) == (0, 0)
    assert support.where_is(spool_dir, "a") == ["pending"]
    assert Worker(spool_dir, drain=True).run() == 1
