"""What the fault tests share: moves that meet a fault at a given system call, disks to cut, and what must hold."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import support
from support import JOB_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def must_not_skip(reason: str) -> None:
    """Skip, or fail where QUEUECTL_MUST_MOUNT says that this machine can do it."""
    if os.environ.get("QUEUECTL_MUST_MOUNT"):
        pytest.fail(f"{reason}, and QUEUECTL_MUST_MOUNT is set")
    pytest.skip(reason)


class Server:
    """A process that has everything imported, and forks one child per move; see fault_server.py."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("fault_server.py"))
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._live: set[int] = set()
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "strace")

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline() or "null")
        assert isinstance(reply, dict), "the server has died"
        return reply

    def boot(self, name: str) -> None:
        """Have the machine look booted anew."""
        self._ask(do="boot", boot=name)

    def fork(self, spool: Path, move: str, **request: Any) -> int:
        """Make a child that waits for its sign; returns its pid."""
        pid = self._ask(do="fork", spool=str(spool), move=move, **request)["pid"]
        self._live.add(pid)
        assert isinstance(pid, int)
        return pid

    def go(self, pid: int) -> None:
        """Let it move."""
        self._ask(do="go", pid=pid)

    def end(self, pid: int) -> dict[str, Any]:
        """Wait for its end: killed, and what it answered before it ended."""
        self._live.discard(pid)
        return self._ask(do="wait", pid=pid)

    def kill(self, *pids: int) -> None:
        """End children that go on by themselves."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            self.end(pid)

    def do(self, spool: Path, move: str, **request: Any) -> Any:
        """Do a move without a fault; returns its value."""
        pid = self.fork(spool, move, **request)
        self.go(pid)
        answer = self.end(pid)
        assert "error" not in answer, answer
        return answer.get("value")

    def faulted(
        self, spool: Path, move: str, inject: str, *, threads: bool = False, **request: Any
    ) -> dict[str, Any]:
        """Do a move under a fault of strace's; the answer has `hit`: whether the call was reached.

        Args:
            inject: as in "fsync:signal=KILL:when=2".
            threads: follow its threads, and its children, too.
        """
        pid = self.fork(spool, move, **request)
        log = self._log
        log.unlink(missing_ok=True)
        name = inject.partition(":")[0]
        words = ["strace", *(["-f"] if threads else []), "-e", f"trace={name}", "-e", f"inject={inject}"]
        with subprocess.Popen(
            [*words, "-e", "signal=none", "-o", str(log), "-p", str(pid)], stderr=subprocess.PIPE, text=True
        ) as strace:
            assert strace.stderr
            line = strace.stderr.readline()
            assert "attached" in line, line
            self.go(pid)
            answer = self.end(pid)
            strace.stderr.read()
        told = log.read_text(encoding="utf-8", errors="replace")
        answer["hit"] = answer["killed"] or "(INJECTED" in told
        return answer

    def calls(
        self, spool: Path, move: str, names: str, *, threads: bool = False, **request: Any
    ) -> Counter[str]:
        """Count the system calls of these names that a move makes."""
        pid = self.fork(spool, move, **request)
        log = self._log
        words = ["strace", *(["-f"] if threads else []), "-e", f"trace={names}", "-e", "signal=none"]
        with subprocess.Popen(
            [*words, "-o", str(log), "-p", str(pid)], stderr=subprocess.PIPE, text=True
        ) as strace:
            assert strace.stderr
            assert "attached" in strace.stderr.readline()
            self.go(pid)
            self.end(pid)
            strace.stderr.read()
        found: Counter[str] = Counter()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split(None, 1)
            call = (words[1] if words[0].isdigit() else line).partition("(")[0]
            if call in names.split(","):
                found[call] += 1
        return found

    def close(self) -> None:
        """End it and what it has forked."""
        for pid in self._live:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


# -- what must hold ----------------------------------------------------------------------------------------------------


def places(spool: Path) -> dict[str, list[str]]:
    """Where each job's files lie, by id, whole ones only; a file that is not whole fails the test."""
    found: dict[str, list[str]] = {}
    for folder in JOB_FOLDERS:
        for path in sorted((spool / folder).rglob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                record = json.loads(path.read_bytes())
            except ValueError as error:
                raise AssertionError(f"{path} is not whole: {error}: {path.read_bytes()[:80]!r}") from None
            found.setdefault(record.get("id") or path.stem, []).append(folder)
    return found


def runs(path: Path) -> Counter[str]:
    """How often each job ran, by the lines that its command wrote."""
    return Counter(path.read_text(encoding="ascii").split()) if path.exists() else Counter()


# -- disks -------------------------------------------------------------------------------------------------------------


class Disk:
    """A filesystem of its own in a file, which can lose its power.

    Args:
        kind: ext4 or xfs.
        size: MiB.
    """

    def __init__(self, base: Path, kind: str, size: int, *options: str) -> None:
        if os.geteuid() != 0:
            must_not_skip("only root can mount a disk")
        self.kind, self.image, self.at = kind, base / f"{kind}.img", base / kind
        self._copies = 0
        with self.image.open("wb") as file:
            file.truncate(size << 20)
        self.at.mkdir()
        quiet = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{kind}", *quiet, *options, str(self.image)], check=True)
        self.mounted = False
        self.mount()

    def mount(self, *options: str) -> None:
        """Mount it."""
        # XFS refuses to mount a second disk with the same id, which a copy has.
        more = ("nouuid",) if self._copies and self.kind == "xfs" else ()
        words = ["mount", "-o", ",".join(("loop", *more, *options)), str(self.image), str(self.at)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            must_not_skip(f"cannot mount: {done.stderr.strip()}")
        self.mounted = True

    def remount(self, how: str) -> None:
        """Make it `ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.at)], check=True)

    def cut(self) -> None:
        """Take the power away: what is not on the disk by now is lost, and nothing can be written any more."""
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, ctypes.c_uint32(NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def restart(self) -> None:
        """Boot anew: unmount, and mount what the disk has.

        A container that was started meanwhile has a copy of the mount. As long as it lives, mount(8) would give back the
        file system without power. So what the disk has is copied then.
        """
        self.unmount()
        if self._is_in_use():
            self._copies += 1
            image = self.image.with_name(f"{self.kind}-{self._copies}.img")
            subprocess.run(["cp", "--sparse=always", str(self.image), str(image)], check=True)
            self.image = image
        self.mount()

    def _is_in_use(self) -> bool:
        """Whether a loop device still has the disk; it is let go a moment after the last unmount."""
        end = time.monotonic() + 0.5
        while subprocess.run(
            ["losetup", "-j", str(self.image)], capture_output=True, check=True
        ).stdout.strip():
            if time.monotonic() > end:
                return True
            time.sleep(0.02)
        return False

    def unmount(self) -> None:
        """Take it down."""
        if self.mounted:
            # What was being started when its worker was killed shows whose it is only once it has begun.
            support.wait_until(self._try_to_unmount, message="the end of whoever still uses the disk")
            self.mounted = False

    def _try_to_unmount(self) -> bool:
        support.end_all(support.processes_of(self.at))
        return not subprocess.run(["umount", str(self.at)], capture_output=True, check=False).returncode

    def close(self) -> None:
        """Take it down, whatever still uses it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.at)], check=False)
            self.mounted = False


@contextmanager
def disk(base: Path, kind: str, size: int, *options: str) -> Iterator[Disk]:
    """A disk that is gone at the end."""
    made = Disk(base, kind, size, *options)
    try:
        yield made
    finally:
        made.close()
