"""Jobs of a list are made after one that says the same, and nobody can tell but by the clock."""

from __future__ import annotations

import os
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import InvalidJob, Spool
from queuectl.api import enqueue, enqueue_many, enqueue_templates
from queuectl.config.settings import JobDefaults, Settings
from queuectl.job import record as job
from queuectl.layout import Layout
from queuectl.storage.enqueue import waiting_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from queuectl.storage.transitions import Prepared

NOW = 1_800_000_000.123456
SETTINGS = Settings(max_retries=7, jitter=0.25, retry_on=[3, 4])
DEFAULTS = JobDefaults(Layout("/nowhere"), SETTINGS)

SHARED: list[dict[str, Any]] = [
    {},
    {"cwd": "/"},
    {"cwd": "/tmp/../tmp", "priority": 9},
    {"cwd": None, "timeout": "10m", "backoff_base": 1.5},
    {"env": {"A": '"created_at": "', "é": "\\"}, "tags": ["x", "y"], "on_crash": "dead"},
    {"retry_on": [1, 2], "give_up_on": [], "jitter": 0, "max_backoff": 5, "max_retries": 0},
    {"delay": 60},
    {"run_at": NOW + 5},
    {"expires_in": "1h", "hold": True},
    {"unique": "k", "if_exists": "replace"},
    {"note": "a field of their own", "state": "dead", "attempts": 4},
    {"history": [{"exit_code": 1}], "priority": None},
]
COMMANDS: list[Any] = ["true", 'echo "ä\\n" \t 😀', "x" * 5000, ["a b", "c"], ["printf", "%s", '"']]


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands, and ids that are known before."""
    for module in (enqueue_templates, enqueue):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: NOW))
    monkeypatch.setattr(enqueue_many, "FEW", 0)
    drawn = iter([f"{number:08}" for number in range(1000)])
    monkeypatch.setattr(enqueue_templates, "id_endings", lambda _: [next(drawn)])


def made_of(spool: Spool, *records: Mapping[str, Any]) -> list[Any]:
    """What a list becomes: names, bytes, rows, whether the id was chosen, and whether it asks for leave."""
    made, trouble = enqueue_many.prepare_batch(iter(records), {}, DEFAULTS, 1000)
    assert trouble is None
    return [shown(spool, one) for one in made]


def shown(spool: Spool, made: Prepared) -> tuple[Any, ...]:
    row = list(waiting_row(made, (1, 2, 3), 10**15))
    return made.id, made.data, row, made.chosen, made.needs_key, made.job


@pytest.mark.parametrize("shared", SHARED, ids=lambda one: "-".join(one) or "nothing")
@pytest.mark.parametrize("chosen", [True, False])
def test_it_makes_the_same_of_a_job_alone_or_in_a_list(
    spool_dir: Path, shared: dict[str, Any], chosen: bool
) -> None:
    """Id, bytes, row: all of it, whatever the jobs before it said."""
    spool = Spool(spool_dir)
    spool._storage.now = lambda: NOW
    records = [{**shared, "command": command} for command in ["first", *COMMANDS]]
    if chosen:
        records = [{**record, "id": f"id-{number}"} for number, record in enumerate(records)]

    together = made_of(spool, *records)

    alone = [
        shown(spool, enqueue.prepare(record, DEFAULTS, f"{number:08}"))
        for number, record in enumerate(records)
    ]
    assert together == alone


def test_most_of_a_list_is_made_after_its_first_job(spool_dir: Path) -> None:
    """Or nothing of this would be tested."""
    records = [{"command": command, "cwd": "/", "tags": ["a"]} for command in ("a", "b", "c")]
    made, _ = enqueue_many.prepare_batch(iter(records), {}, DEFAULTS, 9)

    assert [one.made is None for one in made] == [False, True, True]


def test_what_looks_alike_and_is_not_is_looked_at_closely(spool_dir: Path) -> None:
    """One and True are equal, and only one of them is a priority."""
    records = [{"command": "a", "priority": 1}, {"command": "b", "priority": True}]
    made, trouble = enqueue_many.prepare_batch(iter(records), {}, DEFAULTS, 9)

    assert len(made) == 1
    assert isinstance(trouble, InvalidJob)
    assert trouble.field == "priority"


@pytest.mark.parametrize(
    "wrong",
    [{"command": " "}, {"command": "a\0"}, {"command": "\ud800"}, {"command": []}, {"command": 1}, {}]
    + [{"command": "a", "id": bad} for bad in ("", "-a", 1.5, "con", "a" * 65)]
    + [{"command": "a", "cwd": 0}],
)
def test_a_wrong_job_among_others_is_refused_in_the_same_words(wrong: dict[str, Any]) -> None:
    """Those before it are good, and what is said of it is what is said of it alone."""
    with pytest.raises(InvalidJob) as alone:
        enqueue.prepare(wrong, DEFAULTS)

    made, trouble = enqueue_many.prepare_batch(
        iter([{"command": "a"}, {"command": "b"}, wrong]), {}, DEFAULTS, 9
    )

    assert len(made) == 2
    assert str(trouble) == str(alone.value)


def test_each_job_is_where_its_caller_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may go from folder to folder while it hands over jobs."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()

    def wander() -> Iterator[dict[str, Any]]:
        for name in ("a", "b", "a"):
            os.chdir(tmp_path / name)
            yield {"command": "pwd"}
            yield {"command": "pwd", "cwd": "sub"}

    made, _ = enqueue_many.prepare_batch(wander(), {}, DEFAULTS, 9)

    assert [one.job.cwd for one in made] == [
        f"{tmp_path}/{name}{sub}" for name in ("a", "b", "a") for sub in ("", "/sub")
    ]


def test_what_is_too_large_beside_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for what is made after another one, too."""
    monkeypatch.setattr(job, "SIZE_LIMIT", 5000)
    _, trouble = enqueue_many.prepare_batch(
        iter([{"command": "a"}, {"command": "a" * 4990}]), {}, DEFAULTS, 9
    )

    assert "too large" in str(trouble)


def test_ids_of_a_list_ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    """In few long runs: their rows lie side by side in the index, and `ls` shows a list nearly in its order."""
    monkeypatch.undo()
    made, _ = enqueue_many.prepare_batch(iter([{"command": "a"}] * 2000), {}, DEFAULTS, 2000)
    names = [one.id for one in made[enqueue.FEW :]]

    assert sum(one > other for one, other in pairwise(names)) <= 5
    assert len({one.id for one in made}) == 2000
