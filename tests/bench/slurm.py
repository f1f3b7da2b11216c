"""Jobs on a cluster on this machine, beside `sbatch` alone, which records nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from queuectl.config.change import set_value

from .place import box, folder_in, wait_for
from .tables import Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .place import Box
    from .scale import Scale

TESTS = Path(__file__).parents[1]
NODES, PROCESSORS = 3, 16
SENDERS = 4
"""How many sbatch run at once, here and there."""


def slurm(scale: Scale, folder: Path) -> None:
    """(s) A dispatcher and its cluster against sbatch, in turns; both start from jobs that wait and end when all have ended."""
    if not shutil.which("slurmctld"):
        print("\n(s) jobs on a cluster: not measured, as slurmctld is not installed")
        return
    many, naps = scale.cluster, scale.cluster_naps
    rows = []
    with _cluster():
        for title, command, jobs, pack in (
            (f"{many:,} × `true`", "true", many, 100),
            (f"{many:,} × `true`, slurm_pack 1", "true", many, 1),
            (f"{naps:,} × `sleep 2`", "sleep 2", naps, 100),
        ):
            ours, theirs = [], []
            for _ in range(scale.rounds):
                theirs.append(jobs / _sbatch(command, jobs))
                ours.append(jobs / _drained(folder, command, jobs, pack))
            rows.append([title, Samples(ours).cell("/s"), Samples(theirs).cell("/s"), ratios(ours, theirs)])
        slots = f"{NODES * PROCESSORS} slots"
        table(f"(s) jobs on a Slurm of {slots}", ("", "queuectl", "sbatch", "rate to sbatch"), rows)
        _delays(scale, folder)


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    # The path of munge's socket must be short.
    home = Path(tempfile.mkdtemp(prefix="qb", dir="/tmp"))
    script, before = TESTS / "slurm_cluster" / "testcluster.sh", os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(home / "slurm.conf")
    knobs = {**os.environ, "QT_PORT": str(18000 + os.getpid() % 1000 * 10), "QT_MINJOBAGE": "10"}
    try:
        words = [str(script), "start", str(home), str(NODES), str(PROCESSORS)]
        subprocess.run(words, env=knobs, check=True, timeout=60)
        yield
    finally:
        subprocess.run([script, "stop", home], check=False, timeout=60)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(home, ignore_errors=True)


def _sbatch(command: str, jobs: int) -> float:
    """Seconds until so many jobs were sent by sbatch and have ended."""
    words = ["sbatch", "--parsable", "--no-requeue", "--output=/dev/null", f"--wrap={command}"]
    began = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda _: subprocess.run(words, check=True, capture_output=True), range(jobs)))
    squeue = ["squeue", "--me", "--noheader", "--format=%i"]
    wait_for(lambda: not subprocess.run(squeue, check=True, capture_output=True).stdout, pause=0.1)
    return time.perf_counter() - began


def _drained(folder: Path, command: str, jobs: int, pack: int) -> float:
    """Seconds in which a dispatcher starts, has all jobs run, records them, and leaves."""
    with _spool(folder) as made:
        set_value(made.spool.layout, "slurm_pack", str(pack))
        made.hand_over(jobs, command=command, timeout=20)
        began = time.perf_counter()
        dispatcher = _dispatcher(made, "--drain")
        if dispatcher.wait(300):
            raise RuntimeError(f"the dispatcher has ended with {dispatcher.returncode}")
        took = time.perf_counter() - began
        if len(made.done()) != jobs:
            raise RuntimeError(f"{len(made.done())} of {jobs} jobs are done")
    return took


@contextlib.contextmanager
def _spool(folder: Path) -> Iterator[Box]:
    """A spool whose jobs are for the cluster."""
    with box(folder) as made:
        share = folder_in(folder)
        set_value(made.spool.layout, "slurm_dir", str(share))
        set_value(made.spool.layout, "engine", "slurm")
        yield made


def _dispatcher(made: Box, *options: str) -> subprocess.Popen[bytes]:
    """Start one that may also be root's. Its runners beat every half second instead of every ten."""
    program = str(TESTS / "as_dispatcher.py")
    words = [sys.executable, program, "worker", "start", "--engine", "slurm", "--foreground", *options]
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        words,
        env={**made.environment, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


# -- how soon ----------------------------------------------------------------------------------------------------------


def _delays(scale: Scale, folder: Path) -> None:
    """From the call until the command has begun on an idle cluster; until a cancelled one has ended; what it costs."""
    with _spool(folder) as made:
        dispatcher = _dispatcher(made)
        try:
            _begun(made, "first")  # it has started
            ours, theirs, ends = [], [], []
            for turn in range(scale.cluster_starts):
                theirs.append(_begun_by_sbatch(made, f"theirs{turn}"))
                took, end = _begun_and_cancelled(made, f"ours{turn}")
                ours.append(took)
                ends.append(end)
            process = psutil.Process(dispatcher.pid)
            memory = [float(process.memory_info().rss)]
            used = _processor_time(process, scale.idle)
        finally:
            dispatcher.send_signal(signal.SIGTERM)
            dispatcher.wait(60)
    rows = [
        ["`sbatch` to first instruction", Samples(theirs).cell("s"), ""],
        ["`enqueue` to first instruction", Samples(ours).cell("s"), ratios(ours, theirs)],
        ["`cancel` to the end of a running job", Samples(ends).cell("s"), ""],
        ["memory of a dispatcher", Samples(memory).cell("MB"), ""],
        ["a dispatcher without jobs, of a processor", Samples([used]).cell("%"), ""],
    ]
    table("(s) how soon, and what a dispatcher costs", ("", "median (least to most)", "to sbatch"), rows)


def _begun(made: Box, name: str, last: str = "") -> float:
    mark = made.root / name
    began = time.perf_counter()
    made.spool.enqueue(f"touch {mark}; {last or 'true'}", id=name, timeout=60)
    wait_for(mark.exists)
    return time.perf_counter() - began


def _begun_and_cancelled(made: Box, name: str) -> tuple[float, float]:
    took = _begun(made, name, "exec sleep 60")
    began = time.perf_counter()
    made.spool.cancel(name)
    wait_for((made.path / "dead" / f"{name}.json").exists)
    return took, time.perf_counter() - began


def _begun_by_sbatch(made: Box, name: str) -> float:
    mark = made.root / name
    words = ["sbatch", "--parsable", "--no-requeue", "--output=/dev/null", f"--wrap=touch {mark}"]
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    wait_for(mark.exists)
    return time.perf_counter() - began


def _processor_time(process: psutil.Process, seconds: float) -> float:
    """Percent of a processor that it takes."""
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    time.sleep(seconds)
    return 100 * (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - began)
