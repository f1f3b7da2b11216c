"""A job whose folder lies on a mount that does not answer: the job hangs, and its worker does not."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Worker
from queuectl.executor.local import LocalRunner
from queuectl.system import mounts
from queuectl.system.mounts import HangingMounts, leads_into

import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the table of mounts of Linux")
_DETACH = 2


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A mounted filesystem whose program never answers."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount a filesystem that hangs")
    folder = tmp_path / "hung"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    how = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"none", os.fsencode(folder), b"fuse", 0, how):
            pytest.skip("nothing can be mounted here")
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), _DETACH)
        os.close(server)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("how", ["folder", "link to it", "program", "listed program", "path"])
def test_a_hung_mount_holds_up_the_job_and_not_its_worker(
    spool_dir: Path, hung: Path, monkeypatch: pytest.MonkeyPatch, how: str, *, fast: bool
) -> None:
    """The timeout ends the job, and the next one runs."""
    monkeypatch.chdir("/")
    (hung.parent / "link").symlink_to(hung)
    kinds: dict[str, dict[str, Any]] = {
        "folder": {"command": "true", "cwd": str(hung)},
        "link to it": {"command": ["true"], "cwd": f"{hung.parent}/link/deep"},
        "program": {"command": f"{hung}/tool a"},
        "listed program": {"command": [f"{hung}/tool"]},
        "path": {"command": ["tool"], "env": {"PATH": f"{hung}:/usr/bin:/bin"}},
    }
    support.drop(spool_dir, "a", priority=9, timeout=0.3, max_retries=1, **kinds[how])
    support.drop(spool_dir, "b", command="true")
    (spool_dir / "config.yaml").write_text("kill_grace: 0.2\n")
    spool_dir.chmod(0o700)
    began = time.monotonic()

    Worker(spool_dir, drain=True, runner=LocalRunner(may_chdir=fast)).run()

    assert time.monotonic() - began < 20
    assert support.load(spool_dir / "dead" / "a.json")["last_error"] == "Timeout exceeded (0.3s)"
    assert support.where_is(spool_dir, "b") == ["done"]


def test_a_job_enters_such_a_folder_itself_with_everything_as_usual(
    spool_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output, exit codes and PWD are the same; a folder that is not there is a job that cannot start."""
    here = tmp_path / "share"
    here.mkdir()
    monkeypatch.setattr(mounts, "hanging_points", lambda: {str(here)})
    support.drop(spool_dir, "a", command="pwd; echo $PWD; exit 3", cwd=str(here), max_retries=1)
    support.drop(spool_dir, "b", command=["sh", "-c", "pwd; exit 125"], cwd=str(here), max_retries=1)
    support.drop(spool_dir, "c", command="touch ran", cwd=f"{here}/gone", max_retries=1)

    support.drain(spool_dir)

    a, b, c = (support.load(spool_dir / "dead" / f"{name}.json") for name in "abc")
    assert (a["output"], a["last_error"]) == (f"{here}\n{here}\n", "Exit code 3")
    assert (b["output"], b["last_error"]) == (f"{here}\n", "Exit code 125")
    assert c["last_error"] == f"Cannot start: the folder {here}/gone cannot be entered"
    assert (c["history"][0]["outcome"], c.get("exit_code")) == ("not_started", None)


def test_a_path_is_followed_without_a_look_behind_the_mount(tmp_path: Path) -> None:
    """By links, relative ones and through dots; a neighbour with a longer name is another folder."""
    (tmp_path / "far").symlink_to("a/../mnt")
    (tmp_path / "loop").symlink_to("loop")
    points = {str(tmp_path / "mnt")}

    answers = {
        name: leads_into(f"{tmp_path}/{name}", points)
        for name in ("mnt", "mnt/x/y", "far/x", "mnt2", "a/../mnt/x", "loop", ".")
    }

    assert [name for name, into in answers.items() if into] == ["mnt", "mnt/x/y", "far/x", "a/../mnt/x"]


def test_an_answer_is_remembered_for_a_second_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted later is known then."""
    asked: list[int] = []

    def points() -> set[str]:
        asked.append(1)
        return {"/mnt"} if len(asked) > 1 else {"/media"}

    monkeypatch.setattr(mounts, "hanging_points", points)
    moments = iter([10.0, 10.5, 11.1])
    monkeypatch.setattr("queuectl.system.mounts.time.monotonic", lambda: next(moments))
    table = HangingMounts()

    assert [table.hold("/mnt/x") for _ in range(3)] == [False, False, True]
    assert len(asked) == 2
