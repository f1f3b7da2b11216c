"""Those who hand work over, each in a thread of its own and by a way of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from queuectl import Spool
from queuectl.errors import QueuectlError

from . import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from .world import World

KINDS = {
    "ok": 60, "fail": 8, "flaky": 8, "timeout": 2, "stubborn": 1, "stopped": 1, "background": 4, "flood": 3,
    "escape": 4, "killer": 0.7,
}  # fmt: skip
"""What the jobs do, and how often."""

ENOUGH = 150
"""Waiting jobs beyond which nobody adds more: a backlog hides how long a job waits."""


QUEUE_LIMIT = 3
"""How many jobs of the queue `mail` may run at once."""


class Producer(threading.Thread):
    """Queues jobs in one of the ways until the soak is over."""

    def __init__(self, world: World, way: str, pause: float) -> None:
        super().__init__(name=f"produce-{way}", daemon=True)
        self._world, self._way, self._pause = world, way, pause
        self._dice = world.dice(way)
        self._number = 0
        self._spool = Spool(world.spool)

    def run(self) -> None:
        """Queue, and wait."""
        make: Callable[[], None] = getattr(self, f"_by_{self._way}")
        while not self._world.over.wait(self._dice.expovariate(1 / self._pause)):
            with self._world.busy():
                if len(os.listdir(self._world.spool)) and self._waiting() < ENOUGH:
                    try:
                        make()
                    except Exception as error:
                        self._world.violated(f"{self.name}: {error!r}")
                        raise

    def _waiting(self) -> int:
        try:
            return len(os.listdir(self._world.spool / "pending"))
        except FileNotFoundError:
            return 0

    # -- what is queued --------------------------------------------------------------------------------------------

    def _job(self) -> tuple[str, dict[str, Any]]:
        self._number += 1
        kind = self._dice.choices([*KINDS], [*KINDS.values()])[0]
        words = [
            "sh",
            f"{self._world.outside}/job.sh",
            str(self._world.outside),
            kind,
            f"{self._length():.2f}",
        ]
        job: dict[str, Any] = {
            "id": f"{self._way}-{self._number}-{kind}",
            "command": words if self._dice.random() < 0.3 else "exec " + " ".join(words),
        }
        if kind in ("timeout", "stubborn", "stopped"):
            job |= {"timeout": 1, "max_retries": 1}
        if self._dice.random() < 0.2:
            job["priority"] = self._dice.randint(1, 10)
        return kind, job

    def _length(self) -> float:
        return self._dice.choice((0.0, 0.0, 0.01, 0.1, 0.3, 1.5))

    def _refused(self, what: str, error: object) -> None:
        self._world.counts[f"refused {self._way}"] += 1
        self._world.tell(f"{what} was refused: {error}")

    # -- the ways --------------------------------------------------------------------------------------------------

    def _by_door(self) -> None:
        kind, job = self._job()
        try:
            self._spool.enqueue(job)
        except QueuectlError as error:
            self._refused(job["id"], error)
        else:
            self._world.promised(job["id"], kind)

    def _by_many(self) -> None:
        jobs = [self._job() for _ in range(self._dice.randint(2, 40))]
        kinds = {job["id"]: kind for kind, job in jobs}
        try:
            for job_id in self._spool.enqueue_stream(job for _, job in jobs):
                self._world.promised(job_id, kinds[job_id])
        except QueuectlError as error:
            self._refused("many", error)

    def _by_cli(self) -> None:
        kind, job = self._job()
        if self._world.cli("enqueue", json.dumps(job)).returncode == 0:
            self._world.promised(job["id"], kind)

    def _by_key(self) -> None:
        """Jobs that share a few keys: of those with one key no two may run side by side, however they come."""
        kind, job = self._job()
        if kind not in ("ok", "fail", "flaky"):
            return
        key = f"key-{self._dice.randrange(3)}"
        way = self._dice.choice(("skip", "queue", "queue"))
        words = [*job["command"], key] if isinstance(job["command"], list) else f"{job['command']} {key}"
        job |= {"command": words, "unique": key, "if_exists": way}
        done = self._world.cli("enqueue", json.dumps(job))
        if done.returncode == 0 and done.stdout.startswith("enqueued job"):
            self._world.promised(job["id"], kind)
        elif done.returncode == 0:
            self._world.counts["skipped, as one had the key"] += 1

    def _by_chain(self) -> None:
        """Parents and a job that waits for them, which is queued first, last or between them, or dropped."""
        parents = [self._quick_job() for _ in range(self._dice.randint(1, 3))]
        self._number += 1
        child: dict[str, Any] = {
            "id": f"{self._way}-{self._number}-child",
            "command": f"exec sh {self._world.outside}/job.sh {self._world.outside} ok {self._length():.2f}",
            self._dice.choice(("after", "after", "after_any")): [job["id"] for _, job in parents],
            "if_blocked": self._dice.choice(("wait", "dead")),
        }
        if "after" in child:
            self._world.parents[child["id"]] = child["after"]
        jobs = [*parents, ("child", child)]
        self._dice.shuffle(jobs)
        try:
            self._spool.enqueue_many([job for _, job in jobs])
        except QueuectlError as error:
            self._refused(child["id"], error)
            jobs = [one for one in jobs if one[1]["id"] in error.queued]
        for kind, job in jobs:
            self._world.promised(job["id"], kind)

    def _by_queue(self) -> None:
        """Jobs of a queue with three places, some of which need one of two units as well."""
        for _ in range(self._dice.randint(1, 6)):
            kind, job = self._quick_job()
            job |= {"queue": "mail", "command": f"{' '.join(_words(job))} mail {QUEUE_LIMIT}"}
            if self._dice.random() < 0.4:
                job["needs"] = {"gpu": 1}
            try:
                self._spool.enqueue(job)
            except QueuectlError as error:
                self._refused(job["id"], error)
            else:
                self._world.promised(job["id"], kind)

    def _quick_job(self) -> tuple[str, dict[str, Any]]:
        """A job whose end leaves no process behind."""
        while True:
            kind, job = self._job()
            if kind in ("ok", "fail", "flaky"):
                return kind, job

    def _by_bulk(self) -> None:
        """Many through a pipe, by a command that may be killed on the way: what it has told of is promised."""
        jobs = [self._job() for _ in range(self._dice.randint(5, 60))]
        text = "".join(json.dumps(job) + "\n" for _, job in jobs)
        words = [
            sys.executable,
            "-m",
            "queuectl",
            "--spool",
            str(self._world.spool),
            "enqueue",
            "--file",
            "-",
        ]
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._world.base,
        ) as process:
            killer = threading.Timer(self._dice.uniform(0.05, 0.6), process.send_signal, (signal.SIGKILL,))
            if self._dice.random() < 0.4:
                self._world.faults["kill a producer"] += 1
                killer.start()
            told, complaint = process.communicate(text)
            killer.cancel()
        kinds = {job["id"]: kind for kind, job in jobs}
        for line in told.splitlines(keepends=True):
            if line.startswith("enqueued job ") and line.endswith("\n"):
                job_id = line.split()[-1]
                self._world.promised(job_id, kinds[job_id])
        if "Traceback" in complaint:
            self._world.violated(f"enqueue --file: {complaint[-3000:]}")
        elif process.returncode > 0:
            self._refused("bulk", complaint)

    def _by_mv(self) -> None:
        kind, job = self._job()
        scratch = self._world.spool / "tmp" / f".{job['id']}.part"
        scratch.write_text(json.dumps(job), encoding="utf-8")
        try:
            scratch.rename(self._world.spool / "pending" / f"{job['id']}.json")
        except FileNotFoundError as error:
            self._refused(job["id"], error)
            scratch.unlink()
        else:
            self._world.promised(job["id"], kind)

    def _by_hand(self) -> None:
        """Written where it belongs, slowly, in pieces; or in two goes with the file closed in between."""
        kind, job = self._job()
        text = json.dumps(job, indent=2)
        path = self._world.spool / "pending" / f"{job['id']}.json"
        cuts = sorted(self._dice.randrange(len(text)) for _ in range(2))
        pieces = (text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :])
        try:
            with path.open("x", encoding="utf-8") as file:
                for piece in pieces:
                    file.write(piece)
                    file.flush()
                    self._world.over.wait(self._dice.choice((0, 0.05, 0.3, 1.2)))
        except FileNotFoundError as error:
            self._refused(job["id"], error)
        else:
            self._world.promised(job["id"], kind)

    def _by_folder(self) -> None:
        """A scanner drops a file into a folder that a rule watches."""
        rule = self._dice.choice([*rules.FOLDERS])
        self._number += 1
        scratch = self._world.outside / "scratch"
        scratch.write_text(f"{self._number}\n")
        self._world.counts[f"files {rule}"] += 1
        os.rename(scratch, rules.folder(self._world, rule) / f"{self._number}.txt")

    def _by_rubbish(self) -> None:
        """No job, and never one: it has to end in dead/ with a reason."""
        self._number += 1
        path = self._world.spool / "pending" / f"rubbish-{self._number}.json"
        bad = self._dice.choice(('{"command": 5}', '{"comm', "", "[]", '{"command": "true", "priority": 99}'))
        try:
            path.write_text(bad, encoding="utf-8")
        except FileNotFoundError as error:
            self._refused(path.name, error)
        else:
            self._world.counts["rubbish dropped"] += 1


def _words(job: dict[str, Any]) -> list[str]:
    command = job["command"]
    return command if isinstance(command, list) else command.split()


def producers(world: World) -> list[Producer]:
    """One for each way, with the mean seconds between what each does."""
    pauses = {
        "door": 0.4,
        "many": 8.0,
        "cli": 1.5,
        "bulk": 9.0,
        "mv": 0.5,
        "hand": 1.0,
        "key": 1.5,
        "chain": 2.0,
        "queue": 2.0,
        "rubbish": 6.0,
        "folder": 1.0,
    }
    return [Producer(world, way, pause) for way, pause in pauses.items()]
