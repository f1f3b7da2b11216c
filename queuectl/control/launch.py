"""What the command that starts a worker tells the new process: its name, when the start was asked for, its parent."""

from __future__ import annotations

import json

from queuectl.fast_start.dataclass import dataclass
from queuectl.system.host import boot_id
from queuectl.system.process import ProcessIdentity, clock_of_starts, pid_namespace


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker was started.

    Attributes:
        since: when its start was asked for, on the clock of system.process.start_time. A stop of all workers that came
            later is for this worker, too.
        name: the name that was reserved for it; None for any free one.
        fd: the descriptor of the lock on that name, which it inherits.
        parent: the process without which it must not run.
    """

    since: float
    name: str | None = None
    fd: int = -1
    parent: ProcessIdentity | None = None

    @classmethod
    def now(cls) -> Launch:
        """A worker that was asked for in this moment."""
        return cls(clock_of_starts())

    def to_text(self) -> str:
        """Return it as a word of a command line."""
        parent = [self.parent.pid, self.parent.started] if self.parent else None
        return json.dumps([self.since, self.name, self.fd, parent])

    @classmethod
    def of_text(cls, text: str) -> Launch:
        """Read what `to_text` has written.

        Raises:
            ValueError: it is something else.
        """
        try:
            since, name, fd, parent = json.loads(text)
            identity = (
                ProcessIdentity(int(parent[0]), float(parent[1]), boot_id(), pid_namespace())
                if parent
                else None
            )
            return cls(float(since), name, int(fd), identity)
        except (TypeError, IndexError) as error:
            raise ValueError(str(error)) from None
