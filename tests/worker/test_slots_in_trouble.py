"""What one slot, one disk or one bad job of a worker must not do to the runs beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import gate
import psutil
import pytest
from gate import STARTED, started, worker_process

from queuectl import Spool
from queuectl.control import commands, run_lock

import support
from support import finished, load, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_note_of_ended_runs_hides_no_run_that_goes_on(spool_dir: Path, home: Path) -> None:
    """The worker leaves before it could record one job, and is killed while another one is being ended.

    The note took the place of the other run's file: the job was started again beside its first run.
    """
    layout = Spool(spool_dir).layout
    layout.create()
    (spool_dir / "config.yaml").write_text("kill_grace: 30\n")
    deaf = (
        f'trap "" TERM; {STARTED}; echo $$ >> "$HOME/pids"; while [ ! -e "$HOME/over" ]; do sleep 0.05; done'
    )
    support.drop(spool_dir, "deaf", command=deaf, timeout=0, max_retries=1)
    with worker_process(spool_dir, "-j", "3") as process:
        wait_until(lambda: started(home))
        (spool_dir / "done").rmdir()
        (spool_dir / "done").touch()
        support.drop(spool_dir, "ended", command=STARTED, max_retries=1)
        wait_until(lambda: "ended" in started(home))
        commands.request_stop(layout, "worker-0", force=True)
        wait_until(lambda: (runs := run_lock.read_all(layout, "worker-0")) and runs.ended)
        process.kill()
        process.wait()
        (spool_dir / "done").unlink()
        (spool_dir / "done").mkdir(0o700)
        with worker_process(spool_dir, "-j", "3"):
            wait_until(lambda: started(home)["deaf"] == 2 and finished(spool_dir, "ended"))
            first, second = (home / "pids").read_text().split()
            assert lives(int(second))
            assert not lives(int(first))
            (home / "over").touch()
            wait_until(lambda: finished(spool_dir, "deaf"))
    assert [one["outcome"] for one in load(spool_dir / "done" / "deaf.json")["history"]] == [
        "interrupted",
        "succeeded",
    ]
    assert started(home)["ended"] == 1
    assert [one["outcome"] for one in load(spool_dir / "done" / "ended.json")["history"]] == ["succeeded"]
