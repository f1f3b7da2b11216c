"""Hooks beside other work: one that hangs, many ends at once, a pause of the spool, and a rule that is edited meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rules.test_hooks import hooks_of, told, write_rule

from queuectl import Spool
from queuectl.job.record import Job
from queuectl.system import files

from support import drain, drop, drop_bytes, load, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


def test_a_hook_that_hangs_is_ended_by_its_time_limit_and_loses_no_record(spool_dir: Path) -> None:
    """Trap 4. The record of the dead job was there before, and the next job comes after the time limit."""
    write_rule(
        spool_dir,
        "alarm",
        "{job: dead}",
        command=f"ls {spool_dir}/dead > told; exec sleep 600",
        timeout=2,
        max_retries=1,
    )
    drop(spool_dir, "bad", command="false", max_retries=1)
    drop(spool_dir, "next", command="true", after_any=["bad"])
    drain(spool_dir)

    [hook] = hooks_of(spool_dir)
    assert told(spool_dir) == ["bad.json"]
    assert load(spool_dir / "dead" / f"{hook}.json")["last_error"] == "Timeout exceeded (2s)"
    assert where_is(spool_dir, "next") == ["done"]


def test_a_worker_with_two_slots_goes_on_beside_a_hook_that_hangs(spool_dir: Path) -> None:
    """Trap 4, too."""
    write_rule(spool_dir, "alarm", "{job: dead}", command="until test -e over; do sleep 0.05; done")
    (spool_dir / "config.yaml").write_text("concurrency: 2\n")
    drop(spool_dir, "bad", command="false", max_retries=1)
    drop(spool_dir, "next", command=f"touch {spool_dir.parent}/over", after_any=["bad"])
    drain(spool_dir)

    [hook] = hooks_of(spool_dir)
    assert where_is(spool_dir, hook) == where_is(spool_dir, "next") == ["done"]


def test_the_hooks_of_many_ends_are_queued_with_one_wait_for_the_disk(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 14. A worker settles sixteen short jobs at once."""
    write_rule(spool_dir, "alarm", "{job: done}")
    spool = Spool(spool_dir)  # the storage does not keep it alive
    storage = spool._storage
    waits: list[str] = []
    for name in ("fsync", "fdatasync"):
        _count(monkeypatch, os, name, waits)
    _count(monkeypatch, files, "sync_filesystem", waits)
    assert storage.before_end is not None

    numbers = []
    for first, many in (("a", 1), ("b", 16)):
        waits.clear()
        storage.before_end(
            [(Job(id=f"{first}{number}", command="true"), "completed") for number in range(many)]
        )
        numbers.append(len(waits))
    assert len(hooks_of(spool_dir)) == 17
    assert 0 < numbers[0] <= numbers[1] <= numbers[0] + 1


def test_what_a_run_is_told_of_other_jobs_waits_for_no_disk(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut ends the run for which the list is. Two waits for each child made chains and hooks half as fast.

    Nor is it renamed over the list of the run before: ext4 would begin to write it, five times as long as the rest takes.
    """
    drop(spool_dir, "a", command="true")
    for child, parent in (("b", "a"), ("c", "b")):
        drop(
            spool_dir,
            child,
            command="echo $QUEUECTL_AFTER >> told",
            after=[parent],
            cwd=str(spool_dir.parent),
        )
    synced: dict[str, bool] = {}
    replaced: list[str] = []
    write, rename = files.write_new, os.replace

    def noting(path: str, data: bytes, *, sync: bool) -> os.stat_result:
        synced[path] = sync
        return write(path, data, sync=sync)

    def noting_too(source: str, target: str) -> None:
        replaced.append(target)
        rename(source, target)

    monkeypatch.setattr(files, "write_new", noting)
    monkeypatch.setattr(os, "replace", noting_too)
    drain(spool_dir)
    [path] = set(told(spool_dir))
    assert synced[path] is False
    assert path not in replaced


def _count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: list[str]) -> None:
    real: Callable[..., Any] = getattr(module, name)

    def noting(*args: Any) -> Any:
        calls.append(name)
        return real(*args)

    monkeypatch.setattr(module, name, noting)


def test_what_happens_before_a_pause_of_the_spool_is_told_after_it(spool_dir: Path) -> None:
    """Trap 15. No job can die in a pause, but a file can be found that is no job."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    (spool_dir / "paused").touch()
    drop_bytes(spool_dir, "bad.json", b"[]")
    drain(spool_dir)
    [hook] = hooks_of(spool_dir)
    assert (told(spool_dir), where_is(spool_dir, hook)) == ([], ["pending"])

    (spool_dir / "paused").unlink()
    drain(spool_dir)
    assert told(spool_dir) == ["dead bad dead"]


def test_while_a_rule_is_edited_each_end_is_told_once_by_the_old_or_the_new(spool_dir: Path) -> None:
    """Trap 13. A job in the middle replaces the rule, and another one begins to write it anew and stops half way."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    (spool_dir / "config.yaml").write_text("settle_time: 60s\n")  # so long the old rule is in force
    rule = spool_dir / "rules" / "alarm.yaml"
    edited = rule.read_text().replace("$QUEUECTL_EVENT", "new")
    (spool_dir.parent / "edited").write_text(edited)
    half = spool_dir.parent / "half"
    half.write_text(edited[:30])
    commands = {
        7: f"cp {spool_dir.parent}/edited {rule}.new; mv {rule}.new {rule}",
        14: f"cat {half} > {rule}",
    }
    for number in range(20):
        command = f"sleep 0.06; {commands.get(number, ':')}; false"
        drop(spool_dir, f"j{number:02}", command=command, max_retries=1)
    drain(spool_dir)

    assert sorted(line.split()[1] for line in told(spool_dir)) == [f"j{number:02}" for number in range(20)]


def test_two_workers_that_end_the_last_two_jobs_tell_of_an_empty_spool_once(spool_dir: Path) -> None:
    """Trap 10. Each of them sees that nothing is left."""
    write_rule(spool_dir, "alarm", "{job: empty}")
    meet = "touch $QUEUECTL_JOB_ID; until test -e a && test -e b; do sleep 0.01; done"
    for name in "ab":
        drop(spool_dir, name, command=meet, cwd=str(spool_dir.parent))
    words = [sys.executable, "-m", "queuectl", "--spool", str(spool_dir), "worker", "start", "--foreground"]
    workers = [
        subprocess.Popen([*words, "--drain"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        assert [worker.wait(50) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert {load(spool_dir / "done" / f"{name}.json")["worker"] for name in "ab"} == {"worker-0", "worker-1"}
    assert len(hooks_of(spool_dir)) == len(told(spool_dir)) == 1
