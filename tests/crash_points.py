"""Dies just before the n-th step of a story, for n = 1, 2, 3 and so on until the story gets through.

A program of its own, since it forks: python crash_points.py STORY FOLDER. Steps are changes of the file system, commits
of the index, and the start of a command. After each death the spool is looked at, worked off by a fresh worker, and
looked at again; one line of JSON a death tells what was found.
"""

# ruff: noqa: F401 (loaded before the first crash point, or imports would be most of them)

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock  # loaded before the first fork, as are the others
import psutil
import sweeps

from queuectl import Job, Spool, Worker
from queuectl.control import registry
from queuectl.fast_start import fast_json
from queuectl.index import freshness
from queuectl.layout import Layout
from queuectl.storage import file_pool, power_loss, recovery
from queuectl.system import files
from queuectl.worker import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DIED = 77
MOST = 400
_answer = 2
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "subprocess.Popen"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Story:
    """What is there before, what is done until death, and how it may end.

    Attributes:
        ends: folders, each with the number of attempts, in which a job may be in the end.
        runs: how often the commands may have run.
        must: the jobs are there whatever happens; else only once the story has said so.
        kept: at least one of these is there whatever happens, although not all must be.
        stride: die at every step of so many only, where there are very many.
    """

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    ends: tuple[tuple[str, int], ...] = (("done", 1),)
    runs: tuple[int, int] = (1, 2)
    must: bool = True
    ids: list[str] = field(default_factory=lambda: ["job1"])
    kept: tuple[str, ...] = ()
    stride: int = 1


def main(name: str, folder: Path) -> None:
    """Tell a story again and again."""
    fast_json.import_whole()  # not once in each child
    story = STORIES[name]
    for number in sweeps.points(story.stride):
        if number > MOST:
            return
        spool = folder / str(number)
        story.prepare(spool)
        code, said = in_child(partial(_die_at, number, spool, story.act))
        report: dict[str, Any] = {"number": number, "code": code, "said": said, "after": look(story, spool)}
        report["finish"] = in_child(partial(_finish, spool))
        report |= {"end": look(story, spool), "ran": _runs(spool)}
        print(json.dumps(report), flush=True)
        if code == 0:
            return


def in_child(act: Callable[[], None]) -> tuple[int, str]:
    """Do something in a process of its own; its exit code, and what it told us."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            global _answer
            _answer = writing
            act()
            code = 0
        except BaseException as error:
            tell(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def tell(what: str) -> None:
    """Answer the process that forked us."""
    os.write(_answer, f"{what}\n".encode())


def _die_at(number: int, spool: Path, act: Callable[[Path], None]) -> None:
    left = number
    inside = str(spool)

    def step(what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            tell(what.replace(inside + "/", ""))
            os._exit(DIED)

    watch_steps(inside, step)
    act(spool)


def watch_steps(inside: str, step: Callable[[str], None]) -> None:
    """Have this called just before each step in a folder, until this process ends."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITING):
            told = " ".join(str(one) for one in args[:2])
            if inside in told or event == "subprocess.Popen":
                step(f"{event} {told[:300]}")

    rename = files._renameat2

    def renameat2(*args: Any) -> Any:
        step(f"renameat2 {os.fsdecode(args[1])} {os.fsdecode(args[3])}")
        return rename(*args)

    files._renameat2 = renameat2
    end = freshness.Freshness.end_moving

    def end_moving(self: freshness.Freshness, *, commit: bool) -> None:
        step("COMMIT")
        end(self, commit=commit)

    freshness.Freshness.end_moving = end_moving  # type: ignore[method-assign]
    sys.addaudithook(hook)


def _finish(spool: Path) -> None:
    """Let a worker that knows nothing of what was work the spool off, an hour later."""
    Path(f"{spool}.ran.calm").touch()
    for hours in range(1, 5):
        Worker(spool, drain=True, now=lambda hours=hours: time.time() + 3600 * hours).run()  # type: ignore[misc]
        if not os.listdir(spool / "pending") and not any(spool.glob("processing/*/*")):
            return


def look(story: Story, spool: Path) -> dict[str, Any]:
    """Where the jobs lie, whether their files are whole, and what the command line would say."""
    found: dict[str, Any] = {
        "places": [],
        "ids": [],
        "torn": [],
        "attempts": [],
        "interrupted": 0,
        "created": "9",
    }
    for job_id in story.ids:
        for path in sorted(spool.rglob(f"{job_id}*.json")):
            place = path.parent.relative_to(spool).as_posix()
            if place.startswith(("data", "tmp")):
                continue
            found["places"].append(place)
            found["ids"].append(job_id)
            try:
                record = json.loads(path.read_bytes())
            except ValueError:
                found["torn"].append(place)
                continue
            found["attempts"].append(record.get("attempts", 0))
            past = [entry["outcome"] for entry in record.get("history", [])]
            found["interrupted"] = max(found["interrupted"], past.count("interrupted"))
            found["created"] = min(found["created"], record.get("created_at", "9"))
    found["counts"] = json.loads(in_child(lambda: _count(spool))[1] or "{}")
    workers = spool / "data" / "workers"
    found["litter"] = [path.name for path in workers.glob("*") if path.is_dir()] if workers.exists() else []
    logs = {path.name.partition(".")[0] for path in (spool / "logs").glob("*")}
    found["orphans"] = sorted(logs - set(found["ids"]))
    return found


