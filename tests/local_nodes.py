"""An engine whose nodes are this machine: it starts the script for nodes as a cluster would, and knows nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from queuectl.engine.base import Answer, News, Parcel, Poll, Row

if TYPE_CHECKING:
    from collections.abc import Iterable


class LocalNodes:
    """An engine. It says nothing useful, as engines do.

    Attributes:
        runners: all that were started.
        sent: the packs that were sent, in order.
        refuses: it refuses each pack.
        is_still: nothing moves in its queue.
        idle: how many processors it says are idle.
    """

    def __init__(self) -> None:
        self.runners: list[subprocess.Popen[bytes]] = []
        self.sent: list[Parcel] = []
        self.cancelled: list[str] = []
        self.answers: dict[str, tuple[Answer, str]] = {}
        self.refuses = self.is_still = False
        self.idle, self.trouble, self.answered_at = 4, "", time.monotonic()

    def send(self, parcel: Parcel) -> None:
        """Start a runner, unless it refuses or nothing moves in its queue."""
        self.sent.append(parcel)
        if self.refuses:
            self.answers[parcel.name] = Answer.REFUSED, "Invalid partition name specified"
        if self.refuses or self.is_still:
            return
        runner = subprocess.Popen(
            [sys.executable, "-IS", parcel.script, parcel.folder], stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SLURMD_NODENAME": "n2", "SLURM_JOB_ID": "7"}, start_new_session=True,
        )  # fmt: skip
        self.runners.append(runner)

    def news(self) -> News:
        """Say what it has refused, and that all else waits."""
        answers, self.answers = self.answers, {}
        rows = (
            {one.name: [Row("7", "PENDING", "Resources", is_live=True)] for one in self.sent}
            if self.is_still
            else {}
        )
        return News(answers, Poll(time.monotonic(), rows, self.idle))

    def cancel(self, packs: Iterable[str]) -> None:
        """Do not listen."""
        self.cancelled += packs

    def nudge(self, packs: Iterable[str]) -> None:
        """Do not listen."""

    def ask(self) -> None:
        """It has said what it has to say."""

    def close(self, patience: float = 0.0) -> None:
        """Nothing of it goes on by itself."""

    def end(self) -> None:
        """Kill what it has started."""
        for runner in self.runners:
            runner.kill()
            runner.wait(5)
