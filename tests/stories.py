"""The moves of a job as stories: what comes before, the move under fire, and how it may end."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import faults

from queuectl.system.file_times import YOUNG

from support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

LINE = "echo a >> {runs}"
FAILING = LINE + "; exit 1"


@dataclass(frozen=True)
class Story:
    """A move, what comes before it, and what may be true after it was cut short.

    Attributes:
        before: moves without a fault, each as (move, arguments).
        request: the move under fire.
        calls: the system calls that it makes.
        ends: the states in which job `a` may lie in the end, when the move was (not) acknowledged; "" = gone.
        runs: how often `a` may have run in the end.
        all_runs: how often all of them together may have, if only this process died.
        threads: trace the threads too; the jobs are run inline then, so that no job is hit.
    """

    move: str
    request: dict[str, Any]
    calls: str
    before: tuple[tuple[str, dict[str, Any]], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    ends: tuple[set[str], set[str]] = ({"done"}, {"done"})
    runs: range = range(1, 3)
    all_runs: int = 1000
    threads: bool = False
    others: dict[str, str] = field(default_factory=dict)
    """Where other jobs have to lie in the end."""
    stay: tuple[str, ...] = ()
    """What has to be there in the end, behind the path of the file of runs."""


NEVER = ("early", "both", "needless")
"""What a command writes that began before its parent was over, beside another one of its queue, or for nothing."""


def _job(command: str = LINE, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "enqueue", {"command": command, "fields": {"id": "a", "backoff_base": 1, **fields}}


def _of_queue(job_id: str, command: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A job of a queue with one place: it writes down when another one of that queue runs beside it."""
    alone = "exec 9>>{runs}.lock; flock -n 9 || echo both >> {runs}; "
    return _job(alone + command, id=job_id, queue="mail", **fields)


