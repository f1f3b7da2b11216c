"""A job gets the environment of the worker's caller, and nothing that queuectl needs for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

PROMISED = {
    "QUEUECTL_JOB_ID",
    "QUEUECTL_ATTEMPT",
    "QUEUECTL_MAX_RETRIES",
    "QUEUECTL_SPOOL",
    "QUEUECTL_WORKER",
}


def variables_of_a_job(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> dict[str, str]:
    cli("enqueue", "--id", "job1", "--", "env", "-0", expect=0)
    workers(1)
    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")
    entries = cli("logs", "job1", expect=0).stdout.split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_a_job_gets_the_environment_of_who_started_the_worker(
    spool_dir: Path,
    cli: Callable[..., Any],
    workers: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that queuectl needs for itself, such as where its modules lie, reaches the job's programs."""
    monkeypatch.setenv("FLAVOUR", "two words\nand a line")
    monkeypatch.delenv("PYTHONPATH", raising=False)

    seen = variables_of_a_job(spool_dir, cli, workers)

    assert seen.keys() >= PROMISED
    assert seen["FLAVOUR"] == "two words\nand a line"
    assert "PYTHONPATH" not in seen


def test_a_job_keeps_the_python_path_of_who_started_the_worker(
    spool_dir: Path,
    cli: Callable[..., Any],
    workers: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A PYTHONPATH that is meant for the jobs reaches them unchanged."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert variables_of_a_job(spool_dir, cli, workers)["PYTHONPATH"] == str(tmp_path)
