"""A process that has everything imported and forks a child for each move that a fault shall meet.

Started by faults.Server. Each line on stdin is a request, each line on stdout the answer. A child waits for a byte
before it begins, so that strace can be attached to nothing but the move itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from queuectl.system import host

_BOOT = ["boot-0"]
host.boot_id = lambda: _BOOT[0]  # before the rooms that take it over by name are imported

from queuectl import Spool, Worker, cli  # noqa: E402
from queuectl.errors import SpoolError  # noqa: E402
from queuectl.executor.local import LocalRunner  # noqa: E402
from queuectl.job.outcome import Ending, Outcome  # noqa: E402
from queuectl.storage import file_pool  # noqa: E402
from queuectl.storage.settle import settle_all  # noqa: E402
from queuectl.worker import prefetch, settle_batch  # noqa: E402

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt, Running

_ANY_TRACER = 0x59616D61, ctypes.c_ulong(-1)
"""PR_SET_PTRACER, PR_SET_PTRACER_ANY: strace is not our parent."""


class InlineRunner:
    """Runs no process: it does what `echo WORD >> FILE` does, so that every call traced is queuectl's own."""

    def start(self, attempt: Attempt) -> Running | Outcome:
        """Write the line; a command that goes on with `exit 1` fails."""
        assert isinstance(attempt.command, str)
        words = attempt.command.split()
        try:
            # Unbuffered: what a buffer could not write it would try again at its end.
            fd = os.open(words[3].rstrip(";"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(fd, f"{words[1]}\n".encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise SpoolError.from_os("write", words[3], error) from None
        failed = words[-1] == "1"
        ending = Ending.FAILED if failed else Ending.SUCCEEDED
        return Outcome(ending, int(failed), "Exit code 1" if failed else None, 0.0)


def work(
    root: str,
    *,
    inline: bool = False,
    ahead: float = 0.0,
    recycle: bool = True,
    at_once: int = 0,
    slots: int = 1,
) -> list[str]:
    """Run a worker until nothing is left to do; returns what it said.

    Args:
        ahead: seconds that its clock is ahead, so that retries are due.
        recycle: False makes it settle without recycled files.
        at_once: so many jobs are claimed, and put away, at a time.
        slots: so many run at once, started as by a worker of its own: in threads, except for the first one.
    """
    said: list[str] = []
    runner: Any = InlineRunner() if inline else LocalRunner(may_chdir=slots > 1)
    clock = partial(_clock, ahead)
    worker = Worker(root, drain=True, say=said.append, runner=runner, now=clock, concurrency=slots)
    if not recycle:
        settle_batch.settle_all = _settle_without(settle_all)  # type: ignore[attr-defined]
    if at_once:
        # However slow it is under strace, and few as they are.
        prefetch.MAX_BATCH, prefetch.WAITING_SHARE = at_once, 1
        prefetch.BATCH_SECONDS, prefetch.LONG_JOB = 1e9, 1e8
        prefetch.Prefetch._next_size = lambda self: at_once  # type: ignore[method-assign]  # noqa: ARG005
    worker.run()
    return said


def _clock(ahead: float) -> float:
    return time.time() + ahead


def _settle_without(settle: Any) -> Any:
    return lambda storage, claims, _pool=None, **_how: settle(storage, claims)


def perform(request: dict[str, Any]) -> Any:
    """Do one move."""
    root, move = request["spool"], request["move"]
    if move == "enqueue":
        return Spool(root).enqueue(request["command"], **request.get("fields", {})).id
    if move == "enqueue_many":
        return Spool(root).enqueue_many(request["jobs"])
    if move == "work":
        return work(root, **request.get("how", {}))
    if move == "retry":
        return Spool(root).retry(request["id"]).state
    if move == "set":
        return Spool(root).set(request["id"], **request["fields"]).state
    if move == "cancel":
        return Spool(root).cancel(request["id"])
    if move == "clear":
        return Spool(root).clear()
    if move == "look":
        spool = Spool(root)
        spool.refresh()  # makes the spool
        return [[row.id, row.state] for row in spool.list()]
    if move == "cli":
        os.environ["QUEUECTL_SPOOL"] = root
        code = cli.main(request["words"])
        sys.stderr.flush()
        return code
    if move == "hold":
        # Claim a job and stop there, as a worker does that is killed while its job runs.
        worker = Worker(root)
        worker.register()
        worker._recover()
        claim = worker._claiming.next()
        assert claim is not None
        os._exit(0)
    if move == "serve":
        return serve(request)
    if move == "produce":
        return produce(request)
    raise ValueError(move)


def serve(request: dict[str, Any]) -> int:
    """Be a worker until killed, and write down outside which outcomes were synced."""
    whole = file_pool.FilePool._free_after_sync

    def make_spare(self: file_pool.FilePool, batch: Any) -> str:
        held = [name.rpartition("~")[0] for name in os.listdir(batch.folder)]
        spare = whole(self, batch)
        with open(request["synced"], "a", encoding="ascii") as file:
            file.writelines(f"{name}\n" for name in held)
        return spare

    file_pool.FilePool._free_after_sync = make_spare  # type: ignore[method-assign]
    runner: Any = InlineRunner() if request.get("inline") else LocalRunner()
    return Worker(request["spool"], runner=runner).run()


def produce(request: dict[str, Any]) -> int:
    """Enqueue until killed, and write down outside what was acknowledged."""
    spool = Spool(request["spool"])
    number = 0
    with open(request["acks"], "a", encoding="ascii", buffering=1) as acks:
        while True:
            name = f"{request['name']}-{number}"
            fields: dict[str, Any] = {
                "id": name,
                "max_retries": 1,
                **({"on_crash": "dead"} if number % 4 == 0 else {}),
            }
            if number % 7 == 3:
                more = [
                    {"id": f"{name}-{i}", "command": f"echo {name}-{i} >> {request['runs']}"}
                    for i in range(5)
                ]
                acks.writelines(f"{made}\n" for made in spool.enqueue_stream(more))
            else:
                command = f"echo {name} >> {request['runs']}" + ("; exit 1" if number % 5 == 4 else "")
                acks.write(f"{spool.enqueue(command, **fields).id}\n")
            number += 1
            time.sleep(request.get("pause", 0.0))


def child(request: dict[str, Any], line: socket.socket) -> None:
    """Wait for the sign, move, and answer. By a socket: its calls are none of those that meet a fault."""
    ctypes.CDLL(None).prctl(*_ANY_TRACER, 0, 0, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        where = os.open(request.get(name, os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(where, number)
        os.close(where)
    line.sendall(b"r")
    line.recv(1)
    try:
        answer = {"value": perform(request)}
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        trace = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-6:]]
        answer = {"error": f"{type(error).__name__}: {error}", "exit_code": code, "where": trace}
    with suppress(OSError):
        line.sendall(json.dumps(answer).encode())
    os._exit(0)


def main() -> None:
    """Answer requests until the end of the input."""
    # Imports would be most of the calls that a fault meets.
    for name in (
        "filelock",
        "orjson",
        "psutil",
        "watchdog.observers",
        "queuectl.system.process_tree",
        "click",
        "yaml",
    ):
        import_module(name)
    for name in (
        "root",
        "commands.enqueue",
        "render",
        "fast_path",
        "commands.enqueue_many",
        "commands.status",
        "options",
    ):
        import_module(f"queuectl.cli.{name}")
    children: dict[int, socket.socket] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "boot":
            _BOOT[0] = request["boot"]
            reply: dict[str, Any] = {}
        elif request["do"] == "fork":
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                ours.close()
                child(request, theirs)
            theirs.close()
            ours.recv(1)  # its own preparations are behind it
            children[pid] = ours
            reply = {"pid": pid}
        elif request["do"] == "go":
            children[request["pid"]].sendall(b"x")
            reply = {}
        else:
            ours = children.pop(request["pid"])
            data = b""
            with suppress(ConnectionResetError):
                while part := ours.recv(65536):
                    data += part
            status = os.waitpid(request["pid"], 0)[1]
            ours.close()
            reply = {"killed": os.WIFSIGNALED(status), "signal": status & 0x7F, **json.loads(data or b"{}")}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