def _count(spool: Path) -> None:
    tell(json.dumps(Spool(spool).counts()))


def _runs(spool: Path) -> int:
    ledger = spool.parent / f"{spool.name}.ran"
    return len(ledger.read_text().split()) if ledger.exists() else 0


# -- stories -----------------------------------------------------------------------------------------------------------


def _command(spool: Path, more: str = "") -> str:
    ran = shlex.quote(f"{spool}.ran")
    return f'echo "$QUEUECTL_JOB_ID" >> {ran}' + more.replace("{ran}", ran)


def _queued(more: str = "", **fields: Any) -> Callable[[Path], None]:
    def prepare(spool: Path) -> None:
        Spool(spool).enqueue(_command(spool, more), id="job1", **fields)

    return prepare


def _limited(spool: Path) -> None:
    """One place, one unit, and three starts in half an hour: whoever works the spool off comes an hour later."""
    layout = Layout(spool)
    layout.create()
    Path(layout.queue_file("mail")).write_text("limit: 1\nrate: 3/30m\n")
    Path(layout.config_yaml).write_text("resources: gpu=1\n")
    _queued(queue="mail", needs={"gpu": 1})(spool)


def _family(spool: Path) -> None:
    """A parent, a child that runs after it, and one that is for the case that it fails; all in a queue with one place.

    A child that began too early leaves so many lines that it ran too often.
    """
    layout = Layout(spool)
    layout.create()
    Path(layout.queue_file("mail")).write_text("limit: 1\n")
    early = f"; [ -e {shlex.quote(f'{spool}/done/job1.json')} ] || echo 1 2 3 4 5 6 7 8 9 >> {{ran}}"
    jobs: list[dict[str, Any]] = [
        {
            "id": "job3",
            "command": _command(spool, early + "; echo 1 2 3 >> {ran}"),
            "after_failure": ["job1"],
        },
        {"id": "job2", "command": _command(spool, early), "after": ["job1"]},
        {"id": "job1", "command": _command(spool)},
    ]
    Spool(spool).enqueue_many([{**job, "queue": "mail"} for job in jobs])


def _dropped(spool: Path) -> None:
    _put(spool, "pending", {"command": _command(spool)})


def _put(spool: Path, place: str, record: dict[str, Any]) -> None:
    folder = spool / place
    folder.mkdir(parents=True, mode=0o700)
    spool.chmod(0o700)
    (folder / "job1.json").write_text(json.dumps(record))


def _abandoned(spool: Path) -> None:
    _put(spool, "processing/worker-0", {"command": _command(spool)})


def _settled_twice(spool: Path) -> None:
    _put(spool, "processing/worker-0", {"id": "job1", "command": _command(spool)})
    past = [{"run": 1, "attempt": 1, "outcome": "failed"}]
    _put(spool, "pending", {"id": "job1", "command": _command(spool), "attempts": 1, "history": past})


def _dead(spool: Path) -> None:
    past = [{"run": 1, "attempt": 1, "outcome": "failed"}]
    fields = {"attempts": 1, "history": past, "state": "dead", "created_at": "2026-01-01T00:00:00Z"}
    _put(spool, "dead", {"id": "job1", "command": _command(spool), **fields})
    Spool(spool).refresh()


def _nothing(spool: Path) -> None:
    Spool(spool).refresh()


def _work(spool: Path) -> None:
    Worker(spool, drain=True).run()


def _work_three(spool: Path) -> None:
    Worker(spool, drain=True, concurrency=3).run()


def _force(spool: Path, jobs: int = 1) -> None:
    """Run jobs that do not end, and end them by force as soon as they have begun."""
    worker = Worker(spool, concurrency=jobs)

    def look_again(number: int, frame: object) -> None:
        if _runs(spool) >= jobs:
            worker.stop(force=True)

    signal.signal(signal.SIGALRM, look_again)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    worker.run()


def _enqueue(spool: Path) -> None:
    Spool(spool).enqueue(_command(spool), id="job1")
    tell("queued")
    # One more step, so that there is a death after the answer too.
    (spool / "tmp" / "answered").touch()


