"""Workers in containers: what cannot be seen is not called gone, and process 1 reaps what jobs leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool
from queuectl.control import registry
from queuectl.system.process import ProcessIdentity, pid_namespace

from support import finished, run_cli, wait_until, where_is, with_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def container(spool_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`queuectl ARGS` as process 1 of a PID namespace of its own."""
    if (
        not shutil.which("unshare")
        or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this user may not make a PID namespace here")
    made: list[subprocess.Popen[str]] = []

    def run(*args: str) -> subprocess.Popen[str]:
        words = [*UNSHARE, sys.executable, "-u", "-m", "queuectl", "--spool", str(spool_dir), *args]
        made.append(subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return made[-1]

    yield run
    for process in made:
        process.kill()
        process.communicate()


def test_process_of_another_namespace_is_neither_alive_nor_gone() -> None:
    """There its number means nothing here, or another process."""
    me = ProcessIdentity.mine()
    if not me.namespace:
        pytest.skip("this system has no PID namespaces")
    other = with_fields(me, namespace="pid:[1]")

    assert (me.is_visible, me.is_running(), me.is_gone()) == (True, True, False)
    assert (other.is_visible, other.is_running(), other.is_gone()) == (False, False, False)
    assert not other.send(0)
    assert with_fields(other, boot="another").is_gone()
    assert me.namespace == pid_namespace()


def test_worker_in_a_container_is_listed_and_stopped_from_outside(
    spool_dir: Path, cli: Cli, container: Callable[..., subprocess.Popen[str]]
) -> None:
    """A deploy script believed "No workers to stop", while the workers were told to stop."""
    spool = Spool(spool_dir)
    spool.enqueue('touch "$HOME/begun"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done', id="long", timeout=0)
    worker = container("worker", "start", "--foreground")
    wait_until((spool_dir.parent / "home" / "begun").exists)

    [info] = spool.workers()
    assert (info.elsewhere, info.job_id) == (True, "long")
    assert registry.orphaned_runs(spool.layout) == []
    assert "which is gone" not in cli("status", "--json").stdout
    assert "in another container" in cli("worker", "list").stdout
    stopping = cli("worker", "stop", "--timeout", "0", expect=1)
    assert stopping.stderr.startswith("error: still running: worker-0 (job long")
    (spool_dir.parent / "home" / "go").touch()
    assert cli("worker", "stop", expect=0).stdout in ("Stopped 1 worker(s)\n", "No workers to stop\n")
    assert worker.wait(15) == 0
    assert where_is(spool_dir, "long") == ["done"]


def test_as_process_1_it_reaps_what_a_job_leaves_behind(
    spool_dir: Path, container: Callable[..., subprocess.Popen[str]]
) -> None:
    """Each job with a background child would leave a zombie, until no process can be started any more."""
    spool = Spool(spool_dir)
    for number in range(5):
        spool.enqueue("sleep 0.05 >/dev/null 2>&1 & exit 0", id=f"job{number}")
    worker = container("worker", "start", "--foreground")
    wait_until(lambda: finished(spool_dir, *(f"job{number}" for number in range(5))))

    def left() -> int:
        [first] = psutil.Process(worker.pid).children()
        return len(first.children(recursive=True))  # zombies are among them

    wait_until(lambda: left() == 1)  # the process that starts the jobs
    [first] = psutil.Process(worker.pid).children()
    first.send_signal(signal.SIGTERM)  # as `docker stop` does
    assert worker.wait(15) == 0


def test_record_names_the_namespace(spool_dir: Path, workers: Callable[..., object]) -> None:
    """Without it nobody outside could know that the number is another one there."""
    workers(1)
    record = json.loads((spool_dir / "data" / "workers" / "worker-0.json").read_text())
    assert record["pid_namespace"] == pid_namespace()
    run_cli("worker", "stop", expect=0)
    assert os.path.exists(spool_dir / "data" / "workers" / "worker-0.lock")
