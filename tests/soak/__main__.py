"""`python -m tests.soak --minutes 20 --seed N --workers 4`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import hooks, killer, rules
from .checks import Checker
from .producers import QUEUE_LIMIT, producers
from .world import Violation, World

SETTINGS = {
    "max_backoff": "2s", "backoff_base": "1.2", "kill_grace": "0.5", "settle_time": "2s", "log_limit": "1M",
    "stop_timeout": "60s", "max_retries": "3", "timeout": "20",
}  # fmt: skip


def main() -> int:
    """Soak, and say what came of it; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Work and harm on one spool, and a look at what is left of it.",
    )
    parser.add_argument("--minutes", type=float, default=20, help="how long (default 20)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of every choice; default: a new one, which is printed"
    )
    parser.add_argument("--workers", type=int, default=4, help="how many are kept (default 4)")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=8,
        help="jobs that each worker runs at once in the beginning; it is changed later (default 8)",
    )
    parser.add_argument(
        "--pause", type=float, default=1.0, help="mean seconds between two faults (default 1)"
    )
    parser.add_argument(
        "--dir", type=Path, default=None, help="where to make the spool (default: the temporary folder)"
    )
    given = parser.parse_args()
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    base = Path(tempfile.mkdtemp(prefix="queuectl-soak-", dir=given.dir)).resolve()
    print(
        f"soak: seed {seed}, {given.minutes:g} min, {given.workers} workers, {given.concurrency} jobs each, in {base}",
        flush=True,
    )
    # A developer's own settings must not reach the workers.
    os.environ["HOME"] = str(base)
    os.environ["QUEUECTL_SPOOL"] = str(base / "spool")
    world = World(base, seed)
    try:
        world.cli("config", "set", "concurrency", str(given.concurrency), may_fail=False)
        _soak(world, given.minutes * 60, given.workers, given.pause)
    except Violation as broken:
        world.violated(str(broken))
    finally:
        world.over.set()
        killer.end(world)
        world.close()
    return _report(world)


def _soak(world: World, duration: float, workers: int, pause: float) -> None:
    for key, value in SETTINGS.items():
        world.cli("config", "set", key, value, may_fail=False)
    world.cli("config", "set", "resources", "gpu=2", may_fail=False)
    world.cli("queue", "set", "mail", f"limit={QUEUE_LIMIT}", may_fail=False)
    rules.add(world)
    hooks.add(world)
    world.cli("worker", "start", "--count", str(workers), may_fail=False)
    harm = killer.Killer(world, pause, workers)
    checker = Checker(world, harm)
    actors = [*producers(world), harm]
    for actor in actors:
        actor.start()
    try:
        _watch(world, checker, time.monotonic() + duration)
    finally:
        world.over.set()
        for actor in actors:
            actor.join()
    if not world.violations:
        checker.finish(patience=max(60.0, duration / 4))


def _watch(world: World, checker: Checker, end: float) -> None:
    looks = 0
    while not world.over.wait(min(5.0, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
        looks += 1
        checker.look()
        if looks % 6 == 0:
            checker.stand_still()
            print(f"{time.monotonic() - world.began:6.0f} s: {_short(world)}", flush=True)


def _short(world: World) -> str:
    return f"{world.counts['acknowledged']} jobs acknowledged, {world.faults.total()} faults"


def _report(world: World) -> int:
    stamps = world.stamps()
    print("\nfaults:")
    for name, number in sorted(world.faults.items(), key=lambda pair: -pair[1]):
        print(f"  {number:5} {name}")
    print("counts:")
    for name, number in sorted(world.counts.items()):
        print(f"  {number:5} {name}")
    print(f"  {sum(one.what == 'start' for one in stamps):5} runs begun")
    print(f"  {sum(one.what.startswith('killed-') for one in stamps):5} workers killed by their jobs")
    for what in world.violations:
        print(f"VIOLATION (seed {world.seed}): {what}")
    if world.violations:
        print(f"everything is left in {world.base}, log: {world.base}/log")
        return 1
    shutil.rmtree(world.base)
    print(f"no promise broken (seed {world.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
