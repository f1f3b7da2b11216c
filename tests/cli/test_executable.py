"""The single-file executable built by PyInstaller works like the installed program, without Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import real_slurm
from documents import PAGES

import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., str]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it with the command from the guide."""
    folder = tmp_path_factory.mktemp("build")
    found = re.search(r"^pyinstaller (?:.*\\\n)*.*$", PAGES["service"], flags=re.MULTILINE)
    assert found
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    built = subprocess.run(
        ["bash", "-c", found[0]],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert built.returncode == 0, built.stderr[-4000:]
    return folder / "dist" / "queuectl"


@pytest.fixture
def run(executable: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the executable as a process; return its stdout."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    def call(*args: str) -> str:
        words = [str(executable), *args]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, input="")
        assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    yield call
    support.end_workers(spool_dir)


def test_executable_runs_a_job_with_a_background_worker(run: Run, spool_dir: Path) -> None:
    """Enqueue, start, run and stop with the executable."""
    assert run("enqueue", "--id", "job1", "--command", "echo Hello; env") == "enqueued job job1\n"
    assert "Started 1 worker(s)" in run("worker", "start")

    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")

    assert support.load(spool_dir / "done" / "job1.json")["exit_code"] == 0
    assert run("logs", "job1").startswith("Hello\n")
    assert "Stopped 1 worker(s)" in run("worker", "stop")


def test_jobs_of_the_executable_do_not_inherit_its_libraries(run: Run, spool_dir: Path) -> None:
    """Jobs do not get the executable's own libraries and variables."""
    run("enqueue", "--id", "job1", "--command", "env")
    run("worker", "start")
    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")

    seen = run("logs", "job1")

    assert "QUEUECTL_JOB_ID=job1\n" in seen
    assert [line for line in seen.splitlines() if "_MEI" in line or line.startswith("_PYI")] == []


def test_executable_knows_its_version_and_its_example(run: Run) -> None:
    """Files that are not code are included."""
    assert re.search(r"\d+\.\d+\.\d+", run("--version"))
    assert "second-try" in run("demo")
    assert run("guide", "rules") == PAGES["rules"]


def test_the_executable_serves_the_pages_with_all_that_they_load(
    run: Run, executable: Path, spool_dir: Path
) -> None:
    """Templates, styles and scripts are files beside the code."""
    run("enqueue", "--id", "job1", "--command", "true")
    served = subprocess.Popen([str(executable), "web", "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert served.stderr is not None
    try:
        found = re.search(
            r"(http://\S+)/login\?token=\S+", "".join(served.stderr.readline() for _ in range(2))
        )
        assert found
        visit = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        visit.open(found[0], timeout=30).read()
        page = visit.open(f"{found[1]}/jobs", timeout=30).read().decode()
        assert "job1" in page
        loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
        assert len(loaded) == 5
        assert all(visit.open(found[1] + one, timeout=30).read() for one in loaded)
    finally:
        served.terminate()
        served.wait(timeout=30)
        served.stderr.close()


def test_workers_of_the_executable_outlive_the_command_that_started_them(run: Run, spool_dir: Path) -> None:
    """Workers keep working after the command that started them has deleted its unpacked files."""
    run("worker", "start")
    (worker,) = json.loads(run("worker", "list", "--json"))

    maps = Path(f"/proc/{worker['pid']}/maps").read_text(encoding="utf-8").splitlines()
    unpacked = {line.partition("/")[2] for line in maps if "/_MEI" in line}

    assert unpacked
    assert [path for path in unpacked if not Path("/", path).exists()] == []
    run("enqueue", "--id", "late", "--command", "true")
    support.wait_until(lambda: support.finished(spool_dir, "late"), message="the late job to end")


def test_the_executable_hands_jobs_to_a_cluster(
    run: Run, tmp_path: Path, executable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the source of the script for nodes, where another Python reads it."""
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/bin")
    share = tmp_path / "share"
    share.mkdir(mode=0o700)
    run("config", "set", "slurm_dir", str(share))
    with real_slurm.started(tmp_path / "c"):
        words = [str(executable), "engine", "check"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=90, input="")
    assert re.search(r"^the default partition: probe ran on n[123] after ", done.stdout, re.MULTILINE), done
    assert "queuectl/engine" not in done.stderr
