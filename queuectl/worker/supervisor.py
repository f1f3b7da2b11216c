"""Workers in a terminal or under a service: this process starts them, replaces those that die, and passes signals on.

Each worker is a child process in a session of its own: Ctrl+C reaches only this process. As process 1 of a container it
also reaps what the jobs leave behind.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import commands, registration, registry
from queuectl.errors import QueuectlError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.system.line_output import LineOutput
from queuectl.system.process import ProcessIdentity
from queuectl.system.wake_up import WakeUp
from queuectl.worker import signals
from queuectl.worker.pool import Starter, be_one, check, refuse_after_stop
from queuectl.worker.stopping import patience

if TYPE_CHECKING:
    import subprocess

    from queuectl.control.registration import Reservation
    from queuectl.layout import Layout
    from queuectl.worker.program import WorkerOptions

STEADY = 10.0
"""Seconds after which a worker counts as one that works. One that dies earlier makes its next start wait longer."""

FIRST_BRAKE = 0.5
"""Seconds until a worker is replaced that died early; twice as many each further time."""

MAX_EARLY_ENDS = 6
"""Early ends in a row after which nothing is started any more: the cause has to be found by a person."""

_TICK = 1.0 if sys.platform == "win32" else 30.0
"""Seconds between two looks. Each end of a child and each signal ends the wait; Windows does not report the former."""


def foreground(layout: Layout, count: int, options: WorkerOptions) -> int:
    """Run workers in this terminal until they are stopped or drained; returns the exit code.

    A single worker is this process. Several are its children; so is a single one in a container where this is process
    1, which has to reap what jobs leave behind.

    Raises:
        QueuectlError: the spool cannot be used.
    """
    if count == 1 and os.getpid() != 1:
        return be_one(layout, "foreground", options)
    check(layout, options)
    me = ProcessIdentity.mine()
    starter = Starter(layout, "child", options, commands.start_asked_at(layout), me)
    refuse_after_stop(starter)
    return Supervisor(starter, count).run()


@dataclass(slots=True)
class _Slot:
    """One of the workers.

    Attributes:
        place: the name for the next worker, until that is started.
        name: of the worker, if it is known.
        process: its process; None while none runs.
        began: when that was started, on the monotonic clock.
        next_start: when the next one is due, on the monotonic clock; None: it has left in order.
        early_ends: how many in a row died early.
    """

    place: Reservation | None = None
    name: str | None = None
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    next_start: float | None = field(default_factory=time.monotonic)
    early_ends: int = 0


class Supervisor:
    """Keeps the workers of one terminal or service running.

    Args:
        starter: starts each of them.
        count: how many there are.
    """

    def __init__(self, starter: Starter, count: int) -> None:
        self._starter = starter
        self._layout = starter.layout
        self._slots = [_Slot() for _ in range(count)]
        self._wake_up = WakeUp()
        self._output = LineOutput(1)
        self._pressed: list[int] = []
        self._rereads: list[bool] = []
        self._passed_on = 0
        self._kill_at: float | None = None
        self._is_stopping = self._failed = False

    def run(self) -> int:
        """Keep the workers running until all have left in order; returns the exit code."""
        self._handle_signals()
        # All names first: a stop that comes in between finds all workers.
        for slot, place in zip(self._slots, self._starter.reserve_all(len(self._slots)), strict=True):
            slot.place = place
        while True:
            if self._rereads:
                self._rereads.clear()
                self._send_hangup()
            if len(self._pressed) > self._passed_on:
                self._passed_on = len(self._pressed)
                self._stop_all(force=self._pressed.count(signal.SIGINT) > 1)
            for slot in self._slots:
                self._look_after(slot)
            if os.getpid() == 1:
                self._reap_orphans()
            if all(slot.process is None and slot.next_start is None for slot in self._slots):
                self._output.close()
                return int(self._failed)
            self._wake_up.wait(self._until_next_look())

    # -- signals ---------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        """Before the first worker starts: a signal in between would end this process and leave that worker alone."""
        signal.set_wakeup_fd(self._wake_up.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._pressed.append(number))
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # it ends the wait
        signals.on_hangup(
            signals.Terminal(),
            reread=lambda: self._rereads.append(True),
            leave=lambda: self._pressed.append(signal.SIGTERM),
        )
        signals.unblock()

    def _send_hangup(self) -> None:
        """Make the workers read their settings. The signal would end a process that does not handle it yet."""
        for slot in self._slots:
            if slot.process is not None and self._is_registered(slot):
                slot.process.send_signal(signal.SIGHUP)

    def _is_registered(self, slot: _Slot) -> bool:
        return slot.name is not None and registry.identity_of(self._layout, slot.name) is not None

    def _stop_all(self, *, force: bool) -> None:
        self._is_stopping = True
        if force and self._kill_at is None:
            self._kill_at = time.monotonic() + patience(self._layout)
        for slot in self._slots:
            slot.next_start = None
            if slot.place is not None:
                slot.place.give_back()
                slot.place = None
            process = slot.process
            if process is None:
                continue
            is_asked = False
            if slot.name is not None and self._is_registered(slot):
                with suppress(QueuectlError):
                    is_asked = commands.request_stop(self._layout, slot.name, force=force)
            if not is_asked and process.poll() is None:
                process.terminate()  # it is just starting or leaving

    # -- the workers -----------------------------------------------------------------------------------------------

    def _look_after(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is None:
            if slot.next_start is not None and now >= slot.next_start:
                self._start(slot)
            return
        if self._kill_at is not None and now >= self._kill_at:
            slot.process.kill()
        code = slot.process.poll()
        if code is not None:
            self._ended(slot, slot.process.pid, code)

    def _start(self, slot: _Slot) -> None:
        slot.began, slot.next_start = time.monotonic(), None
        try:
            place, slot.place = slot.place or self._starter.reserve(), None
            slot.name = place.name if place else None
            slot.process = self._starter.spawn(place)
        except (OSError, QueuectlError) as error:
            reason = error.message if isinstance(error, QueuectlError) else error.strerror or str(error)
            self._replace_later(slot, f"a worker cannot be started: {reason}")

    def _ended(self, slot: _Slot, pid: int, code: int) -> None:
        slot.process = None
        if slot.name is not None:
            registration.cancel_reservation(self._layout, slot.name)
        if code == 0:
            return
        if self._is_stopping or self._was_stopped(slot, pid):
            # One that was just starting or leaving is ended by the signal. That is a good end, too.
            self._failed |= code not in (-signal.SIGTERM, -getattr(signal, "SIGKILL", 9))
            return
        self._replace_later(slot, f"[{slot.name or pid}] PID={pid} {_how(code)}")

    def _was_stopped(self, slot: _Slot, pid: int) -> bool:
        if commands.is_stop_of_all_after(self._layout, self._starter.since):
            return True
        return slot.name is not None and commands.was_stop_requested_of(self._layout, slot.name, pid)

    def _replace_later(self, slot: _Slot, told: str) -> None:
        now = time.monotonic()
        slot.early_ends = slot.early_ends + 1 if now - slot.began < STEADY else 1
        if slot.early_ends >= MAX_EARLY_ENDS:
            self._say(f"{told}; {slot.early_ends} in a row ended early, so all workers are stopped")
            self._failed = True
            self._stop_all(force=False)
            return
        brake = 0.0 if slot.early_ends == 1 else FIRST_BRAKE * 2 ** (slot.early_ends - 2)
        slot.next_start = now + brake
        when = f" in {brake:g} s" if brake else ""
        self._say(f"{told}; another one is started{when}")

    def _say(self, line: str) -> None:
        with suppress(OSError):
            self._output.write(f"{line}\n".encode(errors="backslashreplace"))

    def _until_next_look(self) -> float:
        now = time.monotonic()
        due = [slot.next_start for slot in self._slots if slot.next_start is not None]
        if self._kill_at is not None:
            due.append(max(self._kill_at, now + 1.0))
        return max(0.0, min([_TICK, *(moment - now for moment in due)]))

    # -- as process 1 ----------------------------------------------------------------------------------------------

    def _reap_orphans(self) -> None:
        """Reap processes whose parent has ended: the kernel gives them to process 1, and they would stay zombies."""
        own = {slot.process.pid for slot in self._slots if slot.process is not None}
        with suppress(ChildProcessError):
            while True:
                # Only look: the exit code of a worker must not be taken from its Popen.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in own:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)


def _how(code: int) -> str:
    """Say how a worker process has ended."""
    if code < 0 and sys.platform != "win32":
        with suppress(ValueError):
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"
