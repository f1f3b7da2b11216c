"""Jobs as a Python program describes them: its own types are taken, and its mistakes are told."""

from __future__ import annotations

import copy
import os
import pickle
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Filter, InvalidJob, Job, Spool
from queuectl.api import job_fields
from queuectl.job.changes import CHANGEABLE

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NOON = datetime(2031, 1, 2, 12, tzinfo=timezone(timedelta(hours=3)))
LOCAL = datetime(2031, 1, 2, 12)  # noqa: DTZ001 (local time is meant)

VALUES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"run_at": NOON}, {"run_at": NOON.timestamp()}),
    ({"run_at": LOCAL}, {"run_at": LOCAL.timestamp()}),
    ({"run_at": LOCAL.replace(fold=1)}, {"run_at": LOCAL.replace(fold=1).timestamp()}),
    ({"expires_at": date(2031, 1, 2)}, {"expires_at": LOCAL.replace(hour=0).timestamp()}),
    ({"timeout": timedelta(minutes=1.5)}, {"timeout": 90}),
    ({"max_backoff": timedelta(hours=1)}, {"max_backoff": 3600}),
    ({"cwd": Path("/srv")}, {"cwd": "/srv"}),
    ({"cwd": "cache"}, {"cwd": os.path.abspath("cache")}),
    ({"cwd": Path("cache")}, {"cwd": os.path.abspath("cache")}),
    ({"tags": {"b", "a"}}, {"tags": ["a", "b"]}),
    ({"tags": ("b", "a")}, {"tags": ["b", "a"]}),
    ({"retry_on": frozenset({75, 3})}, {"retry_on": [3, 75]}),
    ({"give_up_on": (100,)}, {"give_up_on": [100]}),
    ({"env": {"HOME": Path("/srv")}}, {"env": {"HOME": "/srv"}}),
]


@pytest.mark.parametrize(
    ("given", "kept"),
    VALUES,
    ids=[f"{number}-{next(iter(given))}" for number, (given, _) in enumerate(VALUES)],
)
def test_values_of_a_program_are_taken_wherever_jobs_are(
    spool_dir: Path, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    """A program has a datetime, and had to know how a job file writes one."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", **given)
    spool.enqueue({"command": "true", "id": "b", **given})
    spool.enqueue_many([{"command": "true", "id": "c", **given}])
    spool.enqueue_many([{"command": "true", "id": "d"}], common=given)
    spool.enqueue("true", id="e")
    spool.set("e", **given)
    spool.enqueue("true", id="f", hold=True)
    spool.cancel("f")
    spool.retry("f", **given)

    for job_id in "abcdef":
        job = spool.get(job_id)
        assert {name: getattr(job, name) for name in kept} == kept, job_id


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (("echo", "a b"), ["echo", "a b"]),
        (["cat", Path("/etc/a b")], ["cat", "/etc/a b"]),
        (Path("/srv/my tool"), ["/srv/my tool"]),
    ],
)
def test_paths_and_tuples_are_commands(spool_dir: Path, command: Any, kept: list[str]) -> None:
    """The path of a program runs without a shell, which would split it at its blanks."""
    spool = Spool(spool_dir)
    ids = [spool.enqueue(command).id, *spool.enqueue_many([command, {"command": command}])]

    assert [spool.get(job_id).command for job_id in ids] == [kept] * 3


def test_spans_count_from_now(spool_dir: Path) -> None:
    job = Spool(spool_dir).enqueue("true", delay=timedelta(hours=1), expires_in=timedelta(days=1))

    assert abs((job.run_at or 0) - time.time() - 3600) < 60
    assert abs((job.expires_at or 0) - time.time() - 86400) < 60


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": NOON}, {"run_at": timedelta(1)}, {"tags": {1, "a"}}, {"tags": "ab"}, {"cwd": b"/srv"},
     {"env": [("A", "b")]}, {"command": {"ls", "-l"}}, {"retry_on": range(3)}],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_a_value_without_a_clear_meaning_is_refused(spool_dir: Path, wrong: dict[str, Any]) -> None:
    """A set has no order, so it is no command; a day is no duration."""
    spool = Spool(spool_dir)
    with pytest.raises(InvalidJob):
        spool.enqueue({"command": "true", **wrong})

    assert sum(spool.counts().values()) == 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("priorty", "priority"),
        ("max_retry", "max_retries"),
        ("maxRetries", "max_retries"),
        ("cmd", None),
        ("state", None),
    ],
)
def test_a_mistyped_keyword_is_a_type_error(spool_dir: Path, name: str, meant: str | None) -> None:
    """`spool.enqueue("x", priorty=9)` queued a job of priority 5."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    calls: list[Callable[..., Any]] = [
        lambda **more: spool.enqueue("true", **more),
        lambda **more: spool.check("true", **more),
    ]
    if name != "state":  # known, and refused by a sentence of its own
        calls += [lambda **more: spool.set("a", **more), lambda **more: spool.retry("a", **more)]
    for call in calls:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'.*{meant or ''}"):
            call(**{name: 9})

    assert spool.counts()["pending"] == 1


