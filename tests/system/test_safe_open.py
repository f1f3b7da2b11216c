"""Files that anybody may have put there: read without being misled or delayed, and known to be written or not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT = 1 << 20
needs_leases = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="leases are Linux's")


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is limited to 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def a_big_file(path: Path) -> None:
    path.write_bytes(b"x" * (LIMIT + 1))


def a_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
    "dangling link": (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
    "link to itself": (lambda path: path.symlink_to(path), "a symbolic link"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "fifo": (os.mkfifo, "a FIFO"),
    "socket": (a_socket, "a socket"),
    "big": (a_big_file, f"too large: {LIMIT + 1} bytes"),
    "sparse": (a_sparse_file, f"too large: {1 << 40} bytes"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """No link is followed, no FIFO waited for, no terabyte read; the text says what it is."""
    make, told = ODD[kind]
    path = tmp_path / "odd"
    make(path)
    began = time.monotonic()
    with pytest.raises(safe_open.NotReadable, match=told):
        safe_open.read_regular(str(path), LIMIT)
    assert time.monotonic() - began < 0.5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(tmp_path: Path) -> None:
    """/dev/zero has no end."""
    path = tmp_path / "zero"
    try:
        os.mknod(path, 0o020600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices may be made here")
    with pytest.raises(safe_open.NotReadable, match="device"):
        safe_open.read_regular(str(path), LIMIT)


def test_exactly_the_limit_may_be_read(tmp_path: Path) -> None:
    """The limit is inclusive, and the status is that of the file that was read."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * LIMIT)
    data, status = safe_open.read_regular(str(path), LIMIT)
    assert len(data) == LIMIT
    assert status.st_ino == path.stat().st_ino


def test_one_byte_more_than_the_limit_is_not_read(tmp_path: Path) -> None:
    """The size alone decides, before anything is read."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(safe_open.NotReadable, match=f"too large: {LIMIT + 1} bytes"):
        safe_open.read_regular(str(path), LIMIT)


def test_a_file_that_grows_while_it_is_read_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size that was read before may have changed."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    real = os.read

    def read(fd: int, count: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"y" * 100)
        return real(fd, count)

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(safe_open.NotReadable, match="too large"):
        safe_open.read_regular(str(path), 150)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Not after success, nor after any refusal."""
    (tmp_path / "good").write_text("x")
    (tmp_path / "fifo").mkdir()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    safe_open.read_regular(str(tmp_path / "good"), LIMIT)
    for name in ("fifo", "good"):
        with pytest.raises(safe_open.NotReadable):
            safe_open.read_regular(str(tmp_path / name), 0)
    safe_open.is_open_for_writing(str(tmp_path / "good"))
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


@needs_leases
def test_a_writer_is_seen_as_long_as_it_writes(tmp_path: Path) -> None:
    """As long as it has the file open, however slowly it writes; a reader does not count."""
    path = tmp_path / "file"
    path.touch()
    assert safe_open.is_open_for_writing(str(path)) is False
    with path.open("rb"):
        assert safe_open.is_open_for_writing(str(path)) is False
    with path.open("ab"):
        assert safe_open.is_open_for_writing(str(path)) is True
    assert safe_open.is_open_for_writing(str(path)) is False
    assert safe_open.is_open_for_writing(str(tmp_path / "gone")) is None


@needs_leases
def test_a_writer_that_comes_while_we_look_does_not_end_us(tmp_path: Path) -> None:
    """The kernel reports a broken lease by SIGIO, which would end the worker."""
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
