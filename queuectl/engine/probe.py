"""One pack that is sent through Slurm to see whether packs can be, for `check`."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from queuectl.engine import packs, script, slurm
from queuectl.engine.base import Answer, Parcel, Shape
from queuectl.engine.packs import Order, Pack
from queuectl.engine.summary import told_of, word_of
from queuectl.engine.verdict import Limits
from queuectl.engine.wishes import minutes
from queuectl.job.redact import one_line
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from queuectl.config.settings import Settings
    from queuectl.engine.packs import Record
    from queuectl.engine.slurm import Run

CLOCKS = 60.0
"""Seconds by which the clocks of two machines may differ: more, and the times in records mislead."""

PROBES = "check-"
"""The beginning of the names of folders of probes."""

_TIMEOUT, _ASK_EVERY = 60.0, 1.0
"""Seconds that the command of a probe may take; between two questions to Slurm."""

_LATE = 1.0
"""Seconds after which a runner that Slurm says has failed has written nothing, and will not."""

_COMMAND = ["/usr/bin/python3", "-IS", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]


class Target(NamedTuple):
    """Where jobs of some queues run.

    Attributes:
        partition: "" for Slurm's default.
        options: of these queues.
        queues: their names; none for all that have no file.
    """

    partition: str
    options: tuple[str, ...]
    queues: tuple[str, ...]

    @property
    def name(self) -> str:
        """The words for it in a sentence."""
        where = f"partition {self.partition}" if self.partition else "the default partition"
        return f"{where} (queue {', '.join(self.queues)})" if self.queues else where


class Probe:
    """A pack of one command on its way through Slurm.

    Args:
        share: the setting slurm_dir.
        command: runs a command of Slurm.

    Attributes:
        is_over: nothing more is to come.
    """

    def __init__(
        self, share: str, target: Target, settings: Settings, command: Callable[[Sequence[str]], Run]
    ) -> None:
        self.is_over = False
        self._target, self._settings, self._command = target, settings, command
        # Not in the folder of the spool: a dispatcher would take it for a pack whose jobs are gone.
        self._token = f"{PROBES}{os.urandom(4).hex()}"
        self._folder = os.path.join(share, self._token)
        self._pack: Pack | None = None
        self._refusal, self._row = "", ("", "", "")
        self._record: Record | None = None
        self._sent_at, self._sent_time = 0.0, 0.0
        self._came_at: float | None = None
        self._seen_time = 0.0
        self._asked_at = self._ended_at = float("inf")

    @property
    def _parcel(self) -> Parcel:
        limit = minutes([_TIMEOUT], self._settings.kill_grace)
        shape = Shape(partition=self._target.partition, options=self._target.options)
        return Parcel("probe", f"{self._folder}/probe", f"{self._folder}/{script.name()}", shape, limit, 10)

    def send(self) -> bool:
        """Make the pack and give it to sbatch.

        Returns:
            whether that was the end of it.
        """
        limits = Limits(1.0, self._settings.slurm_fence, self._settings.kill_grace)
        parcel = self._parcel
        try:
            os.mkdir(self._folder, 0o700)
            packs.write_script(self._folder)
            order = Order(("probe", "1"), _COMMAND, "/", {}, _TIMEOUT)
            self._pack = Pack.make(parcel.folder, [order], limits, 4096)
        except OSError as error:
            self._refusal, self.is_over = f"cannot make a pack: {error}", True
            return True
        self._sent_at, self._sent_time = time.monotonic(), time.time()
        options = self._settings.slurm_options or ()
        answer, text = slurm.understand(self._command(slurm.arguments(self._token, parcel, options)))
        if answer is not Answer.ACCEPTED:
            self._refusal, self.is_over = f"sbatch refuses: {text}", True
        self._asked_at = time.monotonic()
        return self.is_over

    def look(self) -> None:
        """Look once whether it has come back, and now and then what Slurm says."""
        now = time.monotonic()
        if self._pack is None:
            return
        with suppress(OSError):  # a share that is away is told of when the time is up
            found = self._pack.look()
            if found.beats and self._came_at is None:
                self._came_at = now
            if found.records:
                self._record, self._seen_time, self.is_over = found.records[0], time.time(), True
                return
        if now - self._asked_at >= _ASK_EVERY:
            self._asked_at = now
            self.ask()
        has_failed = self._row[0] in slurm.OVER and self._row[0] != "COMPLETED"
        self._ended_at = min(self._ended_at, now) if has_failed else float("inf")
        self.is_over = now - self._ended_at > _LATE

    def ask(self) -> None:
        """Ask Slurm what has become of it."""
        name = f"--name={slurm.job_name(self._token, 'probe')}"
        code, out, _ = self._command(
            ["squeue", "--me", "--noheader", "--states=all", "--format=%T|%r|%N", name]
        )
        lines = out.splitlines()
        if code == 0 and lines:
            state, reason, node = (*one_line(lines[-1]).split("|"), "", "")[:3]
            self._row = (state, reason, node)

    def clear(self) -> None:
        """Take it back if it waits, and delete its files."""
        if self._record is None and not self._refusal and self._pack is not None:
            self._command(["scancel", "--me", f"--name={slurm.job_name(self._token, 'probe')}"])
        with suppress(OSError):
            if self._pack is not None:
                self._pack.delete()
            packs.remove(self._folder)

    # -- what has come of it ---------------------------------------------------------------------------------------

    def report(self, share: str, wait: float) -> Iterator[tuple[str, str | None]]:
        """Yield what it has shown: a line of fact each, with a hint if something is wrong."""
        name = self._target.name
        if self._refusal:
            at = next(iter(self._target.queues), None)
            yield f"{name}: {self._refusal}", f"queuectl queue show {at}" if at else "sinfo"
        elif self._record is None:
            yield self._why_nothing(share, wait)
        elif (self._record.how, self._record.code) != ("exited", 0):
            why = self._record.why or f"{self._record.how} {self._record.code}"
            node = self._record.node
            yield (
                f"{name}: the probe has failed on {node}: {why}",
                f"srun -w {node} /usr/bin/python3 --version",
            )
        else:
            yield from self._success(share, self._record)

    def _success(self, share: str, record: Record) -> Iterator[tuple[str, str | None]]:
        came = (self._came_at or self._sent_at) - self._sent_at
        if not self._sent_time - CLOCKS <= record.started <= self._seen_time + CLOCKS:
            off = record.started - self._sent_time
            fact = f"the clock of {record.node} is {abs(off):.0f}s {'ahead of' if off > 0 else 'behind'} this one"
            yield fact, f"srun -w {record.node} date"
        late = max(0.0, self._seen_time - record.ended)
        back = f", record back after {late:.1f}s" if late < CLOCKS else ""
        yield f"{self._target.name}: probe ran on {record.node} after {came:.1f}s{back}", None
        yield f"{share} seen alike by {record.node} (python {self._output()} at /usr/bin/python3)", None

    def _why_nothing(self, share: str, wait: float) -> tuple[str, str]:
        name, (state, reason, node) = self._target.name, self._row
        said = f"{state}, {reason}" if reason and reason != "None" else state
        log = self._log()
        if self._came_at is not None:
            return (
                f"{name}: a runner came, and no record came back within {wait:.0f}s",
                f"ls -l {shlex.quote(share)}",
            )
        if state == "COMPLETED":
            fact = (
                f"{name}: the probe has ended on {node}, and its record cannot be seen here after {wait:.0f}s"
            )
            return fact, f"ls -l {shlex.quote(share)}"
        if state in slurm.OVER and log:
            return (
                f"{name}: the probe has failed on {node} ({said}): {log}",
                f"srun -w {node} /usr/bin/python3 --version",
            )
        if state in slurm.OVER:
            fact = f"{name}: the probe was started on {node} and has found no {share} there ({said})"
            return fact, f"srun -w {node} ls -ld {shlex.quote(share)}"
        if state and state != "PENDING":
            fact = f"{name}: the probe was started on {node}, and nothing of it is in {share} after {wait:.0f}s ({said})"
            return fact, f"srun -w {node} timeout 10 ls -ld {shlex.quote(share)}"
        if not state:
            return (
                f"{name}: slurm has accepted a probe and says nothing about it for {wait:.0f}s",
                "scontrol ping",
            )
        fact = f"{name}: the probe has waited in slurm for {wait:.0f}s: {reason}"
        return fact, "sinfo -R" if told_of(word_of(reason)) else "queuectl engine check --wait 10m"

    def _log(self) -> str:
        """Return the last line of Slurm's own log of the probe."""
        lines = self._read("slurm.log").splitlines()
        return one_line(lines[-1]) if lines else ""

    def _output(self) -> str:
        return one_line(self._read("0.out").strip()) or "?"

    def _read(self, name: str) -> str:
        with suppress(OSError, safe_open.NotReadable):
            return safe_open.read_regular(f"{self._folder}/probe/{name}", 1 << 16)[0].decode(errors="replace")
        return ""
