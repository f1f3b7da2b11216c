"""Slurm by its own commands: sbatch, squeue, scancel. See `base.Engine`; what it says decides nothing.

A controller that hangs holds squeue for 10 s and scancel for 20 s. So all of them run in threads of their own. These are
daemons: a dispatcher that is told to stop leaves at once, and what it was just sending is found again by its pack.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from queuectl.engine.base import Answer, News, Parcel, Poll, Row
from queuectl.job.redact import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NEVER = (
    "Invalid partition name",
    "Memory specification can not be satisfied",
    "Requested node configuration is not available",
    "Invalid generic resource",
    "Invalid feature",
    "Invalid account",
    "Invalid qos",
    "Invalid --",
    "Invalid license",
    "Invalid node name",
    "Requested reservation is invalid",
    "Access denied to requested reservation",
    "Requested time limit is invalid",
    "Temporary disk specification can not be satisfied",
    "More processors requested than permitted",
    "not permitted to use this partition",
    "unrecognized --hint argument",
)
"""Words of sbatch for what another try does not mend."""

FULL = ("violates accounting/QOS policy", "temporarily unable to accept job")
"""Words of sbatch for a limit that may be free later."""

OVER = frozenset({
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
})  # fmt: skip
"""States of a job that runs no more. Any other one counts as alive, also one that a later Slurm invents."""

SENDERS = 4
_LIMIT = 30.0
"""How many sbatch run at once, and how many scancel: one takes 10 ms, and four send three times as many. A scancel can name
one pack only, unless by numbers, which may be those of other jobs by then. Seconds until a command is given up."""

_SHORTEST_PAUSE, _PAUSE = 5.0, 10.0
"""Between two polls: seconds, and how many times as long as the last one took. A large queue must not be asked all the time."""

_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "SHELL", "SLURM_CONF")
"""What sbatch gets, and with it the runner. A list for --export would make each node run a login shell instead."""

Run = tuple[int | None, str, str]
"""The exit code of a command, None if it did not end in time or cannot be started; what it printed on both streams."""


def run(words: Sequence[str]) -> Run:
    """Run one of Slurm's commands."""
    known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_LIMIT, stdin=subprocess.DEVNULL, env=known, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")  # often why it goes on trying
        return None, "", f"{words[0]} has not answered within {_LIMIT:.0f}s\n{said}"
    except OSError as error:
        return None, "", f"{words[0]}: {(error.strerror or str(error)).lower()}"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def job_name(spool: str, pack: str) -> str:
    """Return the name of Slurm's jobs for a pack. They are found by it: a number may be given to another job later."""
    return f"qctl-{spool}-{pack}"


def arguments(spool: str, parcel: Parcel, options: Sequence[str]) -> list[str]:
    """Return the command line that sends a pack. Nothing of a job stands on it but what the job wants of a node.

    Args:
        spool: the id of the spool.
        options: those for all jobs. What a job wants, and the options of its queue, stand behind them, so they win.
    """
    shape = parcel.shape
    log = os.path.join(parcel.folder, "slurm.log").replace("%", "%%")
    wants = [f"--cpus-per-task={shape.cpus}"]
    if shape.memory is not None:
        wants.append(f"--mem={shape.memory}M")
    if shape.gpus:
        wants.append(f"--gres=gpu:{shape.gpus}")
    if shape.partition:
        wants.append(f"--partition={shape.partition}")
    if parcel.minutes:
        wants.append(f"--time={parcel.minutes}")
    return [
        "sbatch",
        "--parsable",
        "--no-requeue",  # by default Slurm would run a pack a second time after it has lost a node
        "--export=ALL",
        "--chdir=/",
        f"--job-name={job_name(spool, parcel.name)}",
        f"--output={log}",
        "--open-mode=append",
        f"--nice={max(0, 10 - parcel.priority) * 100}",
        *options,
        *wants,
        *shape.options,
        parcel.script,
        parcel.folder,
    ]


def understand(ended: Run) -> tuple[Answer, str]:
    """Return what sbatch's end means, and its own words for people."""
    code, out, err = ended
    if code == 0:
        return Answer.ACCEPTED, one_line(out.strip().partition(";")[0])
    lines = [
        line.removeprefix("sbatch: ").removeprefix("error: ") for line in err.splitlines() if line.strip()
    ]
    text = one_line(lines[-1]) if lines else f"sbatch has ended with {code}"
    for answer, words in ((Answer.REFUSED, NEVER), (Answer.FULL, FULL)):
        if code is not None and any(word in err for word in words):
            return answer, next(
                (one_line(line) for line in lines if any(word in line for word in words)), text
            )
    return Answer.UNKNOWN, text  # it may have accepted the pack all the same


