"""The script that Slurm starts on a node: it works on one pack, and is called a runner while it does so.

Nodes need nothing of queuectl. `script.text` makes one file of this module and of `guard`, for Python 3.6 and its
standard library alone. Its only argument is the folder of the pack. What it finds and makes there:

    pack.json         what to do, see `packs`
    by.RUNNER         who this runner is
    claim.N           a hard link to the by-file of whoever has attempt N
    beat.RUNNER       a counter: a sign of life
    exits.RUNNER      one line of JSON for each attempt that is over
    left.RUNNER       this runner takes nothing more
    N.out, N.err      what attempt N prints
    cancel.N, cancel  somebody wants attempt N, or all, ended

Whoever writes no beat for as long as the fence ends its command: after that, another one may be started elsewhere.
"""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from queuectl.engine.guard import STARTING, Guard, clock, signal_group, write_all

VERSION = 1
"""Of pack.json. A runner of another version leaves a pack alone."""

_MARGIN = 30.0
"""Seconds after fence and grace in which a record that could not be written still has a reader."""

_SYNC_EVERY, _LOOK_FIRST, _LOOK_LAST = 0.1, 0.1, 2.0
"""Seconds between two syncs of the records; between two looks at the size of the output, at first and at last."""

_LATE_TERM = 1.0
"""Seconds for which a runner waits whether it gets the TERM, too, of which its command has died."""

_REFUSALS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""This node starts no process now, whichever."""


class Beat(threading.Thread):
    """Writes a sign of life again and again, in a thread of its own: a write into a share may hang.

    Attributes:
        at: when the last successful write began. A later moment would vouch for time in which the write hung.
        lapsed_at: when a write began that came later than the fence allows; -inf if there was none. After a sleep this
            thread may wake first, and then `at` does not tell of the sleep any more.
    """

    def __init__(self, path: str, every: float, fence: float, guard: Guard) -> None:
        super().__init__(daemon=True)
        self._path, self._every, self._fence, self._guard, self._count = path, every, fence, guard, 0
        self.at, self.lapsed_at = clock(), float("-inf")
        self.once()

    def once(self) -> None:
        """Write one sign of life. Raises OSError."""
        began = clock()
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            write_all(fd, f"{self._count + 1}\n".encode())
        finally:
            os.close(fd)
        self._count += 1
        if began - self.at > self._fence:
            self.lapsed_at = began
        self.at = began
        self._guard.tell("beat", began)

    def run(self) -> None:
        """Go on until the process ends."""
        while True:
            time.sleep(self._every)
            with suppress(OSError):  # the next one may succeed; until then the fence comes nearer
                self.once()


class NotBegun(Exception):
    """A command was not started, which is not its fault. Its job goes back as it was."""


class Signals:
    """The signals that a runner gets. A handler only sets a flag, and ends the wait."""

    def __init__(self) -> None:
        self.term = self.look = False
        self._reader, writer = os.pipe()
        for fd in (self._reader, writer):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._on_look)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_term)
        signal.set_wakeup_fd(writer)

    def _on_look(self, *_: Any) -> None:
        self.look = True

    def _on_term(self, *_: Any) -> None:
        self.term = True

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes, but no longer than this."""
        if select.select([self._reader], [], [], max(0.0, seconds))[0]:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)

    def wait_for_term(self, seconds: float) -> None:
        """Wait for TERM, but no longer than this."""
        end = clock() + seconds
        while clock() < end and not self.term:
            self.wait(end - clock())


class Records:
    """The lines about attempts that are over. Whatever the disk refuses is kept and tried again."""

    def __init__(self, path: str) -> None:
        self._path, self._left, self._synced_at, self.is_dirty = path, b"", 0.0, False
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, record: "dict[str, Any]") -> None:
        """Add a line."""
        self._left += (json.dumps(record) + "\n").encode()

    def write(self, *, at_once: bool = False) -> bool:
        """Write and sync what is due; False: the disk has refused something."""
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
                self.is_dirty = True
            if self.is_dirty and (at_once or clock() - self._synced_at >= _SYNC_EVERY):
                os.fsync(self._fd)
                self.is_dirty, self._synced_at = False, clock()
        except OSError:
            return False
        return True


