"""The one who picks a fault every second or so. Each fault is one that a machine or a person really makes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psutil

from queuectl import Spool
from queuectl.system import files

import support
from . import hooks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.control.registry import WorkerInfo

    from .world import World

FAULTS = {
    "kill a worker": 12, "kill a worker and its job": 2, "kill all workers": 1, "stop a worker for 3 s": 6,
    "TERM a worker": 2, "stop gracefully": 3, "stop by force": 3, "delete the index": 4, "old index": 4,
    "copied index": 2, "damaged index": 3, "pending away": 4, "dead to pending": 4, "done to pending": 4,
    "pending to dead": 4, "delete waiting": 2, "delete finished": 2, "setting": 4, "clear done": 2, "clear dead": 2,
    "no room": 2, "cancel": 3, "retry all": 2, "reindex": 1, "hold": 4, "release": 3, "paused": 2, "change": 3,
    "concurrency": 4,
}  # fmt: skip
"""What is done, and how often."""


class Killer(threading.Thread):
    """Does harm until the soak is over.

    Args:
        pause: mean seconds between two faults.
        workers: how many there are to be.
    """

    def __init__(self, world: World, pause: float, workers: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._world, self._pause, self._wanted = world, pause, workers
        self._dice = world.dice("killer")
        self._copy = world.base / "old.db"
        self._frozen: list[psutil.Process] = []
        self._timers: list[threading.Timer] = []

    def run(self) -> None:
        """Do harm, see that there are workers, wait."""
        while not self._world.over.wait(self._dice.expovariate(1 / self._pause)):
            name = self._dice.choices([*FAULTS], [*FAULTS.values()])[0]
            with self._world.busy():
                self._world.tell(f"fault: {name}")
                fault: Callable[[], object] = getattr(
                    self, "_" + name.replace(" ", "_").replace("3_s", "while")
                )
                try:
                    if fault() is not False:
                        self._world.faults[name] += 1
                    self.keep_workers()
                except Exception as error:
                    self._world.violated(f"{name}: {error!r}")
                    raise

    def keep_workers(self) -> None:
        """See that there are as many workers as there are to be."""
        missing = self._wanted - len(self._workers())
        if missing > 0 and self._dice.random() < 0.8:
            self._world.cli("worker", "start", "--count", str(missing))

    def calm(self) -> None:
        """Let everything that is held up go on."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen.clear()
        self._world.cli("config", "set", "min_free_space", "0")
        self._end_pause()
        self._world.cli("release", "--all")

    def _workers(self) -> list[WorkerInfo]:
        return Spool(self._world.spool).workers()

    def _worker(self) -> psutil.Process | None:
        found = self._workers()
        if not found:
            return None
        with suppress(psutil.NoSuchProcess, ValueError):
            process = psutil.Process(self._dice.choice(found).pid)
            if "worker" in process.cmdline():
                return process
        return None

    # -- workers ---------------------------------------------------------------------------------------------------

    def _kill_a_worker(self) -> bool:
        victim = self._worker()
        if victim:
            self._world.tell(f"kill {victim.pid}")
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        return victim is not None

    def _kill_a_worker_and_its_job(self) -> bool:
        victim = self._worker()
        if victim:
            with suppress(psutil.NoSuchProcess):
                for process in (victim, *victim.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
        return victim is not None

    def _kill_all_workers(self) -> None:
        for worker in self._workers():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(worker.pid).kill()

    def _stop_a_worker_for_while(self) -> bool:
        victim = self._worker()
        if victim:
            with suppress(psutil.NoSuchProcess):
                victim.suspend()
                self._frozen.append(victim)
            timer = threading.Timer(3, self._thaw, (victim,))
            timer.daemon = True
            timer.start()
            self._timers.append(timer)
        return victim is not None

    @staticmethod
    def _thaw(victim: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            victim.resume()

    def _TERM_a_worker(self) -> bool:  # noqa: N802
        victim = self._worker()
        if victim:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGTERM)
        return victim is not None

    def _stop_gracefully(self) -> None:
        self._world.cli("worker", "stop")

    def _stop_by_force(self) -> None:
        self._world.cli("worker", "stop", "--force")

    # -- the index -------------------------------------------------------------------------------------------------

    def _index(self) -> Path:
        return self._world.spool / "data" / "queuectl.db"

    def _delete_the_index(self) -> None:
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._index()}{ending}")

    def _old_index(self) -> bool:
        """Put a sound copy of some time ago in its place, and make the copy for the next time."""
        done = self._copy.exists()
        if done:
            self._delete_the_index()
            self._copy.replace(self._index())
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self._index())) as source,
            closing(sqlite3.connect(self._copy)) as copy,
        ):
            source.backup(copy)
        return done

    def _copied_index(self) -> None:
        """What `cp` makes of a file in use, put over it by `mv`; its journal stays that of the other."""
        copy = self._world.base / "cp.db"
        with suppress(FileNotFoundError):
            shutil.copy(self._index(), copy)
            copy.replace(self._index())

    def _damaged_index(self) -> None:
        with suppress(FileNotFoundError), self._index().open("r+b") as file:
            if self._dice.random() < 0.5:
                file.truncate(self._dice.randrange(1, 20_000))
            else:
                file.seek(self._dice.randrange(0, 20_000))
                file.write(self._dice.randbytes(2000))

    def _reindex(self) -> None:
        self._world.cli("reindex")

    # -- folders and files -----------------------------------------------------------------------------------------

    def _pending_away(self) -> None:
        """Rename it away, and put it back; what was queued meanwhile joins what was there."""
        here, away = self._world.spool / "pending", self._world.base / "away"
        try:
            here.rename(away)
        except FileNotFoundError:
            return
        time.sleep(self._dice.choice((0, 0.01, 0.1, 0.7)))
        while True:
            try:
                files.move(str(away), str(here))
                return
            except FileExistsError:
                for path in here.iterdir():
                    with suppress(FileNotFoundError, FileExistsError):
                        files.move(str(path), str(away / path.name))
                with suppress(OSError):
                    here.rmdir()

    def _some(self, folder: str) -> list[Path]:
        found = sorted((self._world.spool / folder).glob("*.json"))
        # What is no job, or not whole yet, is left to the workers: moved to dead/ it would lie there unexplained.
        found = [path for path in found if not path.name.startswith(("rubbish-", "hand-", *hooks.PREFIXES))]
        return self._dice.sample(found, min(len(found), self._dice.randint(1, 3)))

    def _move(self, source: str, target: str) -> bool:
        some = self._some(source)
        for path in some:
            self._world.again.add(path.stem)
            self._world.tell(f"mv {source}/{path.name} {target}/")
            with suppress(FileNotFoundError, FileExistsError):
                files.move(str(path), str(self._world.spool / target / path.name))
        return bool(some)

    def _dead_to_pending(self) -> bool:
        return self._move("dead", "pending")

    def _done_to_pending(self) -> bool:
        return self._move("done", "pending")

    def _pending_to_dead(self) -> bool:
        return self._move("pending", "dead")

    def _delete_from(self, folder: str) -> bool:
        some = self._some(folder)
        for path in some:
            self._world.tell(f"rm {folder}/{path.name}")
            self._world.forgotten(path.stem)
            with suppress(FileNotFoundError):
                path.unlink()
        return bool(some)

    def _delete_waiting(self) -> bool:
        return self._delete_from("pending")

    def _delete_finished(self) -> bool:
        return self._delete_from(self._dice.choice(("done", "dead")))

    # -- commands --------------------------------------------------------------------------------------------------

    def _setting(self) -> None:
        key, values = self._dice.choice(
            (
                ("timeout", (10, 20, 30)),
                ("max_retries", (1, 2, 3)),
                ("priority", (3, 5, 7)),
                ("log_limit", ("100K", "1M")),
            )
        )
        self._world.cli("config", "set", key, str(self._dice.choice(values)), may_fail=False)

    def _concurrency(self) -> None:
        """How many jobs each worker runs at once from now on."""
        self._world.cli("config", "set", "concurrency", str(self._dice.choice((1, 3, 8, 64))), may_fail=False)

    def _no_room(self) -> None:
        self._world.cli("config", "set", "min_free_space", "900000G")
        time.sleep(self._dice.uniform(0.5, 2.5))
        self._world.cli("config", "set", "min_free_space", "0")

    def _clear_done(self) -> None:
        hooks.note(self._world)
        Spool(self._world.spool).clear("completed")
        self.deleted_by_clear()

    def _clear_dead(self) -> None:
        hooks.note(self._world)
        before = {path.stem for path in (self._world.spool / "dead").glob("*.json")}
        self._world.cli("dlq", "clear", "--yes")
        self.deleted_by_clear(before)

    def deleted_by_clear(self, known: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """What is gone now was deleted on purpose, if it was known to lie there or had begun to run by then.

        Its producer may not have come to say that it was handed in: on a busy machine the job is faster.
        """
        begun = {stamp.job_id for stamp in self._world.stamps()}
        there = self._world.places()
        for job_id in sorted((known | begun) - there.keys()):
            self._world.forgotten(job_id)

    def _cancel(self) -> bool:
        some = self._some(self._dice.choice(("pending", "processing/worker-0", "processing/worker-1")))
        for path in some[:1]:
            self._world.cli("cancel", path.stem)
        return bool(some)

    def _hold(self) -> bool:
        some = self._some("pending")
        for path in some:
            self._world.cli("hold", path.stem)
        return bool(some)

    def _release(self) -> None:
        self._world.cli("release", "--all")

    def _change(self) -> bool:
        some = self._some("pending")
        if some:
            self._world.cli(
                "set", *(path.stem for path in some), f"priority={self._dice.randint(1, 10)}", "tags=changed"
            )
        return bool(some)

    def _paused(self) -> None:
        """The marker is touched by hand and taken away by the command, or the other way round."""
        marker = self._world.spool / "paused"
        if self._dice.random() < 0.5:
            marker.touch(mode=0o600)
        else:
            self._world.cli("pause")
        timer = threading.Timer(self._dice.uniform(0.2, 3), self._end_pause)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _end_pause(self) -> None:
        with suppress(FileNotFoundError):
            (self._world.spool / "paused").unlink()

    def _retry_all(self) -> None:
        self._world.again |= {path.stem for path in (self._world.spool / "dead").glob("*.json")}
        told = self._world.cli("dlq", "retry", "--all").stdout.splitlines()
        # One that died between our look and the command's.
        self._world.again |= {line.removeprefix("requeued job ") for line in told}


def end(world: World) -> None:
    """Leave nothing of the soak running."""
    support.end_workers(world.spool)
