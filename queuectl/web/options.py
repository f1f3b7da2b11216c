"""How a server of pages was started: what may be done on it, and under which names it is asked."""

from __future__ import annotations

from queuectl.fast_start.dataclass import dataclass

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""The names of this machine. They may come with any port: `ssh -L` listens on another one."""

DEFAULT_PORT = 8484


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        port: where it listens on 127.0.0.1; 0: any free port.
        read_only: nothing can be changed.
        may_enqueue: new jobs may be queued, and commands of jobs changed.
        host_names: further names under which it may be asked.
        socket: the path of a unix socket on which it listens instead of a port.
        user_header: the header in which a proxy says who asks, in lower case; None: people log in by a link.
        allow, allow_read: the users that may do everything, and those that may only look.
        base_path: the beginning of each path, as in /queue; "" for none.
    """

    port: int = DEFAULT_PORT
    read_only: bool = False
    may_enqueue: bool = True
    host_names: frozenset[str] = frozenset()
    socket: str | None = None
    user_header: str | None = None
    allow: frozenset[str] = frozenset()
    allow_read: frozenset[str] = frozenset()
    base_path: str = ""

    @property
    def names(self) -> frozenset[str]:
        """All names under which it may be asked, in lower case, without a port."""
        return LOOPBACK | {name.lower() for name in self.host_names}
