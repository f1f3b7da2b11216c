"""`queuectl queue`, and --queue on other commands: what people type, see, and are told when it is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Spool, Worker
from queuectl.errors import ConfigError, InvalidJob
from queuectl.worker import service
from queuectl.worker.service_units import systemd_unit

from support import drain, drop, load, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def set_up(spool_dir: Path) -> Spool:
    """Two jobs in mail, one in gpu, one in none; mail is limited."""
    spool = Spool(spool_dir)
    for number in (1, 2):
        spool.enqueue("true", id=f"mail{number}", queue="mail")
    spool.enqueue("true", id="gpu", queue="gpu")
    spool.enqueue("true", id="plain")
    spool.set_queue("mail", limit=1, rate="100/1h", timeout="5m")
    return spool


def test_list_shows_how_full_each_queue_is(spool_dir: Path, cli: Cli) -> None:
    """Name, waiting, running and limit, starts in the span, paused, oldest; with tabs in a pipe."""
    set_up(spool_dir)
    cli("pause", "--queue", "mail", "--reason", "provider down", expect=0)

    lines = [line.split("\t") for line in cli("queue", "list", expect=0).stdout.splitlines()]

    assert [line[:5] for line in lines] == [
        ["default", "1", "0", "", ""],
        ["gpu", "1", "0", "", ""],
        ["mail", "2", "0/1", "0 of 100/1h", "paused: provider down"],
    ]
    assert all(line[5].isdigit() for line in lines)
    found = {one["name"]: one for one in json.loads(cli("queue", "list", "--json", expect=0).stdout)}
    mail = found["mail"]
    assert (mail["waiting"], mail["running"], mail["limit"], mail["rate"], mail["starts"]) == (
        2,
        0,
        1,
        "100/1h",
        0,
    )
    assert (mail["paused"]["reason"], mail["defaults"], mail["served"]) == (
        "provider down",
        {"timeout": 300},
        False,
    )
    assert found["gpu"]["paused"] is found["gpu"]["limit"] is None


def test_starts_and_runs_are_counted(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """A job that runs, one that waits for it, and the start that has been noted."""
    spool = Spool(spool_dir)
    spool.set_queue("mail", limit=1, rate="3/1h")
    for number in (1, 2):
        spool.enqueue("until [ -e go ]; do sleep 0.02; done", id=f"m{number}", queue="mail", cwd=spool_dir)
    workers(2)
    wait_until(lambda: spool.queue("mail").running == 1)

    found = spool.queue("mail")

    assert (found.waiting, found.running, found.limit, found.starts, found.served) == (1, 1, 1, 1, True)
    assert found.is_full
    assert "running: 1/1\n" in cli("queue", "show", "mail", expect=0).stdout
    (spool_dir / "go").touch()
    wait_until(lambda: spool.counts()["completed"] == 2)
    assert spool.queue("mail").starts == 2


def test_set_and_unset_change_the_file_and_keep_comments(spool_dir: Path, cli: Cli) -> None:
    """What is set is answered, and read again."""
    assert (
        cli("queue", "set", "mail", "limit=2", "rate=100/1h", expect=0).stdout
        == "mail: limit=2 rate=100/1h\n"
    )
    path = spool_dir / "queues" / "mail.yaml"
    path.write_text("# of the provider\n" + path.read_text())
    cli("queue", "set", "mail", "timeout=5m", "retry-on=75,111", expect=0)
    assert cli("queue", "unset", "mail", "rate", "retry_on", expect=0).stdout == "mail: limit=2 timeout=300\n"

    assert path.read_text() == "# of the provider\nlimit: 2\ntimeout: 5m\n"
    assert cli("queue", "unset", "mail", "limit", "timeout", expect=0).stdout == "mail: no limits\n"
    assert json.loads(cli("queue", "set", "mail", "limit=3", "--json", expect=0).stdout)["limit"] == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["limit=0"], "error: limit: must be 1 to 1000; to stop it: queuectl pause --queue mail\n"),
        (["rate=100"], "error: rate: write it like 100/1h: so many starts in any such span\n"),
        (["limti=2"], "error: unknown key 'limti'; did you mean limit?\nhint: queuectl guide queues\n"),
        (["limit"], "error: 'limit' is not KEY=VALUE\nhint: queuectl queue set mail limit=2\n"),
        (["limit=2", "timeout=soon"], "error: timeout: 'soon' is not a duration"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_is_written(
    spool_dir: Path, cli: Cli, words: list[str], told: str
) -> None:
    """With the exit code for wrong words."""
    assert cli("queue", "set", "mail", *words, expect=2).stderr.startswith(told)
    assert not (spool_dir / "queues" / "mail.yaml").exists()


@pytest.mark.parametrize("name", ["a b", "../x", "-a", "x" * 31])
def test_a_name_that_no_queue_can_have_is_refused_everywhere(spool_dir: Path, cli: Cli, name: str) -> None:
    """It becomes the name of a file."""
    told = f"{name!r} cannot be a queue: 1 to 30 of a-z A-Z 0-9 _ -"
    for words in (
        ["enqueue", f"--queue={name}", "true"],
        ["pause", f"--queue={name}"],
        ["resume", f"--queue={name}"],
        ["list", f"--queue={name}"],
        ["queue", "show", "--", name],
        ["worker", "start", f"--queue={name}"],
        ["worker", "start", f"--not-queue={name}"],
    ):
        assert told in cli(*words, expect=2).stderr, words
    spool = Spool(spool_dir)
    for call in (spool.queue, spool.set_queue, lambda name: spool.pause(queue=name)):
        with pytest.raises(ValueError, match="cannot be a queue"):
            call(name)
    with pytest.raises(ValueError, match="cannot be a queue"):
        Worker(spool_dir, queues=[name])
    assert not spool_dir.exists()
    with pytest.raises(InvalidJob, match="cannot be a queue"):
        spool.enqueue("true", queue=name)


def test_a_dropped_job_with_such_a_queue_is_dead_with_the_reason(spool_dir: Path) -> None:
    """`queue: "a b"` can never be served."""
    drop(spool_dir, "bad", command="true", queue="a b")
    drop(spool_dir, "zero", command="true", needs={"gpu": 0})
    drop(spool_dir, "text", command="true", needs={"gpu": "2"})
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drain(spool_dir)

    reasons = {
        name: (spool_dir / "dead" / f"{name}.json.reason").read_text().strip()
        for name in ("bad", "zero", "text")
    }

    assert reasons["bad"].startswith(
        "invalid job: queue: 'a b' cannot be a queue: 1 to 30 of a-z A-Z 0-9 _ -"
    )
    assert (
        reasons["zero"] == reasons["text"] == "invalid job: needs: gpu must be a whole number from 1 to 1024"
    )


def test_enqueue_takes_a_queue_and_needs(spool_dir: Path, cli: Cli) -> None:
    """As flags, for one job and for those of a list."""
    cli("config", "set", "resources", "gpu=2 memory=64", expect=0)
    cli(
        "enqueue", "--id", "a", "--queue", "gpu", "--needs", "gpu=1", "--needs", "memory=16", "true", expect=0
    )
    cli("enqueue", "--queue", "gpu", "--each", "-", "echo {}", stdin="x\ny\n", expect=0)

    record = load(spool_dir / "pending" / "a.json")

    assert (record["queue"], record["needs"]) == ("gpu", {"gpu": 1, "memory": 16})
    assert len(Spool(spool_dir).list(where=Filter(queues="gpu"))) == 3
    assert "needs" in cli("enqueue", "--needs", "gpu", "true", expect=2).stderr
    told = cli("enqueue", "--needs", "gpu=4", "true", expect=1).stderr
    assert told == (
        "error: it needs 4 gpu, and there are 2\nhint: queuectl config set resources 'gpu=4 memory=64'\n"
    )


def test_a_job_of_a_list_that_needs_too_much_is_named(spool_dir: Path, cli: Cli) -> None:
    """By file and line, as any other job that is refused."""
    path = spool_dir.parent / "jobs.jsonl"
    path.write_text('{"command": "a"}\n{"command": "b", "needs": {"gpu": 1}}\n')

    told = cli("enqueue", "--file", path, expect=1).stderr

    assert told.startswith(f"error: {path} line 2: no resource is called gpu; 1 job before it was queued\n")


def test_wait_gives_no_time_limit_unless_the_queue_has_one(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """`enqueue --wait` lifts the built-in limit, not one that somebody has set for the queue."""
    set_up(spool_dir)
    workers(1)

    for queue in ("mail", "gpu"):
        cli("enqueue", "--wait", "--id", f"w-{queue}", "--queue", queue, "true", expect=0)

    assert load(spool_dir / "done" / "w-mail.json")["timeout"] == 300
    assert load(spool_dir / "done" / "w-gpu.json")["timeout"] == 0


def test_jobs_are_selected_by_queue(spool_dir: Path, cli: Cli) -> None:
    """list, hold, cancel, retry, remove, stats, wait, dlq: each takes --queue; `default` has those without."""
    spool = set_up(spool_dir)
    spool.enqueue({"command": "true", "id": "needy", "queue": "mail"})
    cli("config", "set", "resources", "gpu=2", expect=0)
    spool.set("needy", needs={"gpu": 1})
    spool.enqueue("true", id="mailx", queue="mailx")

    def ids(*words: str) -> set[str]:
        return {one["id"] for one in json.loads(cli("list", *words, "--json", expect=0).stdout)}

    assert ids("--queue", "mail") == {"mail1", "mail2", "needy"}
    assert ids("--queue", "default") == {"plain"}
    assert ids("--queue", "default", "--queue", "gpu") == {"plain", "gpu"}
    assert ids("--queue", "none") == set()
    cli("hold", "--queue", "mail", expect=0)
    assert ids("--held") == {"mail1", "mail2", "needy"}
    cli("release", "--queue", "mail", expect=0)
    cli("cancel", "--queue", "gpu", expect=0)
    assert where_is(spool_dir, "gpu") == ["dead"]
    assert "gpu" in cli("dlq", "list", "--queue", "gpu", expect=0).stdout
    assert cli("dlq", "list", "--queue", "mail", expect=0).stdout == ""
    cli("set", "--queue", "mailx", "queue=default", expect=0)
    assert ids("--queue", "default") == {"plain", "mailx"}
    columns = cli("list", "--queue", "mail", "--columns", "id,queue,needs", expect=0).stdout
    assert "needy\tmail\tgpu=1\n" in columns


def test_a_job_that_is_set_to_another_queue_counts_there(spool_dir: Path, cli: Cli) -> None:
    """While it waits, by a command, by a program and by hand."""
    spool = set_up(spool_dir)
    cli("set", "mail1", "queue=gpu", expect=0)
    spool.set("mail2", queue="gpu")
    path = spool_dir / "pending" / "plain.json"
    path.write_text(json.dumps({**load(path), "queue": "gpu"}))

    assert {row.queue for row in spool.list()} == {"gpu"}
    assert {queue.name: queue.waiting for queue in spool.queues()} == {"gpu": 4, "mail": 0}


def test_stats_count_by_queue(spool_dir: Path, cli: Cli) -> None:
    """One line for each, with those that name none under default."""
    set_up(spool_dir)
    drain(spool_dir, wait_retries=True)

    found = json.loads(cli("stats", "--by", "queue", "--json", expect=0).stdout)

    assert {group["queue"]: group["ended"] for group in found["groups"]} == {
        "mail": 2,
        "gpu": 1,
        "default": 1,
    }
    assert "1 ended" in cli("stats", "--by", "queue", "--queue", "gpu", expect=0).stdout


def test_workers_serve_the_queues_that_they_are_bound_to(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """--queue, --not-queue, in the background; `worker list` says so, and a mistyped name is told."""
    spool = set_up(spool_dir)

    told = workers(1, "--queue", "gpu", "--queue", "mial", "--drain").stderr
    assert told == "note: no job and no file of queues/ has the queue mial; is mail meant?\n"
    wait_until(lambda: not spool.workers())
    assert {job.id: job.state for job in spool.list()} == {
        "gpu": "completed", "mail1": "pending", "mail2": "pending", "plain": "pending"
    }  # fmt: skip
    workers(1, "--not-queue", "default")
    wait_until(lambda: spool.counts()["completed"] == 3)
    [info] = json.loads(cli("worker", "list", "--json", expect=0).stdout)
    assert (info["queues"], info["not_queues"]) == ([], ["default"])
    assert cli("worker", "list", expect=0).stdout.endswith(" - idle (not default)\n")
    assert where_is(spool_dir, "plain") == ["pending"]
    assert "contradict" in cli("worker", "start", "--queue", "a", "--not-queue", "a", expect=2).stderr


def test_workers_in_the_foreground_are_bound_too(spool_dir: Path, cli: Cli) -> None:
    """Alone, and as children of a supervisor."""
    set_up(spool_dir)

    cli("worker", "start", "--foreground", "--drain", "--queue", "gpu", expect=0)
    assert where_is(spool_dir, "gpu") == ["done"]
    cli("worker", "start", "--foreground", "--count", "2", "--drain", "--not-queue", "default", expect=0)
    assert (where_is(spool_dir, "mail2"), where_is(spool_dir, "plain")) == (["done"], ["pending"])


def test_a_program_binds_its_worker(spool_dir: Path) -> None:
    """One name need not be in a list."""
    set_up(spool_dir)

    Worker(spool_dir, queues="gpu", drain=True, say=lambda _: None).run()

    assert (where_is(spool_dir, "gpu"), where_is(spool_dir, "mail1")) == (["done"], ["pending"])


def test_a_service_binds_its_workers(spool_dir: Path, cli: Cli) -> None:
    """The words are in its unit."""
    printed = cli(
        "service", "print", "--for", "systemd", "--queue", "mail", "--not-queue", "gpu", expect=0
    ).stdout
    made = service.describe(Spool(spool_dir).layout, queues=("mail",))

    assert " worker start --foreground --queue mail --not-queue gpu\n" in printed
    assert " --queue mail\n" in systemd_unit(made)


def test_names_are_completed(spool_dir: Path, cli: Cli) -> None:
    """Those of queues that have jobs, a file or a pause; and the keys."""
    set_up(spool_dir)

    def completed(words: str, number: int) -> list[str]:
        env = {
            "COMP_WORDS": f"queuectl {words}",
            "COMP_CWORD": str(number),
            "_QUEUECTL_COMPLETE": "bash_complete",
        }
        return [line.partition(",")[2] for line in cli(env=env).stdout.splitlines()]

    assert completed("list --queue ", 3) == ["default", "gpu", "mail"]
    assert completed("pause --queue m", 3) == ["mail"]
    assert completed("worker start --queue g", 4) == ["gpu"]
    assert completed("queue show m", 3) == ["mail"]
    assert completed("queue set mail li", 4) == ["limit="]
    assert completed("queue unset mail ra", 4) == ["rate"]


def test_the_python_door_sets_and_lists(spool_dir: Path) -> None:
    """The twin of each verb."""
    spool = Spool(spool_dir)

    assert spool.queues() == []
    made = spool.set_queue("mail", limit=2, rate="100/1h", timeout="5m", priority=7)
    assert (made.name, made.limit, made.rate, made.defaults) == (
        "mail",
        2,
        "100/1h",
        {"timeout": 300, "priority": 7},
    )
    assert spool.set_queue("mail", limit=None, priority=None).limit is None
    with pytest.raises(ConfigError, match=r"^limit: must be 1 to 1000"):
        spool.set_queue("mail", limit=0)
    assert [queue.name for queue in spool.queues()] == ["mail"]
    spool.enqueue("true", queue="mail")
    [row] = spool.list(where=Filter(queues=["mail"]))
    assert (row.queue, row.needs) == ("mail", {})
