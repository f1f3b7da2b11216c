"""A job gets the defaults of its queue when it is accepted, by whatever way it comes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api.enqueue import FEW
from queuectl.errors import ConfigError, InvalidJob, Shortage

from support import drain, drop, load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """A spool with settings, and a queue with other ones."""
    spool = Spool(spool_dir)
    spool.layout.create()
    (spool_dir / "config.yaml").write_text("timeout: 30\nmax_retries: 7\n")
    set_queue(spool_dir, "mail", "timeout: 5m\npriority: 8\njitter: 0.5\nretry_on: 75\n")
    return spool


def set_queue(spool_dir: Path, queue: str, text: str) -> None:
    (spool_dir / "queues" / f"{queue}.yaml").write_text(text)


FROM_QUEUE = {"timeout": 300, "priority": 8, "jitter": 0.5, "retry_on": [75], "max_retries": 7}


def of(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in FROM_QUEUE if name in record}


def in_pending(spool_dir: Path, job_id: str) -> dict[str, Any]:
    return of(load(spool_dir / "pending" / f"{job_id}.json"))


def test_each_way_to_enqueue_copies_the_defaults_of_the_queue(
    spool: Spool, spool_dir: Path, cli: Cli
) -> None:
    """Job > queue > config.yaml > built-in: one job, many, all or nothing, and the command line."""
    mail = {"command": "true", "queue": "mail"}
    spool.enqueue("true", id="one", queue="mail")
    for number in range(FEW + 3):  # the last ones are made from a template
        spool.enqueue({**mail, "id": f"n{number}"})
    spool.enqueue_many({**mail, "id": f"m{number}"} for number in range(FEW + 3))
    spool.enqueue_many([{**mail, "id": "all"}], all_or_nothing=True)
    cli("enqueue", json.dumps({**mail, "id": "typed"}), expect=0)
    spool.enqueue("true", id="own", queue="mail", timeout=1)
    spool.enqueue("true", id="other", queue="sms")

    for job_id in (
        "one",
        "n0",
        f"n{FEW + 2}",
        "m0",
        f"m{FEW + 2}",
        "all",
        "typed",
    ):
        assert in_pending(spool_dir, job_id) == FROM_QUEUE, job_id
    assert in_pending(spool_dir, "own") == {**FROM_QUEUE, "timeout": 1}
    assert in_pending(spool_dir, "other") == {"timeout": 30, "priority": 5, "max_retries": 7}


def test_a_job_without_a_queue_gets_those_of_default(spool: Spool, spool_dir: Path, cli: Cli) -> None:
    """Also in the quick way of `enqueue TEXT`."""
    set_queue(spool_dir, "default", "timeout: 9\n")

    job_id = cli("enqueue", "true", expect=0).stdout.split()[-1]

    assert in_pending(spool_dir, job_id)["timeout"] == 9
    spool.enqueue("true", id="named", queue="default")
    assert in_pending(spool_dir, "named")["timeout"] == 9


def test_a_program_that_enqueues_follows_the_file(spool: Spool, spool_dir: Path) -> None:
    """Also while its jobs are made from a template; jobs that are accepted keep what they have."""
    ids = [spool.enqueue("true", queue="mail").id for _ in range(FEW + 5)]
    set_queue(spool_dir, "mail", "timeout: 6m\n")

    later = spool.enqueue("true", queue="mail").id

    assert in_pending(spool_dir, later) == {"timeout": 360, "priority": 5, "max_retries": 7}
    assert in_pending(spool_dir, ids[-1]) == FROM_QUEUE


def test_dropped_files_get_the_defaults_of_their_queue(spool: Spool, spool_dir: Path) -> None:
    """When they are taken in; a later change is for later jobs."""
    for number in range(5):
        drop(spool_dir, f"mail{number}", command="true", queue="mail", max_retries=1 + number)
        drop(spool_dir, f"plain{number}", command="true")
    spool.refresh()
    set_queue(spool_dir, "mail", "timeout: 1m\n")
    set_queue(spool_dir, "default", "timeout: 2m\n")
    drop(spool_dir, "mail5", command="true", queue="mail")
    drop(spool_dir, "plain5", command="true")

    timeouts = {
        name: spool.get(name).timeout for name in ("mail0", "mail4", "plain0", "plain4", "mail5", "plain5")
    }

    assert timeouts == {"mail0": 300, "mail4": 300, "plain0": 30, "plain4": 30, "mail5": 60, "plain5": 120}
    drain(spool_dir)
    ran = of(load(spool_dir / "done" / "mail4.json"))
    assert ran == {**FROM_QUEUE, "max_retries": 5}


def test_many_files_that_look_alike_are_read_with_the_defaults_of_the_time(
    spool: Spool, spool_dir: Path
) -> None:
    """Most rows of a long list are copies of the first one, with the defaults of its time."""
    for number in range(3):
        drop(spool_dir, f"a{number}", command="true")
    spool.refresh()
    set_queue(spool_dir, "default", "priority: 9\n")
    for number in range(3):
        drop(spool_dir, f"b{number}", command="true")

    found = {row.id: row.priority for row in spool.list()}

    assert found == {"a0": 5, "a1": 5, "a2": 5, "b0": 9, "b1": 9, "b2": 9}


def test_a_job_whose_defaults_are_not_known_is_not_accepted(spool: Spool, spool_dir: Path, cli: Cli) -> None:
    """It would run with a time limit that its queue does not have. A dropped file waits until the file is valid."""
    set_queue(spool_dir, "mail", "timeout: soon\n")
    drop(spool_dir, "dropped", command="true", queue="mail")
    drop(spool_dir, "other", command="true")

    with pytest.raises(ConfigError, match=r"queues/mail.yaml, line 1: timeout: 'soon' is not a duration"):
        spool.enqueue("true", queue="mail")
    told = cli("enqueue", '{"command": "true", "queue": "mail"}', expect=1).stderr
    assert "queues/mail.yaml, line 1: timeout: 'soon' is not a duration" in told
    drain(spool_dir)
    assert (where_is(spool_dir, "other"), where_is(spool_dir, "dropped")) == (["done"], ["pending"])

    set_queue(spool_dir, "mail", "timeout: 5m\n")
    assert spool.get("dropped").timeout == 300


def test_jobs_that_were_accepted_survive_a_bad_file_and_a_new_index(spool: Spool, spool_dir: Path) -> None:
    """Their files have their values."""
    spool.enqueue("true", id="mine", queue="mail")
    set_queue(spool_dir, "mail", "timeout: soon\n")

    spool.reindex()

    assert of(spool.get("mine").to_dict()) == FROM_QUEUE


def test_a_field_that_is_removed_gets_the_default_of_the_queue(
    spool: Spool, spool_dir: Path, cli: Cli
) -> None:
    """`set` with nothing after the = means the default, and that of a queue goes first."""
    spool.enqueue("true", id="mine", queue="mail", timeout=1)

    cli("set", "mine", "timeout=", expect=0)

    assert in_pending(spool_dir, "mine")["timeout"] == 300


def test_a_name_of_a_queue_leads_to_no_other_file(spool: Spool, spool_dir: Path) -> None:
    """`../other` is no queue, and the file of that name is not read."""
    (spool_dir / "other.yaml").write_text("not the file of a queue: 1\n")

    for wrong in ("../other", "a/b", "", "x" * 31, 5, ["mail"]):
        with pytest.raises(InvalidJob, match="queue"):
            spool.enqueue({"command": "true", "queue": wrong})


@pytest.mark.parametrize(
    ("needs", "fact", "hint"),
    [
        ({"gpu": 4}, "it needs 4 gpu, and there are 2", "'gpu=4 memory=64'"),
        ({"gpuu": 1}, "no resource is called gpuu; is gpu meant?", "'gpu=2 memory=64 gpuu=1'"),
    ],
)
def test_a_job_that_needs_more_than_there_is_is_refused(
    spool: Spool, spool_dir: Path, cli: Cli, needs: dict[str, int], fact: str, hint: str
) -> None:
    """It would wait for ever. A dropped file waits: more may come."""
    with (spool_dir / "config.yaml").open("a") as file:
        file.write("resources: gpu=2 memory=64\n")
    record = {"command": "true", "needs": needs}

    told = cli("enqueue", json.dumps(record), expect=1).stderr

    assert told == f"error: {fact}\nhint: queuectl config set resources {hint}\n"
    with pytest.raises(Shortage, match=fact.replace("?", r"\?")):
        spool.enqueue_many([record])
    spool.enqueue({"command": "true", "needs": {"gpu": 2, "memory": 64}})
    drop(spool_dir, "dropped", **record)
    assert spool.get("dropped").state == "pending"


def test_the_hint_for_a_first_resource_can_be_typed(spool: Spool, cli: Cli) -> None:
    """Where there are none yet, as in the first hour with a GPU."""
    told = cli("enqueue", '{"command": "true", "needs": {"gpu": 1}}', expect=1).stderr

    assert told == "error: no resource is called gpu\nhint: queuectl config set resources gpu=1\n"
    cli("config", "set", "resources", "gpu=1", expect=0)
    cli("enqueue", '{"command": "true", "needs": {"gpu": 1}}', expect=0)
    assert spool.settings().resources == {"gpu": 1}
