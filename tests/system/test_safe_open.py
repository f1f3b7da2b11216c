"""Who has a file open for writing: asked without harm to anybody."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl.system import safe_open

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="leases are Linux's")


def test_a_writer_is_seen_as_long_as_it_writes(tmp_path: Path) -> None:
    """However slow it is, and not a moment longer; a reader is no writer."""
    path = tmp_path / "file"
    path.touch()
    assert safe_open.is_open_for_writing(str(path)) is False
    with path.open("rb"):
        assert safe_open.is_open_for_writing(str(path)) is False
    with path.open("ab"):
        assert safe_open.is_open_for_writing(str(path)) is True
    assert safe_open.is_open_for_writing(str(path)) is False
    assert safe_open.is_open_for_writing(str(tmp_path / "gone")) is None


def test_a_writer_that_comes_while_we_look_does_not_end_us(tmp_path: Path) -> None:
    """The kernel tells of a broken lease by SIGIO, which would end the worker."""
    path = tmp_path / "file"
    path.touch()
    look = (
        "import fcntl, os, sys, time\n"
        "from queuectl.system import safe_open\n"
        "real = fcntl.fcntl\n"
        "def slow(fd, what, value=0):\n"
        "    found = real(fd, what, value)\n"
        "    if (what, value) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):\n"
        "        print('leased', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        time.sleep(0.05)\n"
        "    return found\n"
        "fcntl.fcntl = slow\n"
        "print(safe_open.is_open_for_writing(sys.argv[1]))\n"
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", look, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdin
    assert watcher.stdout
    assert watcher.stdout.readline() == "leased\n"
    writer = threading.Thread(target=lambda: path.write_text("x"))
    writer.start()  # blocks until the lease is given up
    rest, _ = watcher.communicate("\n", timeout=20)
    writer.join()
    assert watcher.returncode != -signal.SIGIO
    assert (rest, watcher.returncode) == ("False\n", 0)
    assert path.read_text() == "x"