_DEAD: tuple[tuple[str, dict[str, Any]], ...] = (_job(FAILING, max_retries=1), ("work", {}))
_ASK = "openat ftruncate pwrite64 write"
_WORK = f"{_ASK} unlink mkdir rename renameat2 fsync rmdir"
_MAYBE = {"", "done"}, {"done"}
_INLINE = {"how": {"inline": True}}
STORIES = {
    "enqueue": Story(
        *_job(), f"{_ASK} fsync linkat unlink", before=(("look", {}),), ends=_MAYBE, runs=range(3)
    ),
    "first enqueue": Story(
        *_job(), f"{_ASK} mkdir fdatasync unlink fsync linkat", ends=_MAYBE, runs=range(3)
    ),
    "enqueue many": Story(
        "enqueue_many",
        {"jobs": [{"id": name, "command": LINE} for name in "abc"]},
        f"{_ASK} syncfs linkat fsync unlink",
        before=(("look", {}),),
        ends=_MAYBE,
        runs=range(5),
    ),
    "done": Story("work", {}, _WORK, before=(_job(),)),
    "done, threads too": Story("work", _INLINE, f"{_WORK} syncfs", before=(_job(),), threads=True),
    "done, without recycled files": Story(
        "work", {"how": {"inline": True, "recycle": False}}, _WORK, before=(_job(),), threads=True
    ),
    "several in hand": Story(
        "work",
        {"how": {"inline": True, "at_once": 8}},
        f"{_WORK} syncfs",
        before=tuple(_job(f"echo {name} >> {{runs}}", id=name) for name in "bcade"),
        # Only the one that runs when the worker dies may run again.
        all_runs=6,
        threads=True,
    ),
    "several at once": Story(
        "work",
        {"how": {"slots": 2}},
        _WORK,
        before=tuple(_job(f"echo {name} >> {{runs}}", id=name) for name in "ba"),
        all_runs=4,
    ),
    "done, with children, in a queue with a limit": Story(
        "work",
        {"how": {"slots": 2}},
        _WORK,
        before=(
            _of_queue("a", LINE),
            _of_queue(
                "b",
                "[ -e $QUEUECTL_SPOOL/done/a.json ] || echo early >> {runs}; echo b >> {runs}",
                after=["a"],
            ),
            _of_queue("c", "echo needless >> {runs}", after_failure=["a"]),
        ),
        files={"queues/mail.yaml": "limit: 1\n"},
        others={"b": "done", "c": "done"},
    ),
    "done, on_crash dead": Story(
        "work",
        _INLINE,
        f"{_WORK} syncfs",
        before=(_job(on_crash="dead"),),
        ends=({"done", "dead"}, {"done"}),
        runs=range(2),
        threads=True,
    ),
    "dropped": Story(
        "work", {}, f"{_WORK} fdatasync", files={"pending/a.json": json.dumps({"id": "a", "command": LINE})}
    ),
    "queued by a rule": Story(
        "work",
        {"how": {"inline": True, "ahead": 1200.0}},
        f"{_WORK} fdatasync linkat syncfs",
        files={
            "rules/a.yaml": f"when: {{at: '{{soon}}'}}\njob: {{command: '{LINE}'}}\n",
            "rules/b.yaml": "when: {at: '{soon}'}\njobs: [{id: first, command: 'echo b >> {runs}'},"
            " {id: then, after: [first], command: 'echo then >> {runs}'}]\n",
            # Queued together with the job of a.
            "rules/c.yaml": "when: {at: '{soon}'}\njob: {command: 'echo c >> {runs}'}\n",
        },
        others={"c": "done", "first": "done", "then": "done"},
        all_runs=5,
        threads=True,
    ),
    "taken from a folder": Story(
        "work",
        _INLINE,
        f"{_WORK} fdatasync linkat syncfs",
        files={
            "config.yaml": "settle_time: 0\n",
            "rules/a.yaml": f"when: {{file: '{{runs}}.left', settle: 0}}\njob: {{command: '{LINE}; : {{}}'}}\n",
            "rules/b.yaml": "when: {file: '{runs}.moved', settle: 0, source: move, companion: '{name}.ok'}\n"
            "job: {command: 'echo b >> {runs}; test -s {}'}\n",
            "{runs}.left/one": "x",
            "{runs}.moved/two": "x",
            "{runs}.moved/two.ok": "",
        },
        others={"b": "done"},
        stay=(".left/one", ".moved/done/two", ".moved/done/two.ok"),
        all_runs=3,
        threads=True,
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
    "buried, and told by rules": Story(
        "work",
        _INLINE,
        f"{_WORK} linkat syncfs",
        before=(_job(FAILING, max_retries=1),),
        files={
            "rules/b.yaml": "when: {job: dead}\njob: {command: 'echo b >> {runs}'}\n",
            "rules/c.yaml": "when: {job: done}\njob: {command: 'echo needless >> {runs}'}\n",
            "rules/d.yaml": "when: {job: dead, within: 1h}\njob: {command: 'echo d >> {runs}'}\n",
            "rules/e.yaml": "when: {job: empty}\njob: {command: 'echo e >> {runs}'}\n",
        },
        ends=({"dead"}, {"dead"}),
        others={"b": "done", "d": "done", "e": "done"},
        all_runs=5,
        threads=True,
    ),
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
        f"{_ASK} renameat2 fsync rename unlink",
        before=(_job(),),
        ends=({"dead", "done"}, {"dead"}),
        runs=range(3),
    ),
    "changed": Story(
        "set",
        {"id": "a", "fields": {"priority": 9}},
        f"{_ASK} fsync rename renameat2 unlink",
        before=(_job(),),
    ),
    "cleared": Story(
        "clear", {}, "openat ftruncate pwrite64 fsync rename unlink", before=_DEAD, ends=({"", "dead"}, {""})
    ),
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


def set_up(story: Story, server: faults.Server, spool: Path, runs: Path) -> dict[str, Any]:
    """Play what comes before; returns the request with this spool's paths in it."""
    filled = json.loads(json.dumps([story.before, story.request]).replace("{runs}", str(runs)))
    for move, request in filled[0]:
        server.do(spool, move, **request)
    soon = datetime.fromtimestamp(time.time() + 600, UTC).isoformat(timespec="seconds")
    for form, text in story.files.items():
        name = form.replace("{runs}", str(runs))
        (spool / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        spool.chmod(0o700)
        filled_text = text.replace("{runs}", str(runs)).replace("{soon}", soon)
        (spool / name).write_text(filled_text, encoding="utf-8")
    request = filled[1]
    assert isinstance(request, dict)
    # A time too young to be told from the next one decides whether a move asks the disk how fine its times are.
    wait_until(lambda: all(time.time_ns() - path.stat().st_mtime_ns > YOUNG for path in _folders(spool)))
    return request


def _folders(spool: Path) -> list[Path]:
    return [path for path in spool.iterdir() if path.is_dir()] if spool.exists() else []


def finish(server: faults.Server, spool: Path) -> None:
    """Let a worker do what is left to do, retries included."""
    for hours in range(1, 6):
        server.do(spool, "work", how={"ahead": 3600.0 * hours})
        if not list((spool / "pending").glob("*.json")):
            return
    raise AssertionError(f"still waiting: {list((spool / 'pending').iterdir())}")


def _places(spool: Path) -> dict[str, list[str]]:
    """Where the jobs lie, by the names that the stories give them."""
    found: dict[str, list[str]] = {}
    for job_id, folders in faults.places(spool).items():
        found[_name(job_id)] = found.get(_name(job_id), []) + folders
    return found


def _name(job_id: str) -> str:
    """The job of a rule has its moment in its id, after the name of the rule, and before its own id in a list."""
    parts = job_id.split(".")
    return parts[2] if len(parts) == 3 else parts[0]


def judge(story: Story, server: faults.Server, spool: Path, runs: Path, *, acked: bool, known: bool) -> None:
    """See that nothing is lost, doubled or half.

    Args:
        acked: the move came back and said that it was done.
        known: the job was in the spool before.
    """
    before = _places(spool)
    if known or acked:
        assert "a" in before or story.move == "clear", "an acknowledged job is gone"
    seen = [state for job_id, state in server.do(spool, "look") if _name(job_id) in {"a", "broken"}]
    assert len(seen) <= 1, seen
    assert bool(seen) or "a" not in before, (seen, before)
    if spool.joinpath("pending").exists():
        finish(server, spool)
    after = _places(spool)
    assert all(len(found) == 1 for found in after.values()), after
    assert not list(spool.glob("processing/*/*.json"))
    end = after.get("a", [""])[0]
    assert end in story.ends[acked], (end, acked)
    assert {job_id: after.get(job_id) for job_id in story.others} == {
        job_id: [place] for job_id, place in story.others.items()
    }
    assert [end for end in story.stay if not os.path.exists(f"{runs}{end}")] == []
    assert not [word for word in NEVER if faults.runs(runs)[word]]
    ran = faults.runs(runs)["a"]
    assert ran in story.runs or (end == "" and ran <= max(story.runs)), ran
