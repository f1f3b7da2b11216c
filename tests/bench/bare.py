"""The barest loop in Python that leaves files behind as queuectl does: what of the distance to xargs is left to win.

It knows its jobs beforehand, and has no index, no locks, no time limits, no history, nothing durable, and nobody may
interfere. `python bare.py FOLDER NUMBER` is one of its workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = 2


class Bare:
    """Claims by a rename, runs in a shell, writes the outcome into a file used over and over, and renames that."""

    name = "bare loop in Python"
    records = "state, exit code, output, times, in a file a job"
    durable = "nothing"
    client = ""
    runs = True
    most = 1_000_000

    def missing(self) -> str:
        """It is here, or this would not run."""
        return ""

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """A file for each."""
        for name in ("pending", "done", "logs", *(f"processing/{number}" for number in range(WORKERS))):
            (root / name).mkdir(parents=True)
        for number, text in enumerate(commands):
            record = {"id": f"{number:07}", "command": text, "state": "pending"}
            (root / "pending" / f"{number:07}.json").write_text(json.dumps(record), encoding="utf-8")
        return 0.0

    def work(self, root: Path) -> None:
        """Each of the workers takes every other one."""
        started = [
            subprocess.Popen([sys.executable, __file__, str(root), str(number)]) for number in range(WORKERS)
        ]
        for worker in started:
            worker.wait()

    def close(self, root: Path) -> None:
        """Nothing of it outlives its work."""


def run(root: str, number: int) -> None:
    """Run one worker's share."""
    mine = f"{root}/processing/{number}"
    scratch, streams = f"{mine}/scratch", (f"{mine}/out", f"{mine}/err")
    Path(scratch).touch()
    names = sorted(name for name in os.listdir(f"{root}/pending") if int(name[:-5]) % WORKERS == number)
    for name in names:
        claimed = f"{mine}/{name}"
        os.rename(f"{root}/pending/{name}", claimed)
        job = json.loads(_read(claimed))
        job["started_at"] = time.time()
        _, status = os.waitpid(_start(job["command"], *streams), 0)
        job |= {"finished_at": time.time(), "exit_code": os.waitstatus_to_exitcode(status)}
        job["state"] = "dead" if job["exit_code"] else "completed"
        printed = [_read(stream) for stream in streams]
        job["output"] = b"".join(printed).decode(errors="replace")
        for stream, text in zip(streams, printed, strict=True):
            if text:
                os.rename(stream, f"{root}/logs/{name}.{os.path.basename(stream)}")
        data = json.dumps(job, indent=2).encode()
        fd = os.open(scratch, os.O_WRONLY)
        os.write(fd, data)
        os.ftruncate(fd, len(data))
        os.close(fd)
        os.rename(scratch, f"{root}/done/{name}")
        os.rename(claimed, scratch)


def _start(command: str, out: str, err: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", command],
        os.environ,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, out, flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, err, flags, 0o600),
        ),
        setsid=True,
    )


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