def rows_of(spool: str, text: str) -> dict[str, list[Row]]:
    """Read what squeue has printed; return the rows of this spool's packs by their names."""
    found: dict[str, list[Row]] = {}
    prefix = job_name(spool, "")
    for line in text.splitlines():
        number, state, reason, name = (*line.split("|", 3), "", "", "")[:4]
        if name.startswith(prefix):
            said = "" if reason in ("None", "(null)") else one_line(reason)
            row = Row(one_line(number), one_line(state), said, is_live=state not in OVER)
            found.setdefault(name.removeprefix(prefix), []).append(row)
    return found


def pause_after(took: float, *, has_answered: bool) -> float:
    """Return the seconds from a poll to the next one.

    A controller that is away holds squeue for 10 s. So an answer that never came counts less: else people would read that
    it does not answer for 100 s after it is back.
    """
    return max(_SHORTEST_PAUSE, (_PAUSE if has_answered else 1.0) * took)


def idle_cpus(ended: Run) -> int:
    """Read what sinfo has printed of each partition, like 2/10/0/12: allocated, idle, other, all; return the idle ones.

    A processor may be in several partitions. So the partition with the most counts.
    """
    found = [0]
    for line in ended[1].split() if ended[0] == 0 else ():
        parts = line.split("/")
        if len(parts) == 4 and parts[1].isdecimal():
            found.append(int(parts[1]))
    return max(found)


class Slurm:
    """The engine.

    Args:
        spool: the id of the spool, in the names of its jobs.
        options: for each sbatch.
        command: runs a command; tests have another one.

    Attributes:
        answered_at: the monotonic moment of the last answer to a poll; that of the start if there was none.
        trouble: what was said instead of an answer; "" when all is well.
    """

    def __init__(
        self, spool: str, options: Sequence[str] = (), *, command: Callable[[Sequence[str]], Run] = run
    ) -> None:
        self._spool, self._options, self._command = spool, tuple(options), command
        self._parcels: queue.SimpleQueue[Parcel | None] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[Answer, str]] = {}
        self._poll: Poll | None = None
        self._closed = False
        self.answered_at, self.trouble = time.monotonic(), ""
        self._orderers = [threading.Thread(target=self._order_all, daemon=True) for _ in range(SENDERS)]
        for orderer in self._orderers:
            orderer.start()
        for work in (*[self._send_all] * SENDERS, self._poll_all):
            threading.Thread(target=work, daemon=True).start()

    def send(self, parcel: Parcel) -> None:
        """Have a runner started for a pack. The same pack may be sent again."""
        self._parcels.put(parcel)

    def news(self) -> News:
        """Return what Slurm has said since the last call."""
        with self._lock:
            answers, self._answers = self._answers, {}
            poll, self._poll = self._poll, None
        return News(answers, poll)

    def cancel(self, packs: Iterable[str]) -> None:
        """Have no runner started for these packs any more, and end those that were, as far as Slurm listens."""
        self._order(packs)

    def nudge(self, packs: Iterable[str]) -> None:
        """Have the runners of these packs look for wishes now, as far as Slurm listens."""
        self._order(packs, "--batch", "--signal=USR1", "--state=RUNNING")

    def ask(self) -> None:
        """Poll now, and not only when it is due."""
        self._asked.set()

    def close(self, patience: float = 0.0) -> None:
        """Begin nothing more. A command that runs is not waited for.

        Args:
            patience: seconds to wait until what is to be cancelled is cancelled.
        """
        self._closed = True
        for _ in range(SENDERS):
            self._parcels.put(None)
            self._orders.put(None)
        self._asked.set()
        until = time.monotonic() + patience
        for orderer in self._orderers if patience else ():
            orderer.join(max(0.0, until - time.monotonic()))

    def _order(self, packs: Iterable[str], *how: str) -> None:
        for pack in packs:
            self._orders.put(["scancel", "--me", *how, f"--name={job_name(self._spool, pack)}"])

    def _send_all(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            answer = understand(self._command(arguments(self._spool, parcel, self._options)))
            with self._lock:
                self._answers[parcel.name] = answer

    def _order_all(self) -> None:
        while (words := self._orders.get()) is not None:
            self._command(
                words
            )  # whatever comes of it: the file with the wish is there, and is read at the next beat

    def _poll_all(self) -> None:
        words = ["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%j"]
        while not self._closed:
            asked_at = time.monotonic()
            code, out, err = self._command(words)
            now = time.monotonic()
            if code == 0:
                rows: Mapping[str, Sequence[Row]] = rows_of(self._spool, out)
                poll = Poll(asked_at, rows, idle_cpus(self._command(["sinfo", "--noheader", "--format=%C"])))
                with self._lock:
                    self._poll = poll
                self.answered_at, self.trouble = now, ""
            else:
                self.trouble = one_line(err.strip().partition("\n")[0]) or f"squeue has ended with {code}"
            self._asked.wait(pause_after(now - asked_at, has_answered=code == 0))
            self._asked.clear()
