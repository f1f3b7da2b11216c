"""A folder that takes no renames is found before the first job; a worker that meets one can be stopped and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import faults
import pytest

from queuectl import Spool, Worker
from queuectl.control import mounts, run_lock
from queuectl.layout import FOLDERS, Layout
from queuectl.storage import orphaned_runs
from queuectl.system import files

from support import content, drain, where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and marks as Linux has them")

NAMES = [*FOLDERS, "processing/worker-7"]

TRY_EACH = """
import json, subprocess, sys
from queuectl import Worker
from queuectl.api import status
from queuectl.config.settings import Settings
from queuectl.control import mounts
from queuectl.doctor import doctor
from queuectl.errors import WorkerError
from queuectl.layout import Layout
layout = Layout(sys.argv[1])
for name in sys.argv[3:]:
    path = f"{layout.root}/{name}"
    if sys.argv[2] == "bind":
        subprocess.run(["mount", "--bind", path, path], check=True)
    else:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", path], check=True)
        if name == "data":
            subprocess.run(["mkdir", "-m", "700", f"{path}/workers"], check=True)
    try:
        Worker(layout.root).check()
        refused = ""
    except WorkerError as error:
        refused = error.message
    found = [one.fact for one in doctor.examine(layout) if one.kind == "device"] if name == "done" else None
    print(json.dumps([name, refused, mounts.obstacle(layout), status.start_obstacle(layout, Settings()), found]))
    subprocess.run(["umount", path], check=True)
"""


@pytest.mark.parametrize("how", ["bind", "tmpfs"])
def test_a_folder_mounted_on_its_own_is_refused_by_all_in_one_sentence(spool_dir: Path, how: str) -> None:
    """Workers started, ran each job, could not record it, and ran it again until it was dead. Each folder."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        faults.must_not_skip("unshare --mount is not allowed here")
    Spool(spool_dir).enqueue("true", id="a")
    (spool_dir / "processing" / "worker-7").mkdir(mode=0o700)
    before = content(spool_dir / "done")
    command = ["unshare", "--mount", sys.executable, "-c", TRY_EACH, str(spool_dir), how, *NAMES]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    answers = [json.loads(line) for line in told.splitlines()]
    assert [answer[0] for answer in answers] == NAMES
    for name, refused, obstacle, blocked, found in answers:
        fact = f"{name}/ is on another filesystem than the spool, or a mount of its own"
        assert f"cannot run jobs of {spool_dir}: {fact}" in refused
        assert obstacle.startswith(fact)
        assert blocked == f"workers start nothing: {obstacle}"
        assert name != "done" or any(one.startswith(fact) for one in found)
    assert mounts.obstacle(Layout(spool_dir)) is None
    assert content(spool_dir / "done") == before


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EROFS], ids=errno.errorcode.get)
def test_a_worker_that_can_record_nothing_stops_when_asked(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It was deaf to TERM, and after each KILL the job ran again. What has ended is known to the next worker."""
    spool = Spool(spool_dir)
    spool.enqueue(f"echo ran >> {spool_dir}.runs", id="a")
    move = files.move_to_free_name

    def refuse(source: str, folder: str, name: str) -> str:
        if folder.endswith("done"):
            raise OSError(code, os.strerror(code), source)
        return move(source, folder, name)

    def stop_when_refused(line: str) -> None:
        if "cannot record the outcome of a" in line:
            worker.stop()

    monkeypatch.setattr(files, "move_to_free_name", refuse)
    worker = Worker(spool_dir, say=stop_when_refused)
    worker.run()
    assert where_is(spool_dir, "a") == ["processing/worker-0"]
    monkeypatch.undo()
    drain(spool_dir)
    assert where_is(spool_dir, "a") == ["done"]
    assert (spool_dir.parent / f"{spool_dir.name}.runs").read_text() == "ran\n"


def test_a_full_disk_is_waited_for(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It will have space again: a graceful stop waits for it, and the outcome is recorded."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    move, refusals = files.move_to_free_name, [errno.ENOSPC]

    def refuse_once(source: str, folder: str, name: str) -> str:
        if folder.endswith("done") and refusals:
            raise OSError(refusals.pop(), "no space", source)
        return move(source, folder, name)

    def stop_when_refused(line: str) -> None:
        if "cannot record the outcome of a" in line:
            worker.stop()

    monkeypatch.setattr(files, "move_to_free_name", refuse_once)
    worker = Worker(spool_dir, say=stop_when_refused)
    worker.run()
    assert where_is(spool_dir, "a") == ["done"]


def test_a_run_is_known_by_whatever_path_the_spool_is_reached(spool_dir: Path, tmp_path: Path) -> None:
    """A job ran twice side by side: its worker died, and the next one had the spool by another path."""
    job = Spool(spool_dir).enqueue("true", id="a")
    link = tmp_path / "link"
    link.symlink_to(spool_dir)
    marks: dict[str, Any] = run_lock.marks(Layout(spool_dir), job, "worker-9")
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **marks}, start_new_session=True) as process:
        assert orphaned_runs.end_run(Layout(link), job, "worker-9", None)
        assert process.wait(10) < 0
    assert Layout(link).identity == Layout(spool_dir).identity
