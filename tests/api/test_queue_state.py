"""What keeps the jobs of a queue from starting is said wherever somebody looks: status, show, top, lists, metrics, doctor."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.api import metrics
from queuectl.api.waiting import find_obstacle
from queuectl.doctor import doctor

from support import drop, end_workers, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spool(spool_dir: Path, cli: Cli) -> Iterator[Spool]:
    """A worker that runs one of two jobs of mail and takes both GPUs; a paused queue; a job that needs too much."""
    spool = Spool(spool_dir)
    spool.layout.create()
    (spool_dir / "config.yaml").write_text("resources: gpu=2\n")
    spool.set_queue("mail", limit=1)
    (spool_dir / "queues" / "sms.paused").write_text("no credit\n")
    long = "until [ -e end ]; do sleep 0.02; done"
    spool.enqueue(long, id="m1", queue="mail", cwd=spool_dir, timeout=60)
    spool.enqueue(long, id="g1", needs={"gpu": 2}, cwd=spool_dir, timeout=60)
    cli("worker", "start", "-j", "8", "--not-queue", "alone", expect=0)
    wait_until(lambda: spool.counts()["processing"] == 2)
    spool.enqueue("true", id="m2", queue="mail")
    spool.enqueue("true", id="g2", needs={"gpu": 1})
    spool.enqueue("true", id="s1", queue="sms")
    spool.enqueue("true", id="later", queue="mail", delay=3600)
    spool.enqueue("true", id="a1", queue="alone")
    drop(spool_dir, "big", command="true", needs={"gpu": 9})
    wait_until(lambda: spool.counts()["pending"] == 6)
    yield spool
    (spool_dir / "end").touch()
    end_workers(spool_dir)


CLOSED = {
    "m2": "mail is full (1 of 1)",
    "g2": "it needs 1 gpu, and 0 of 2 is free",
    "s1": "sms is paused",
    "big": "it needs 9 gpu, and there are 2",
}


def test_each_view_says_why_a_job_does_not_start(spool: Spool, cli: Cli) -> None:
    """The list for programs, `show`, `top` and its JSON; of a job that may start it says nothing."""
    waits = {row.id: row.waits_for for row in spool.list("pending")}
    assert waits == {**dict.fromkeys(CLOSED, "queue"), "later": "run_at", "a1": "worker"}
    assert spool.row("m2").waits_for == "queue"

    for job_id, why in CLOSED.items():
        shown = cli("show", job_id, expect=0).stdout
        assert why in next(line for line in shown.splitlines() if line.startswith("Queue")), job_id
    assert "full" not in cli("show", "later", expect=0).stdout
    screen = cli("top", expect=0).stdout.splitlines()
    for job_id, why in CLOSED.items():
        assert next(line for line in screen if line.startswith(f" {job_id} ")).endswith(why), job_id
    found = {one["id"]: one for one in json.loads(cli("top", "--json", expect=0).stdout)["next"]}
    assert {job_id: found[job_id]["closed"] for job_id in (*CLOSED, "later", "a1")} == {
        **CLOSED, "later": None, "a1": None
    }  # fmt: skip


def test_status_tells_of_pauses_of_queues_nobody_serves_and_of_needs(spool: Spool) -> None:
    """And of nothing that is as it should be: a queue that is full for a moment is."""
    notes = [note for note in spool.notes() if "queue" in note or "gpu" in note]

    assert len(notes) == 3
    assert notes[0] == "queue alone is served by no living worker, and 1 job waits in it"
    assert notes[1].startswith("queue sms is paused since ")
    assert notes[1].endswith(": no credit; its jobs start after: queuectl resume --queue sms")
    assert notes[2] == "1 job waits for more than there is: it needs 9 gpu, and there are 2"


def test_status_tells_of_a_queue_that_has_been_full_for_an_hour(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job of the queue has waited for so long."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3700)

    [note] = [note for note in spool.notes() if "full" in note]

    assert note == "queue mail is full (1 of 1), and its first job has waited for 1h01m"


def test_metrics_count_queues(spool: Spool) -> None:
    """By state; the limits and the pauses; and how many ready jobs wait for a queue and not for a worker."""
    found = {
        (name, *sorted(labels.items())): value
        for name, labels, value in metrics.samples(spool.metrics())
        if "queue" in labels or labels.get("for") in ("queue", "worker", "run_at")
    }

    def jobs(queue: str, state: str) -> float:
        return found["queuectl_queue_jobs", ("queue", queue), ("state", state)]

    assert (jobs("mail", "pending"), jobs("mail", "processing"), jobs("default", "dead")) == (2, 1, 0)
    assert found["queuectl_queue_limit", ("queue", "mail")] == 1
    assert ("queuectl_queue_limit", ("queue", "sms")) not in found
    assert found["queuectl_queue_paused", ("queue", "sms")] == 1
    assert found["queuectl_queue_paused", ("queue", "mail")] == 0
    waits = {key[1][1]: value for key, value in found.items() if key[0] == "queuectl_jobs_waiting"}
    assert waits == {"worker": 1, "queue": 4, "run_at": 1}


def test_metrics_of_some_queues_are_of_no_other(spool: Spool, cli: Cli) -> None:
    """Also of one that nobody uses: a graph must not vanish because a queue is empty."""
    text = cli("metrics", "--queue", "mail", "--queue", "none", expect=0)
    found = [(name, labels["queue"], value) for name, labels, value in metrics.samples(text.stdout)]
    assert {queue for _, queue, _ in found} == {"mail", "none"}
    assert ("queuectl_queue_limit", "mail", 1.0) in found
    assert ("queuectl_queue_paused", "none", 0.0) in found
    assert "no job and no file of queues/ has the queue none" in text.stderr


def test_a_wait_says_what_it_waits_for(spool: Spool) -> None:
    """`wait` and `enqueue --wait` would be silent for ever."""
    assert (find_obstacle(spool, ["s1"]) or "").endswith(": no credit: queuectl resume --queue sms")
    assert find_obstacle(spool, ["a1"]) == "no worker serves queue alone: queuectl worker start --queue alone"
    assert find_obstacle(spool, ["big"]) == "it needs 9 gpu, and there are 2: queuectl config get resources"
    assert find_obstacle(spool, ["m2"]) is find_obstacle(spool, ["s1", "m2"]) is None


def test_the_doctor_tells_of_files_that_cannot_be_read_and_of_all_that_status_tells(
    spool: Spool, spool_dir: Path
) -> None:
    """A file with another ending has no effect, and its author believes that it has."""
    queues = spool_dir / "queues"
    (queues / "bad.yaml").write_text("# mine\nlimit: x\n")
    (queues / "mail.yml").write_text("limit: 1\n")
    (queues / "a b.paused").write_text("")
    (queues / "mail.yaml~").write_text("")
    os.mkfifo(queues / "pipe.yaml")

    found = [one for one in doctor.examine(spool.layout) if one.kind in ("queue file", "queue", "needs")]

    told = {one.where: one.fact for one in found}
    assert told["queues/bad.yaml"].startswith(
        f"{queues}/bad.yaml, line 2: limit: must be a whole number from 1 to 1000, not 'x'"
    )
    assert "a FIFO, not a file" in told["queues/pipe.yaml"]
    assert "queues/mail.yml is ignored" in told["queues/mail.yml"]
    assert "queues/a b.paused" in told
    assert "queues/mail.yaml~" not in told
    assert told["sms"].startswith("queue sms is paused since ")
    assert told["resources"] == "1 job waits for more than there is: it needs 9 gpu, and there are 2"
    assert {one.where for one in found if not one.harmless} == {
        "queues/bad.yaml", "queues/pipe.yaml", "queues/mail.yml", "queues/a b.paused"
    }  # fmt: skip
    assert any("bad.yaml, line 2" in note for note in spool.notes())


def test_where_no_queue_is_used_nothing_is_loaded_for_them(spool_dir: Path) -> None:
    """`status` runs thousands of times in scripts."""
    import subprocess
    import sys

    Spool(spool_dir).enqueue("true")
    code = (
        "import sys; from queuectl import Spool; spool = Spool(); spool.notes(); spool.list();"
        "print(*[name for name in sys.modules if name.startswith('queuectl.') and 'queue_' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )

    assert done.stdout.split() == []
