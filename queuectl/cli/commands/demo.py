"""`queuectl demo`: run a copy of the example spool, and show what happened to each job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.errors import QueuectlError, WorkerError

if TYPE_CHECKING:
    from queuectl.job.record import Job

TIME_LIMIT = 14.0
"""Seconds after which the workers are stopped, even if jobs are left."""

LESSONS = {
    "hello": "the smallest job: one command for the shell",
    "no-shell": "a list of words runs without a shell",
    "urgent": "priority 9 goes before the others",
    "second-try": "fails once, waits, and succeeds at the second attempt",
    "too-slow": "exceeds its timeout, and goes to the dead letter queue",
    "env-and-cwd": "sets its own environment variables and working directory",
    "new-year": "was scheduled for a time that has passed",
}


@command("demo", examples="queuectl demo")
@click.pass_obj
def demo_command(session: Session) -> None:
    """Copy the example spool to a temporary folder, run it with two workers, and show what happened.

    It takes a few seconds and changes no other spool. The temporary folder is kept, so that you can look into it.
    """
    from queuectl.api.spool import Spool

    root = _copy_example()
    spool = Spool(root)
    before = spool.list()
    ids = [row.id for row in before if row.state == "pending"]
    others = [row for row in before if row.state != "pending"]
    if not session.json:
        render.line(f"A copy of the example spool is in {root}")
        render.line(f"{len(ids)} jobs wait in its folder pending/. Two workers run them:")
        render.line()
    sys.stdout.flush()
    _run_workers(root, quiet=session.json)
    jobs = [spool.get(job_id) for job_id in ids]
    if session.json:
        render.json_value({"spool": root, "jobs": [job.to_dict() for job in jobs], "counts": spool.counts()})
        return
    _show(jobs)
    render.line()
    ended = ", ".join(f"{row.id} ({row.state})" for row in others)
    render.line(f"The example came with {len(others)} more jobs, which had ended before: {ended}")
    render.line(f"jobs: {spool.counts()}")
    render.line()
    render.line("Look into the folders: they hold everything. Or try:")
    for words in (
        "list",
        "show too-slow",
        "dlq list",
        "dlq retry too-slow --timeout 90",
        "worker start --drain",
    ):
        render.line(f"    queuectl --spool {root} {words}")
    render.line(f"To delete it: rm -r {root}")


def _copy_example() -> str:
    """Copy the example with the permissions that a worker requires; return the folder of the new spool."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    candidates = (os.path.join(package, "_example"), os.path.join(os.path.dirname(package), "spool_example"))
    source = next((path for path in candidates if os.path.isdir(path)), None)
    if source is None:
        raise QueuectlError(
            "the example spool is not part of this installation",
            hint="install queuectl from its source again",
        )
    root = tempfile.mkdtemp(prefix="queuectl-demo-")
    shutil.copytree(source, root, ignore=shutil.ignore_patterns(".gitkeep"), dirs_exist_ok=True)
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o700)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o600)
    return root


def _run_workers(root: str, *, quiet: bool) -> None:
    """Run two workers in this terminal until no job is left, or until the time limit."""
    from queuectl.worker import program

    words = ["--spool", root, "worker", "start", "--foreground", "--count", "2", "--drain", "--wait-retries"]
    out = subprocess.DEVNULL if quiet else None
    workers = subprocess.Popen([*program.words(), *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    end = time.monotonic() + TIME_LIMIT
    try:
        code = workers.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        _stop(workers)
        raise WorkerError(
            f"the demo took longer than {TIME_LIMIT:g} s", hint=f"queuectl --spool {root} list"
        ) from None
    except BaseException:
        _stop(workers)
        raise
    if code:
        raise WorkerError(f"the workers ended with exit code {code}", hint=f"queuectl --spool {root} list")


def _stop(workers: subprocess.Popen[Any]) -> None:
    """Send SIGTERM twice, which also ends the jobs; then SIGKILL."""
    for _ in range(2):
        workers.terminate()
        try:
            workers.wait(2)
        except subprocess.TimeoutExpired:
            continue
        return
    workers.kill()
    workers.wait()


def _show(jobs: list[Job]) -> None:
    """Show what each job demonstrates, where it is now, and what it printed."""
    render.line()
    for job in jobs:
        render.line(f"{job.id}: {LESSONS.get(job.id or '', 'a job')}")
        folder = {"completed": "done/", "dead": "dead/"}.get(job.state, job.state)
        times = "1 attempt" if job.attempts == 1 else f"{job.attempts} attempts"
        error = f": {job.last_error}" if job.last_error else ""
        render.line(f"    in {folder} after {times}{error}")
        for text in render.visible_lines(job.output or "").rstrip("\n").splitlines():
            render.line(f"    | {text}")