class Output:
    """The two output files of one attempt."""

    def __init__(self, paths: "tuple[str, str]", limit: int) -> None:
        self._paths, self._limit = paths, limit
        self._every = _LOOK_FIRST
        self.next_look = clock() + self._every if limit else float("inf")

    def open(self) -> "list[int]":
        """Open both for a command. It appends, so that they can be cut while it writes.

        Raises:
            NotBegun: the share refuses.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            return [os.open(path, flags, 0o600) for path in self._paths]
        except OSError as error:
            raise NotBegun(f"cannot write its output: {error.strerror}") from None

    def cut(self) -> "list[int]":
        """Cut both to the limit, and return the bytes that they had."""
        sizes = [self._cut(path) for path in self._paths]
        is_near = max(sizes) > self._limit // 4
        self._every = _LOOK_FIRST if is_near else min(self._every * 2, _LOOK_LAST)
        self.next_look = clock() + self._every if self._limit else float("inf")
        return sizes

    def _cut(self, path: str) -> int:
        note = f"\n[queuectl: output cut at {self._limit} bytes]\n".encode()
        try:
            size = os.lstat(path).st_size
            if not self._limit or size <= self._limit + len(note):
                return size
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            with suppress(OSError):  # the job must end all the same
                # The note overwrites output before the cut, so that nothing appended now can come between them.
                os.lseek(fd, self._limit, os.SEEK_SET)
                write_all(fd, note)
                os.ftruncate(fd, self._limit + len(note))
        finally:
            os.close(fd)
        return size


def why_not(job: "dict[str, Any]", error: Exception, node: str) -> str:
    """Why a command cannot start, in words for its author."""
    cwd, command = job["cwd"], job["command"]
    if not isinstance(error, OSError):
        return f"the command or its environment cannot be passed on ({error})"
    if not os.path.isdir(cwd.encode()):
        return f"the folder {cwd} does not exist on {node}"
    if not os.access(cwd.encode(), os.X_OK):
        return f"no permission to enter the folder {cwd} on {node}"
    program = "/bin/sh" if isinstance(command, str) else command[0]
    if error.errno == errno.ENOENT:
        return f"no program {program!r} found on {node}"
    if error.errno == errno.EACCES:
        return f"{program!r} is not executable on {node}"
    if error.errno == errno.E2BIG:
        return "the command and its environment are too long for this system"
    return (error.strerror or str(error)).lower()


class Runner:
    """One runner at work in a pack."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        with open(os.path.join(folder, "pack.json"), "rb") as file:
            plan = json.loads(file.read().decode())
        if plan["v"] != VERSION:
            sys.exit("pack.json has version {}, and this runner knows {}".format(plan["v"], VERSION))
        self._jobs = plan["jobs"]
        self._every, self._fence, self._grace = plan["beat"], plan["fence"], plan["grace"]
        self._log_limit = plan["log_limit"]
        self._node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        number = os.environ.get("SLURM_JOB_ID", "0")
        self.name = f"{self._node}.{number}.{os.getpid()}"
        # The guard is forked before any thread, and before any signal has a handler of ours.
        self._mark = (b"QUEUECTL_RUNNER", f"{self.name}.{time.time()}".encode())
        self._guard = Guard(b"=".join(self._mark), self._fence, self._grace)
        self._signals = Signals()
        self._beat = Beat(self._path("beat." + self.name), self._every, self._fence, self._guard)
        self._records = Records(self._path("exits." + self.name))
        self._by = self._path("by." + self.name)
        self._identity = self._write_by({"node": self._node, "slurm_job": number, "pid": os.getpid()})
        self._looked_at = self._began = 0.0
        self._takes_more = True

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _write_by(self, who: "dict[str, Any]") -> "tuple[int, int]":
        fd = os.open(self._by, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(fd, json.dumps(who).encode())
            os.fsync(fd)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return status.st_dev, status.st_ino

    def work(self) -> None:
        """Begin what nobody has begun, one after the other, until nothing is left."""
        self._beat.start()
        for number in self._unclaimed():
            if not self._may_begin():
                break
            self._began = clock()
            if self._claim(number):
                self._attempt(number)
                if not self._write_records():
                    break
        self._write_records(at_once=True)
        os.close(os.open(self._path("left." + self.name), os.O_WRONLY | os.O_CREAT, 0o600))
        self._guard.leave()

    def _unclaimed(self) -> Iterator[int]:
        taken = set(os.listdir(self._folder))
        for number in range(len(self._jobs)):
            if f"claim.{number}" not in taken:
                yield number

    def _may_begin(self) -> bool:
        """Whether the next command may be started: nobody wants an end, and the beats are fresh."""
        # After a long sleep of this machine, or of the share, the attempt may have been given to others.
        while self._takes_more and self._silence() > self._fence / 2:
            if self._signals.term or self._silence() > self._fence:
                return False
            self._signals.wait(0.1)
        is_wanted = not (self._signals.term or os.path.exists(self._path("cancel")))
        return is_wanted and self._takes_more and self._guard.is_alive()

    def _silence(self) -> float:
        return clock() - self._beat.at

    def _was_cut_off(self) -> bool:
        """Whether the fence was over at any time since the claim of this attempt: it may have been given to another node."""
        return self._silence() > self._fence or self._beat.lapsed_at > self._began

    def _claim(self, number: int) -> bool:
        """Make the claim of an attempt; whoever's file is there has it.

        What link() answers proves nothing: when it is sent again over NFS, the winner is told that the file exists.
        """
        target = self._path(f"claim.{number}")
        with suppress(OSError):
            os.link(self._by, target)
        try:
            status = os.stat(target)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _is_cancelled(self, number: int) -> bool:
        return any(os.path.exists(self._path(name)) for name in (f"cancel.{number}", "cancel"))

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _attempt(self, number: int) -> None:
        """Run an attempt that is ours, to its end, and record what became of it."""
        job = self._jobs[number]
        started = time.time()
        output = Output((self._path(f"{number}.out"), self._path(f"{number}.err")), self._log_limit)
        how, why, sizes, ran = "cancelled", "", [0, 0], False
        code: Any = None
        if not self._is_cancelled(number):
            try:
                child = self._start(job, output)
            except NotBegun as error:
                how, why, self._takes_more = "not_begun", str(error), False
            except (OSError, ValueError) as error:
                how, why = "not_started", why_not(job, error, self._node)
            else:
                ran, how = True, self._follow(number, job, child, output)
                code, sizes = child.returncode, output.cut()
            self._guard.tell("run", 0)
        self._records.add({
            "n": number, "key": job["key"], "how": how, "code": code, "why": why, "ran": ran, "node": self._node,
            "started": started, "ended": time.time(), "seconds": clock() - self._began,
            "out": sizes[0], "err": sizes[1],
        })  # fmt: skip

    def _start(self, job: "dict[str, Any]", output: Output) -> "subprocess.Popen[bytes]":
        """Start a command. Raises NotBegun, or what Popen raises when it is the command's fault."""
        command, env = job["command"], dict(os.environb)
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        env.update((name.encode(), text.encode()) for name, text in job["env"].items())
        env.update([self._mark])
        files = output.open()
        try:
            # The guard must know of the command also if this process is killed before it knows its number.
            self._guard.tell("run", STARTING)
            if self._was_cut_off():
                raise NotBegun("this node slept: the job may have been given to another one")
            child = subprocess.Popen(
                [word.encode() for word in words],
                cwd=job["cwd"].encode(),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=files[0],
                stderr=files[1],
                start_new_session=True,
            )
            self._guard.tell("run", child.pid)
            return child
        except OSError as error:
            if error.errno in _REFUSALS:
                raise NotBegun(f"cannot start a process: {error.strerror}") from None
            raise
        finally:
            for fd in files:
                os.close(fd)

    def _follow(
        self, number: int, job: "dict[str, Any]", child: "subprocess.Popen[bytes]", output: Output
    ) -> str:
        """Wait for the end of a command, and end it when there is a reason; return how it ended."""
        deadline = self._began + job["timeout"] if job["timeout"] else float("inf")
        reason, kill_at = "", float("inf")
        while child.poll() is None:
            now = clock()
            if not reason:
                reason = self._reason_to_end(number, now, deadline)
                if reason:
                    kill_at, deadline = now + self._grace, float("inf")
                    signal_group(child.pid, signal.SIGTERM)
                    signal_group(child.pid, signal.SIGCONT)
            elif now >= kill_at:
                signal_group(child.pid, signal.SIGKILL)
            self._records.write()
            if now >= output.next_look:
                output.cut()
            pause = _SYNC_EVERY if self._records.is_dirty or now >= kill_at else self._every / 4
            self._signals.wait(
                min(now + pause, deadline, max(kill_at, now + _SYNC_EVERY), output.next_look) - now
            )
        # The first process may end before those that it has started, which get the rest of the time.
        while reason and clock() < kill_at and signal_group(child.pid, 0):
            self._signals.wait(0.02)
        signal_group(child.pid, signal.SIGKILL)
        return self._how_it_ended(child.returncode, reason)

    def _how_it_ended(self, code: int, reason: str) -> str:
        if code < 0 and not reason:
            if self._was_cut_off():
                reason = "fenced"  # by the guard
            elif code == -signal.SIGTERM:
                self._signals.wait_for_term(_LATE_TERM)
        if code and self._signals.term and not reason:
            reason = "terminated"  # Slurm sends TERM to the command as well as to its runner
        if reason == "terminated" and not code:
            reason = ""  # it came to a good end all the same
        return reason or ("signalled" if code < 0 else "exited")

    def _reason_to_end(self, number: int, now: float, deadline: float) -> str:
        if self._signals.term:
            return "terminated"
        if now >= deadline:
            return "timed_out"
        if self._was_cut_off():
            return "fenced"
        if self._signals.look or now - self._looked_at >= self._every:
            self._signals.look, self._looked_at = False, now
            if self._is_cancelled(number):
                return "cancelled"
        return ""

    def _write_records(self, *, at_once: bool = False) -> bool:
        """Write the records, and wait for a disk that refuses; False: nobody waits for them any more."""
        while not self._records.write(at_once=at_once):
            if self._silence() > self._fence + self._grace + _MARGIN or not os.path.isdir(self._folder):
                return False
            self._signals.wait(1.0)
        return True


def main() -> None:
    """Work on the pack that the command line names."""
    Runner(sys.argv[1]).work()


if __name__ == "__main__":
    main()
