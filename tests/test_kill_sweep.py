"""SIGKILL before every file-system call of every move: what was acknowledged is there, once, and gets done."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import faults
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CALLS = (
    "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat2,link,linkat,unlink,mkdir,rmdir,syncfs"
)
LINE = "echo a >> {runs}"
FAILING = LINE + "; exit 1"

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
    pytest.mark.timeout(240),
]


@dataclass(frozen=True)
class Story:
    """A move, what comes before it, and what may be true after it was cut short.

    Attributes:
        before: moves without a fault, each as (move, arguments).
        request: the move under fire.
        calls: the system calls that it makes.
        ends: the states in which job `a` may lie in the end, when the move was (not) acknowledged; "" = gone.
        runs: how often `a` may have run in the end.
        threads: trace the threads too; the jobs are run inline then, so that no job is hit.
    """

    move: str
    request: dict[str, Any]
    calls: str
    before: tuple[tuple[str, dict[str, Any]], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    ends: tuple[set[str], set[str]] = ({"done"}, {"done"})
    runs: range = range(1, 3)
    threads: bool = False


def _job(command: str = LINE, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "enqueue", {"command": command, "fields": {"id": "a", "backoff_base": 1, **fields}}


_DEAD: tuple[tuple[str, dict[str, Any]], ...] = (_job(FAILING, max_retries=1), ("work", {}))
_ASK = "openat ftruncate pwrite64 write"
_WORK = f"{_ASK} unlink mkdir rename renameat2 fsync rmdir"
_MAYBE = {"", "done"}, {"done"}
_INLINE = {"how": {"inline": True}}
STORIES = {
    "enqueue": Story(
        *_job(), f"{_ASK} fsync renameat2 unlink", before=(("look", {}),), ends=_MAYBE, runs=range(3)
    ),
    "first enqueue": Story(
        *_job(), f"{_ASK} mkdir fdatasync unlink fsync renameat2", ends=_MAYBE, runs=range(3)
    ),
    "enqueue many": Story(
        "enqueue_many",
        {"jobs": [{"id": name, "command": LINE} for name in "abc"]},
        f"{_ASK} syncfs renameat2 fsync unlink",
        before=(("look", {}),),
        ends=_MAYBE,
        runs=range(5),
    ),
    "done": Story("work", {}, _WORK, before=(_job(),)),
    "done, threads too": Story("work", _INLINE, f"{_WORK} syncfs", before=(_job(),), threads=True),
    "done, without recycled files": Story(
        "work", {"how": {"inline": True, "recycle": False}}, _WORK, before=(_job(),), threads=True
    ),
    "done, on_crash dead": Story(
        "work",
        _INLINE,
        _WORK,
        before=(_job(on_crash="dead"),),
        ends=({"done", "dead"}, {"done"}),
        runs=range(2),
        threads=True,
    ),
    "dropped": Story(
        "work", {}, f"{_WORK} fdatasync", files={"pending/a.json": json.dumps({"id": "a", "command": LINE})}
    ),
    "failed": Story(
        "work", {}, _WORK, before=(_job(FAILING, max_retries=2),), ends=({"dead"}, {"dead"}), runs=range(2, 4)
    ),
    "failed again": Story(
        "work",
        {"how": {"ahead": 60.0}},
        _WORK,
        before=(_job(FAILING, max_retries=2), ("work", {})),
        ends=({"dead"}, {"dead"}),
        runs=range(2, 4),
    ),
    "buried": Story("work", {}, _WORK, before=(_job(FAILING, max_retries=1),), ends=({"dead"}, {"dead"})),
    "recovered": Story("work", {}, _WORK, before=(_job(), ("hold", {}))),
    "recovered, on_crash dead": Story(
        "work",
        {},
        _WORK,
        before=(_job(on_crash="dead"), ("hold", {})),
        ends=({"dead"}, {"dead"}),
        runs=range(1),
    ),
    "requeued": Story(
        "retry",
        {"id": "a"},
        f"{_ASK} rename unlink fsync renameat2",
        before=_DEAD,
        ends=({"dead"}, {"dead"}),
        runs=range(1, 4),
    ),
    "cancelled": Story(
        "cancel",
        {"id": "a"},
        f"{_ASK} renameat2 fsync rename",
        before=(_job(),),
        ends=({"dead", "done"}, {"dead"}),
        runs=range(3),
    ),
    "cleared": Story("clear", {}, f"{_ASK} rename unlink", before=_DEAD, ends=({"", "dead"}, {""})),
    "invalid": Story(
        "look",
        {},
        f"{_ASK} mkdir fdatasync unlink renameat2 fsync rename",
        files={
            "config.yaml": "settle_time: 0\n",
            "pending/broken.json": json.dumps({"id": "a", "command": 5}),
        },
        ends=({"dead"}, {"dead"}),
        runs=range(1),
    ),
}
MANY = {"openat": 5, "pwrite64": 9}
"""Calls of which there are dozens, most of them of the index or only looking: every n-th of them by default."""


@pytest.fixture(scope="module")
def server() -> Iterator[faults.Server]:
    made = faults.Server()
    yield made
    made.close()


def _set_up(story: Story, server: faults.Server, spool: Path) -> dict[str, Any]:
    """Play what comes before; returns the request with this spool's paths in it."""
    filled = json.loads(json.dumps([story.before, story.request]).replace("{runs}", f"{spool}.runs"))
    for move, request in filled[0]:
        server.do(spool, move, **request)
    for name, text in story.files.items():
        (spool / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        spool.chmod(0o700)
        (spool / name).write_text(text.replace("{runs}", f"{spool}.runs"), encoding="utf-8")
    request = filled[1]
    assert isinstance(request, dict)
    return request


def finish(server: faults.Server, spool: Path) -> None:
    """Let a worker do what is left to do, retries included."""
    for hours in range(1, 6):
        server.do(spool, "work", how={"ahead": 3600.0 * hours})
        if not list((spool / "pending").glob("*.json")):
            return
    raise AssertionError(f"still waiting: {list((spool / 'pending').iterdir())}")


def judge(story: Story, server: faults.Server, spool: Path, *, acked: bool, known: bool) -> None:
    """See that nothing is lost, doubled or half."""
    before = faults.places(spool)
    if known or acked:
        assert "a" in before or story.move == "clear", "an acknowledged job is gone"
    seen = [state for job_id, state in server.do(spool, "look") if job_id in {"a", "broken"}]
    assert len(seen) <= 1, seen
    assert bool(seen) or "a" not in before, (seen, before)
    if spool.joinpath("pending").exists():
        finish(server, spool)
    after = faults.places(spool)
    assert all(len(found) == 1 for found in after.values()), after
    assert not list(spool.glob("processing/*/*.json"))
    end = after.get("a", [""])[0]
    assert end in story.ends[acked], (end, acked)
    ran = faults.runs(spool.with_name(f"{spool.name}.runs"))["a"]
    assert ran in story.runs or (end == "" and ran <= max(story.runs)), ran


POINTS = [(name, call) for name, story in STORIES.items() for call in story.calls.split()]


@pytest.mark.parametrize(("name", "call"), POINTS, ids=[f"{name}-{call}" for name, call in POINTS])
def test_a_kill_before_any_call_loses_nothing(
    name: str,
    call: str,
    server: faults.Server,
    spool_dir: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Killed before its n-th call of a kind, for every n there is, a move leaves each job whole, once, and runnable."""
    story = STORIES[name]
    number, points = 1, 0
    while True:
        spool = spool_dir.with_name(f"spool{number}")
        request = _set_up(story, server, spool)
        known = bool(spool.exists() and faults.places(spool))
        inject = f"{call}:signal=KILL:when={number}"
        answer = server.faulted(spool, story.move, inject, threads=story.threads, **request)
        assert "error" not in answer, answer
        acked = "value" in answer
        assert acked != answer["killed"]
        try:
            judge(story, server, spool, acked=acked, known=known)
        except AssertionError as error:
            raise AssertionError(f"killed before {call} number {number}: {error}") from error
        shutil.rmtree(spool, ignore_errors=True)
        if acked:
            break
        points += 1
        number += _stride(name, call)
    record_property("points", points)
    print(f"points: {points}")
    assert points, f"{call} was never reached"


def _stride(name: str, call: str) -> int:
    if call == "openat" and name.startswith("recovered"):
        return 30 if faults.FULL else 300  # a look at every process of the machine
    return 1 if faults.FULL else MANY.get(call, 1)


@pytest.mark.parametrize("name", STORIES)
def test_the_sweep_knows_every_call(name: str, server: faults.Server, spool_dir: Path) -> None:
    """No move makes a file-system call of a kind that the sweep above does not put a kill before."""
    story = STORIES[name]
    request = _set_up(story, server, spool_dir)
    found = server.calls(spool_dir, story.move, CALLS, threads=story.threads, **request)
    assert set(found) <= set(story.calls.split()), found
