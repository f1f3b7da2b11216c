"""One look at all processes finds what belongs to a run, and never leads to a process that came later."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl.system import process_table
from queuectl.system.process import proc_stat, start_time
from queuectl.system.process_table import ProcessTable
from queuectl.system.process_tree import find_tree

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="starts shells")
MARK = "QUEUECTL_TEST_MARK"


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a mark of bytes that are no UTF-8, in a session of its own, and its child `sleep` without the mark."""
    environment = {**os.environ, MARK: "a\udcff=b\n", f"X{MARK}": "other"}
    process = subprocess.Popen(["sh", "-c", "env -i sleep 60; :"], env=environment, start_new_session=True)
    wait_until(lambda: any(one.name() == "sleep" for one in psutil.Process(process.pid).children()))
    yield process
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.parametrize("read", ["as on this system", "with psutil"])
def test_marks_sessions_and_descendants_are_found(
    shell: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The child has cleared its environment: its session and its parent tell whose it is. No part of a value is enough."""
    if read == "with psutil":
        monkeypatch.setattr(process_table, "_read_proc", process_table._read_with_psutil)
    [child] = psutil.Process(shell.pid).children()

    table = ProcessTable()
    assert table.with_marks({MARK: "a\udcff=b\n"}) == {shell.pid}
    assert table.with_marks({MARK: "a\udcff=b\n", f"X{MARK}": "other"}) == {shell.pid}
    for wrong in ({MARK: "a"}, {MARK: "b\n"}, {MARK: "other"}, {MARK: "a\udcff=b\n", "PATH": "none"}, {}):
        assert table.with_marks(wrong) == set()
    assert table.in_session(shell.pid) == {shell.pid, child.pid}
    assert table.with_descendants({shell.pid}) == {shell.pid, child.pid}
    assert [one.pid for one in table.living({shell.pid, child.pid, os.getpid()})] == sorted(
        [shell.pid, child.pid]
    )
    assert set(table.pids()) >= {shell.pid, child.pid, os.getpid()}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each look reads all processes")
def test_the_sessions_of_known_children_are_read_only_when_asked_for(
    shell: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five hundred runs made a look five times as long. What has left the session of its run is found all the same."""
    read: list[int] = []
    real = proc_stat

    def noted(pid: int) -> object:
        read.append(pid)
        return real(pid)

    monkeypatch.setattr(process_table, "proc_stat", noted)
    marks = {MARK: "run"}
    command = "setsid sleep 60 & sleep 60 & exec sleep 60"
    with subprocess.Popen(["sh", "-c", command], env={**os.environ, **marks}, start_new_session=True) as run:
        try:
            wait_until(lambda: len(find_tree(marks)) == 3)
            read.clear()
            table = ProcessTable(leaders=[run.pid, shell.pid])
            assert not {run.pid, shell.pid} & set(read)
            assert len(find_tree(marks, run.pid, table=table)) == 3
            assert run.pid in read
            assert shell.pid not in read
            assert set(table.pids()) >= {shell.pid, run.pid}
        finally:
            for one in find_tree(marks):
                one.kill()


def test_the_dead_are_not_living() -> None:
    """A zombie still has its number, and may be the only link between a run and the children of its children."""
    with subprocess.Popen(["true"]) as process:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        table = ProcessTable()

        assert process.pid not in table.pids()
        assert process.pid in table.with_descendants({os.getpid()})
        assert table.living({process.pid}) == []


def test_a_later_process_of_the_same_number_is_not_taken_for_the_one_seen(
    shell: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the signal a process may end, and its number may go to a stranger."""
    table = ProcessTable()
    seen = start_time(shell.pid) or 0.0
    assert [one.pid for one in table.living({shell.pid})] == [shell.pid]

    monkeypatch.setattr(process_table, "start_time", lambda _: seen + 1)
    assert table.living({shell.pid}) == []
