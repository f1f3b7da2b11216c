"""What the pages of `queuectl web` cost: a real server on spools with few and with very many jobs, and tabs that poll it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil

from queuectl.job import times

from .idle import used
from .place import Box, box, wait_for
from .tables import Samples, number, ratios, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .scale import Scale

PAGES = {
    "overview": "/",
    "the same, 24 hours": "/?plot=day",
    "jobs": "/jobs",
    "jobs, oldest first": "/jobs?sort=arrived",
    "jobs, ended last first": "/jobs?sort=-finished",
    "jobs, next in line": "/jobs?sort=next",
    "jobs of a state": "/jobs?state=completed",
    "jobs with a tag": "/jobs?tag=rare",
    "jobs with a text in their command": "/jobs?command=program7",
    "jobs of a day": "/jobs?since=1d",
    "a text that no job has, an answer": "/jobs?command=nothing+has+this",
    "dead": "/dead",
    "dead of a reason": "/dead?reason=Exit+code+3",
    "line": "/line",
    "queues": "/queues",
    "batches": "/batches",
    "workers": "/workers",
    "rules": "/rules",
    "a waiting job": "/job/wait",
    "a dead job": "/job/bad",
    "a part of a log": "/job/bad/log?from=0",
    "a list that has not changed (304)": "/part/jobs",
}
"""What is asked. Each is asked once before it is measured: the first one of an order makes an index."""

TABS = ("/part/", "/part/jobs", "/part/jobs?state=pending", "/part/dead", "/part/line", "/part/workers", "/part/queues",
        "/part/batches", "/part/job/bad", "/part/")  # fmt: skip
PERIOD = 2.0
"""Seconds between an answer and the next question, as in `app.js`."""


class _Server:
    """A server of pages, and a visitor who is logged in."""

    def __init__(self, made: Box) -> None:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            made.command("web", "--port", "0"),
            env=made.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr
        line = ""
        while "/login?token=" not in line:
            line = self._process.stderr.readline()
            if not line:
                raise RuntimeError("queuectl web has not begun")
        link = urlsplit(line.split()[-1])
        self.pid, self._port = self._process.pid, link.port
        self._headers: dict[str, str] = {}
        connection = self.connection()
        connection.request("GET", f"{link.path}?{link.query}")
        answer = connection.getresponse()
        answer.read()
        self.began_after = time.perf_counter() - began
        self._headers = {"Cookie": (answer.getheader("Set-Cookie") or "").partition(";")[0]}
        connection.close()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def ask(self, connection: http.client.HTTPConnection, path: str, mark: str = "") -> tuple[int, str, int]:
        """Return the status, the ETag and the size of an answer."""
        connection.request(
            "GET", path, headers={**self._headers, **({"If-None-Match": mark} if mark else {})}
        )
        answer = connection.getresponse()
        size = len(answer.read())
        if answer.status not in {200, 304}:
            raise RuntimeError(f"{path}: {answer.status}")
        return answer.status, answer.getheader("ETag") or "", size

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        assert self._process.stderr
        self._process.stderr.close()


@contextlib.contextmanager
def _served(made: Box) -> Iterator[_Server]:
    server = _Server(made)
    try:
        yield server
    finally:
        server.stop()


def web(scale: Scale, folder: Path) -> None:
    """(w) Each page of a small and of large spools by turns, tabs that poll, and what that does to workers."""
    with contextlib.ExitStack() as stack:
        boxes = {jobs: stack.enter_context(box(folder)) for jobs in scale.sites}
        for jobs, made in boxes.items():
            _fill(made, jobs)
        servers = {jobs: stack.enter_context(_served(made)) for jobs, made in boxes.items()}
        rows = [_asked(what, path, servers, scale) for what, path in PAGES.items()]
        few, *_, many = boxes
        sizes = [f"{jobs:,} jobs" for jobs in boxes]
        heads = ("processor time of an answer", *sizes, "most to least")
        table("(w) pages: median (least to most)", heads, rows)
        rows = []
        for jobs, server in servers.items():
            idle, share, answers, unchanged = _polled(server, scale.idle)
            memory = psutil.Process(server.pid).memory_full_info()
            rows.append([
                f"{jobs:,} jobs", number(server.began_after, "s"), number(memory.rss, "MB"), number(memory.uss, "MB"),
                f"{idle:.2f} %", f"{share:.2f} %", f"{unchanged} of {answers}",
            ])  # fmt: skip
        heads = (
            "",
            "start to the first answer",
            "memory",
            "of that its own",
            "of a core, no tab",
            f"{len(TABS)} tabs",
            "of that 304",
        )
        table("(x) a server that is asked by ten tabs", heads, rows)
        rows = [
            _drained(f"{jobs:,} jobs", boxes[jobs], servers[jobs], scale)
            for jobs in dict.fromkeys((few, many))
        ]
        table(
            "(y) two workers drain `true` while ten tabs poll",
            ("", "with them", "without", "rate to without"),
            rows,
        )


def _asked(what: str, path: str, servers: dict[int, _Server], scale: Scale) -> list[str]:
    found: dict[int, list[float]] = {jobs: [] for jobs in servers}
    connections = {jobs: server.connection() for jobs, server in servers.items()}
    marks = {jobs: server.ask(connections[jobs], path)[1] for jobs, server in servers.items()}
    for _ in range(scale.samples):
        for jobs, server in servers.items():
            before = used([server.pid])
            status, marks[jobs], _ = server.ask(connections[jobs], path, marks[jobs])
            if status == 304 or not path.startswith("/part"):
                found[jobs].append(used([server.pid]) - before)
    for connection in connections.values():
        connection.close()
    samples = {jobs: values or [0.0] for jobs, values in found.items()}
    few, *_, many = samples.values()
    shown = [Samples(values).cell() for values in samples.values()]
    return [what, *shown, f"{Samples(many).median / max(Samples(few).median, 1e-9):.2f}"]


def _polled(server: _Server, seconds: float) -> tuple[float, float, int, int]:
    """Return the shares of a core, without and with tabs, how many answers there were, and how many said 304."""
    wait_for(lambda: _share(server, 0.2) < 50, timeout=30)
    idle = _share(server, seconds)
    with _tabs(server) as counted:
        time.sleep(PERIOD)  # their first answers are pages that were just opened
        counted[:] = [0, 0]
        share = _share(server, max(seconds, 2 * PERIOD))
        answers, unchanged = counted
    return idle, share, answers, unchanged


def _share(server: _Server, seconds: float) -> float:
    before, began = used([server.pid]), time.monotonic()
    time.sleep(seconds)
    return 100 * (used([server.pid]) - before) / (time.monotonic() - began)


@contextlib.contextmanager
def _tabs(server: _Server) -> Iterator[list[int]]:
    """Tabs that poll as the script of a page does. Yields how many answers came, and how many of them said 304."""
    counted, is_over = [0, 0], threading.Event()

    def poll(path: str, place: int) -> None:
        connection, mark = server.connection(), ""
        is_over.wait(PERIOD * place / len(TABS))
        while not is_over.is_set():
            status, mark, _ = server.ask(connection, path, mark)
            counted[0] += 1
            counted[1] += status == 304
            is_over.wait(PERIOD)
        connection.close()

    threads = [threading.Thread(target=poll, args=(path, place)) for place, path in enumerate(TABS)]
    for thread in threads:
        thread.start()
    try:
        yield counted
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _drained(name: str, made: Box, server: _Server, scale: Scale) -> list[str]:
    watched: list[float] = []
    alone: list[float] = []
    for _ in range(scale.laps):
        for found, tabs in ((alone, contextlib.nullcontext()), (watched, _tabs(server))):
            with tabs:
                found.append(_rate(made, scale.drain))
    return [name, Samples(watched).cell("/s"), Samples(alone).cell("/s"), ratios(watched, alone)]


def _rate(made: Box, jobs: int) -> float:
    """Jobs a second of two workers. To list the folder of those that have ended again and again would take a core."""
    ids = made.spool.enqueue_many({"command": "true", "priority": 10} for _ in range(jobs))
    before = made.spool.counts()["completed"]
    made.start(2)
    wait_for(lambda: made.spool.counts()["completed"] >= before + jobs, pause=0.05)
    made.stop()
    return jobs / made.took({f"{job_id}.json" for job_id in ids}, jobs)


def _fill(made: Box, jobs: int) -> None:
    """Files of jobs as workers and people leave them: half have ended well, some are dead, the others wait until 2090
    or in a queue that is paused.
    """
    chance, now = random.Random(7), time.time()
    for turn in range(jobs):
        ended, ran = now - 20 * 86400 * (jobs - turn) / jobs, chance.random()
        kind = turn % 20
        folder = "done" if kind < 10 else "dead" if kind == 10 else "pending"
        record: dict[str, object] = {
            "id": f"{chance.getrandbits(48):012x}{turn}",
            "command": f"program{turn % 40} --with {turn} things",
            "state": {"done": "completed"}.get(folder, folder),
            "created_at": times.iso(ended - ran - chance.random()),
        }
        if folder == "pending":
            if kind == 12:
                record["queue"] = "mail"  # which is paused
            else:
                record |= {"hold": True} if turn % 2000 == 13 else {"run_at": "2090-01-01T00:00:00Z"}
        else:
            record |= {
                "attempts": 1, "started_at": times.iso(ended - ran), "finished_at": times.iso(ended),
                "updated_at": times.iso(ended), "duration": ran, "exit_code": 0, "worker": "worker-0",
            }  # fmt: skip
        if folder == "dead":
            record |= {"exit_code": turn % 7, "last_error": f"Exit code {turn % 7}"}
        if kind == 3:
            record["batch"] = f"batch{turn // 20 % 50}"
        if turn % 1000 == 5:
            record["tags"] = ["rare"]
        _write(made, f"{folder}/{record['id']}.json", json.dumps(record).encode())
    _write(made, "pending/wait.json", b'{"id": "wait", "command": "true", "run_at": "2090-01-01T00:00:00Z"}')
    run = {"outcome": "failed", "exit_code": 1, "error": "Exit code 1", "duration": 1.5}
    bad = {
        "id": "bad",
        "command": "false",
        "state": "dead",
        "attempts": 1,
        "last_error": "Exit code 1",
        "history": [run],
    }
    _write(made, "dead/bad.json", json.dumps(bad).encode())
    _write(made, "logs/bad.1.out", b"a line of output of some length\n" * 4096)
    _write(made, "queues/mail.paused", b"")
    made.spool.reindex()


def _write(made: Box, name: str, data: bytes) -> None:
    file = os.open(made.path / name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(file, data)
    os.close(file)
