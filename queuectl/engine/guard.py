"""A process beside a runner that ends its command when the runner cannot. A part of the script of nodes, see `node`."""

import os
import select
import signal
import time
from contextlib import suppress

_BOOTTIME = 7
"""The number of CLOCK_BOOTTIME, which Python has a name for since 3.7. Time in which a machine sleeps counts in it."""

STARTING = -1
"""The group of a command that is being started: only when that is over it has a number."""

_STARTS_WITHIN = 1.0
"""Seconds in which a command whose runner was killed meanwhile becomes visible, if it was started at all."""


def clock() -> float:
    """Return the seconds by a clock that never goes back, and that goes on while the machine sleeps."""
    try:
        return time.clock_gettime(_BOOTTIME)
    except (AttributeError, OSError):
        return time.monotonic()


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes: a signal or a full disk may take a part of them only."""
    while data:
        data = data[os.write(fd, data) :]


def signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of a group; False: it has none any more."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_group(group: int, grace: float) -> None:
    """End a group of processes: TERM, so many seconds for their own end, KILL."""
    signal_group(group, signal.SIGTERM)
    signal_group(group, signal.SIGCONT)
    end = clock() + grace
    while clock() < end and signal_group(group, 0):
        time.sleep(0.02)
    signal_group(group, signal.SIGKILL)


class Guard:
    """A second process, which ends the command when the runner cannot.

    A runner may be killed alone, or be stopped, or hang in a write while the share is away. Its command would go on
    beside the next run of its job. The guard learns by a pipe which group runs and when the last beat began. It ends the
    group when the runner is gone, and when the fence is over.

    Args:
        mark: what the environment of all commands of this runner has, and that of no other process.
    """

    def __init__(self, mark: bytes, fence: float, grace: float) -> None:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._writer)
                _guard(reader, mark, fence, grace)
            finally:
                os._exit(0)
        os.close(reader)

    def tell(self, word: str, value: float) -> None:
        """Tell it "beat" and when it began, or "run" and the group that runs: 0 for none, STARTING for one that has no
        number yet. Short lines never mix in a pipe.

        A runner whose guard was killed goes on with its command, and begins no other one.
        """
        with suppress(BrokenPipeError):
            write_all(self._writer, f"{word} {value!r}\n".encode())

    def is_alive(self) -> bool:
        """Whether it watches."""
        with suppress(ChildProcessError):
            return os.waitpid(self._pid, os.WNOHANG) == (0, 0)
        return False

    def leave(self) -> None:
        """Let it go, and wait for its end."""
        os.close(self._writer)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _groups_of(mark: bytes) -> "list[int]":
    """Return the groups of the processes that have a mark in their environment."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.add(os.getpgid(int(name)))
    return sorted(found)


def _end_started(mark: bytes, grace: float) -> None:
    """End the command that a runner was starting when it was killed. It may take a moment to become visible."""
    end = clock() + _STARTS_WITHIN
    groups = _groups_of(mark)
    while clock() < end and not groups:
        time.sleep(0.05)
        groups = _groups_of(mark)
    for group in groups:
        end_group(group, grace)


def _guard(reader: int, mark: bytes, fence: float, grace: float) -> None:
    """Be the guard, until the runner is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    group, beaten, rest = 0, clock(), b""
    while True:
        if select.select([reader], [], [], min(1.0, fence / 4))[0]:
            data = os.read(reader, 1 << 16)
            if not data:
                if group == STARTING:
                    _end_started(mark, grace)
                elif group:
                    end_group(group, grace)
                return
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                word, value = line.split()
                if word == b"beat":
                    if group > 0 and float(value) - beaten > fence:
                        end_group(group, grace)  # this node slept
                        group = 0
                    beaten = float(value)
                else:
                    group = int(value)
        if group > 0 and clock() - beaten > fence:
            end_group(group, grace)
            group = 0