def test_fields_of_your_own_go_into_a_mapping_and_are_kept(spool_dir: Path) -> None:
    spool = Spool(spool_dir)

    assert spool.get(spool.enqueue({"command": "true", "owner": "me"}).id).extra == {"owner": "me"}


def test_the_types_for_editors_name_every_field_and_no_other() -> None:
    names = {kind: set(kind.__annotations__) for kind in (job_fields.JobFields, job_fields.JobChanges)}

    assert names == {job_fields.JobFields: set(job_fields.NAMES), job_fields.JobChanges: set(CHANGEABLE)}


def test_near_misses_are_told_on_stderr_and_kept(spool_dir: Path, cli: Cli) -> None:
    """`max_retry` was swallowed; `check` knew it all the time."""
    done = cli("enqueue", '{"command": "true", "id": "a", "max_retry": 1, "owner": "me"}', expect=0)
    assert done.stdout == "enqueued job a\n"
    assert done.stderr == "'max_retry' is kept but has no effect; did you mean max_retries?\n"
    assert support.load(spool_dir / "pending" / "a.json")["max_retry"] == 1

    lines = '{"command": "true", "runAt": 1, "owner": 1}\n' * 3
    done = cli("enqueue", "--file", "-", "--json", stdin=lines, expect=0)
    assert done.stderr == "stdin line 1: 'runAt' is kept but has no effect; did you mean run_at?\n"


def test_jobs_of_a_deleted_folder_are_refused(
    spool_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ran in the home of the worker, where `rm -rf build` means something else."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ({"command": "true"}, {"command": "true", "cwd": "cache"}):
        with pytest.raises(InvalidJob, match="cwd: the current folder was deleted"):
            spool.enqueue(command)
        with pytest.raises(InvalidJob, match="cwd: the current folder was deleted"):
            spool.enqueue_many([{"command": "true", "cwd": "/"}] * 25 + [command], all_or_nothing=True)
    with pytest.raises(InvalidJob, match="cwd"):
        spool.set("a", cwd="cache")
    assert spool.enqueue("true", cwd="/").cwd == "/"
    monkeypatch.chdir("/")

    assert spool.counts()["pending"] == 2


@pytest.mark.parametrize("one", ["true", b"true", {"command": "true"}], ids=str)
def test_one_job_is_not_many(spool_dir: Path, one: Any) -> None:
    """Its letters, or the names of its fields, were the commands."""
    for call in (Spool(spool_dir).enqueue_many, Spool(spool_dir).enqueue_stream):
        with pytest.raises(TypeError, match="takes several jobs"):
            call(one)


def test_what_a_program_prints_of_a_job_has_no_secrets(spool_dir: Path) -> None:
    """Programs log their objects; `show` masks the same values."""
    command = "curl https://me:s3cret@example.org"
    job = Spool(spool_dir).enqueue(
        {"command": command, "id": "a", "env": {"API_TOKEN": "s3cret"}, "password": "s3cret"}
    )

    assert repr(job).startswith("Job(id='a', command='curl https://me:***@example.org', ")
    assert "s3cret" not in repr(job) + str(job) + repr([job])
    assert job.env == {"API_TOKEN": "s3cret"}


def test_what_a_spool_returns_can_be_pickled_and_copied(spool_dir: Path) -> None:
    """A frozen object could not be filled again."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", tags=["x"])
    spool.cancel("a")
    things = [
        spool.get("a"),
        spool.list()[0],
        *spool.wait("a"),
        Filter(tags=("x",)),
        spool.stats().all,
        spool.settings(),
    ]
    for one in things:
        assert [pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)] == [one] * 3  # noqa: S301
    assert isinstance(things[0], Job)
    assert things[0].id == "a"


def test_output_is_read_as_text(spool_dir: Path) -> None:
    """`output` gives the path of a file that may be compressed, or another job's a moment later."""
    spool = Spool(spool_dir)
    spool.enqueue("printf 'a\\nb\\n'; echo c >&2; printf '\\377'", id="a")
    support.drain(spool_dir)

    assert (spool.read_output("a"), spool.read_output("a", stream="err")) == (
        "a\nb\n\N{REPLACEMENT CHARACTER}",
        "c\n",
    )
    assert spool.last_output("a", 1) == "\N{REPLACEMENT CHARACTER}"
    assert spool.read_output("a", run=2) == ""
    with pytest.raises(ValueError, match="there are out and err"):
        spool.read_output("a", stream="stdout")
