"""`python -m tests.bench [--tiny] [--dir DIR] [name ...]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import commands, drain, idle, latency
from .tools import TINY, Scale, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BENCHES: Mapping[str, Callable[[Scale, Path], None]] = {
    "latency": latency.latency,
    "idle": idle.idle,
    "enqueue": commands.enqueue,
    "dropped": commands.dropped,
    "drain": drain.drain,
    "backlog": drain.backlog,
}


def main() -> None:
    """Measure what is named, all without a name."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure queuectl on this machine."
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--tiny", action="store_true", help="so few that the numbers mean nothing")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to make the spools"
    )
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHES:
            parser.error(f"no measurement {name!r}; there are {', '.join(BENCHES)}")
    folder = given.dir.resolve()
    machine(folder)
    for name in given.names or BENCHES:
        BENCHES[name](TINY if given.tiny else Scale(), folder)


if __name__ == "__main__":
    main()