def _enqueue_many(spool: Path) -> None:
    jobs = [{"id": job_id, "command": _command(spool)} for job_id in STORIES["enqueue-many"].ids]
    if len(Spool(spool).enqueue_many(jobs)) == len(jobs):
        tell("queued")
    (spool / "tmp" / "answered").touch()


def _replace(spool: Path) -> None:
    Spool(spool).enqueue(_command(spool), id="job2", unique="k", if_exists="replace")
    tell("replaced")
    (spool / "tmp" / "answered").touch()


def _one_of_a_key_dropped(spool: Path) -> None:
    _queued(unique="k")(spool)
    (spool / "pending" / "job2.json").write_text(json.dumps({"command": _command(spool), "unique": "k"}))


def _look(spool: Path) -> None:
    Spool(spool).refresh()


def _over(spool: Path) -> None:
    _queued("; echo much; echo more >&2")(spool)
    _work(spool)


def _purge(spool: Path) -> None:
    Spool(spool).purge(keep=0)


def _retry(spool: Path) -> None:
    Spool(spool).retry("job1")


def _cancel(spool: Path) -> None:
    Spool(spool).cancel("job1")


def _expect(results: Mapping[str, object], kind: type) -> None:
    assert all(isinstance(result, kind) for result in results.values()), results


_MANY = ["job1", "job2"]


def _queued_many(spool: Path) -> None:
    Spool(spool).enqueue_many([{"id": job_id, "command": _command(spool)} for job_id in _MANY])


def _dead_many(spool: Path) -> None:
    _queued_many(spool)
    Spool(spool).cancel_many(_MANY)


_THREE = ["job1", "job2", "job3"]


def _three_queued(more: str) -> Callable[[Path], None]:
    def prepare(spool: Path) -> None:
        Spool(spool).enqueue_many([{"id": job_id, "command": _command(spool, more)} for job_id in _THREE])

    return prepare


STORIES = {
    "run": Story(_queued(), _work),
    "run-dropped": Story(_dropped, _work),
    "run-limited": Story(_limited, _work),
    "run-family": Story(
        _family, _work, (("done", 1), ("done", 0)), (2, 3), ids=["job1", "job2", "job3"], stride=4
    ),
    "run-with-output": Story(_queued("; head -c 20000 /dev/zero | tr '\\0' x"), _work),
    "fail-once": Story(_queued("; exit 3", max_retries=2), _work, (("dead", 2),), (2, 3)),
    "fail-for-good": Story(_queued("; exit 3", max_retries=1), _work, (("dead", 1),)),
    "recover": Story(_abandoned, _work),
    "tidy-up": Story(_settled_twice, _work, (("done", 2),)),
    "force": Story(_queued("; [ -e {ran}.calm ] || sleep 30"), _force, runs=(1, 3)),
    "run-three-at-once": Story(
        _three_queued("; echo much; sleep 0.0$(($$ % 3))"), _work_three, runs=(3, 6), ids=_THREE, stride=5
    ),
    "force-three-at-once": Story(
        _three_queued("; [ -e {ran}.calm ] || sleep 30"),
        partial(_force, jobs=3),
        runs=(3, 9),
        ids=_THREE,
        stride=5,
    ),
    "enqueue": Story(_nothing, _enqueue, runs=(0, 1), must=False),
    "enqueue-many": Story(_nothing, _enqueue_many, runs=(0, 3), must=False, ids=["job1", "job2", "job3"]),
    "retry": Story(_dead, _retry, (("dead", 1), ("dead", 0), ("done", 1)), (0, 1)),
    "replace": Story(
        _queued(unique="k"),
        _replace,
        (("done", 1), ("dead", 0)),
        must=False,
        ids=["job1", "job2"],
        kept=("job1", "job2"),
    ),
    "skip-dropped": Story(
        _one_of_a_key_dropped, _look, (("done", 1), ("dead", 0)), (1, 1), ids=["job1", "job2"]
    ),
    "expire": Story(_queued(expires_at=time.time() - 9), _work, (("dead", 0),), (0, 0)),
    "purge": Story(_over, _purge, runs=(1, 1), must=False),
    "cancel": Story(_queued(), _cancel, (("done", 1), ("dead", 0)), (0, 1)),
    "cancel-many": Story(
        _queued_many,
        lambda spool: _expect(Spool(spool).cancel_many(_MANY), str),
        (("done", 1), ("dead", 0)),
        (0, 2),
        ids=_MANY,
    ),
    "retry-many": Story(
        _dead_many,
        lambda spool: _expect(Spool(spool).retry_many(_MANY), Job),
        (("done", 1), ("dead", 0)),
        (0, 2),
        ids=_MANY,
    ),
    "set-many": Story(
        _queued_many,
        lambda spool: _expect(Spool(spool).set_many(_MANY, priority=9), Job),
        runs=(2, 2),
        ids=_MANY,
    ),
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
