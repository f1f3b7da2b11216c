"""`python -m tests.bench [--tiny] [--dir DIR] [--image [GB]] [--most N] [name ...]`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import (
    commands,
    concurrency,
    dependencies,
    drain,
    files_and_hooks,
    flood,
    growth,
    handing,
    idle,
    install,
    latency,
    place,
    queues,
    reports,
    rules,
    slurm,
    verbs,
    web,
)
from .image import mounted
from .peers import peers
from .scale import TINY, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BENCHES: Mapping[str, Callable[[Scale, Path], None]] = {
    "drain": drain.drain,
    "sleepers": drain.sleepers,
    "concurrency": concurrency.concurrency,
    "latency": latency.latency,
    "enqueue": commands.enqueue,
    "python": handing.python,
    "idle": idle.idle,
    "peers": peers,
    "queues": queues.queues,
    "dependencies": dependencies.dependencies,
    "rules": rules.rules,
    "files-and-hooks": files_and_hooks.files_and_hooks,
    "slurm": slurm.slurm,
    "bulk": handing.bulk,
    "verbs": verbs.verbs,
    "dropped": commands.dropped,
    "flood": flood.flood,
    "growth": growth.growth,
    "reports": reports.reports,
    "web": web.web,
}
"""What deletes or makes very many files comes last: it slows others down for minutes."""


def main() -> None:
    """Measure what is named, all without a name."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure queuectl on this machine, and other queues beside it. `setup` installs those.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--tiny", action="store_true", help="so few that the numbers mean nothing")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to make the spools"
    )
    parser.add_argument(
        "--image",
        type=float,
        nargs="?",
        const=32,
        metavar="GB",
        help="measure once more on a disk with a journal: an ext4 image in DIR, mounted meanwhile (root; default: 32)",
    )
    parser.add_argument("--most", type=int, metavar="N", help="growth: no spool of more than N jobs")
    given = parser.parse_args()
    if given.names == ["setup"]:
        install.set_up()
        return
    for name in given.names:
        if name not in BENCHES:
            parser.error(f"no measurement {name!r}; there are {', '.join(BENCHES)}, and setup by itself")
    scale = TINY if given.tiny else Scale()
    if given.most:
        if given.most < scale.backlogs[0]:
            parser.error(f"--most must be {scale.backlogs[0]} at least")
        kept = tuple(jobs for jobs in scale.backlogs if jobs <= given.most)
        scale = dataclasses.replace(scale, backlogs=kept)
    with contextlib.ExitStack() as stack:
        stack.callback(place.clear_up)
        folder = given.dir.resolve()
        folders = [folder]
        if given.image:
            folders.append(stack.enter_context(mounted(folder, given.image)))
        for one in folders:
            place.machine(one)
            for name in given.names or BENCHES:
                BENCHES[name](scale, one)


if __name__ == "__main__":
    main()
