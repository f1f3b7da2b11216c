"""Users copy from the example spool: all its files load, and its README explains them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from queuectl import layout
from queuectl.config import queue_file, settings
from queuectl.config.keys import KEYS
from queuectl.errors import InvalidJob
from queuectl.job import record
from queuectl.rules import rule_file

EXAMPLE = Path(__file__).parents[2] / "spool_example"
NO_JOB = EXAMPLE / "dead" / "half-written.json"
JOBS = sorted(path for path in EXAMPLE.glob("*/*.json") if path != NO_JOB)
WRITTEN_BY_QUEUECTL = [path for path in JOBS if path.parent.name in {"done", "dead"}]
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(EXAMPLE).as_posix() for path in paths]


@pytest.mark.parametrize("path", JOBS, ids=names(JOBS))
def test_every_job_of_the_example_loads(path: Path) -> None:
    """Each file is a valid job, without unknown fields."""
    loaded = record.parse(path.read_bytes())

    assert loaded.command
    assert loaded.extra == {}


@pytest.mark.parametrize("path", WRITTEN_BY_QUEUECTL, ids=names(WRITTEN_BY_QUEUECTL))
def test_what_queuectl_wrote_reads_and_writes_back_byte_for_byte(path: Path) -> None:
    """The format on disk does not change: these files read and write back byte for byte."""
    data = path.read_bytes()
    loaded = record.parse(data)

    assert loaded.to_bytes() == data
    assert loaded.id == path.stem
    assert layout.FOLDER_OF[loaded.state] == path.parent.name


def test_history_of_the_example_agrees_with_its_logs() -> None:
    """Each log belongs to a run in the history of a job."""
    runs = {
        f"{loaded.id}.{run['run']}"
        for path in WRITTEN_BY_QUEUECTL
        for loaded in [record.parse(path.read_bytes())]
        for run in loaded.history
    }

    logs = {path.stem for path in (EXAMPLE / "logs").iterdir()}

    assert logs
    assert logs <= runs


def test_the_bad_file_has_the_reason_that_queuectl_gives() -> None:
    """The reason beside the invalid file is the one that a worker would write."""
    with pytest.raises(InvalidJob) as refused:
        record.parse(NO_JOB.read_bytes())

    assert Path(f"{NO_JOB}.reason").read_text(encoding="utf-8") == f"{refused.value.message}\n"


def test_every_state_folder_is_there_for_a_clone() -> None:
    """Git does not keep empty folders, so no folder of the example is empty."""
    for name in ("pending", "processing", "done", "dead", "logs", "tmp"):
        assert any((EXAMPLE / name).iterdir())


def test_config_of_the_example_names_every_key_with_a_comment() -> None:
    """Every setting is there, after a comment that says what it does, and nothing else."""
    lines = (EXAMPLE / "config.yaml").read_text(encoding="utf-8").splitlines()
    keys = {}
    for before, line in itertools.pairwise(lines):
        if found := re.fullmatch(r"(?:# )?([a-z_]+): \S.*", line):
            keys[found[1]] = before

    assert sorted(keys) == sorted(KEYS)
    assert [key for key, before in keys.items() if not before.startswith("# ")] == []


def test_config_of_the_example_changes_nothing() -> None:
    """Its values are the built-in ones, and it loads without a warning."""
    assert settings.load(layout.Layout(EXAMPLE)) == (settings.Settings(), [])


def test_the_queue_of_the_example_can_be_used() -> None:
    """Its file is valid as it is, and with each line that is commented out; each line has a comment."""
    path = EXAMPLE / "queues" / "mail.yaml"
    text = path.read_text(encoding="utf-8")
    found = queue_file.load(layout.Layout(EXAMPLE), "mail")

    assert (found.limit, str(found.rate), found.defaults) == (2, "100/1h", {"timeout": 300})
    for key, value in re.findall(r"^# ([a-z_]+): (\S+)$", text, flags=re.MULTILINE):
        assert queue_file.check("mail", key, int(value)) == int(value)
    assert f"`queues/{path.name}`" in README


def test_readme_of_the_example_names_every_file() -> None:
    """The README of the example explains each of its files."""
    assert [name for name in names(JOBS) if f"`{name}`" not in README] == []


def test_names_that_the_readme_calls_ignored_are_ignored() -> None:
    """Each listed name is ignored, and an ordinary one is not."""
    listed = re.findall(
        r"`([^`]+)`", README.partition("synchronise folders, are never taken: ")[2].partition("\n\n")[0]
    )

    assert len(listed) > 6
    assert [name for name in listed if layout.is_job_name(name)] == []
    assert layout.is_job_name("job.json")


@pytest.mark.parametrize(
    ("language", "run", "name"),
    [("sh", ["sh", "-eu"], "from-sh"), ("Python", [sys.executable], "from-python")],
)
def test_what_the_readme_tells_producers_to_type_works(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, language: str, run: list[str], name: str
) -> None:
    """Each snippet leaves one complete job in pending/ and nothing in tmp/."""
    monkeypatch.delenv("QUEUECTL_SPOOL")
    spool = spool_dir.parent / "home" / ".queuectl"
    layout.Layout(spool).create()
    found = re.search(rf"^In {language}.*:\n\n((?:    .*\n)+)", README, flags=re.MULTILINE)
    assert found

    subprocess.run(run, input=textwrap.dedent(found[1]), text=True, check=True, timeout=20)

    assert [path.name for path in (spool / "pending").iterdir()] == [f"{name}.json"]
    assert record.parse((spool / "pending" / f"{name}.json").read_bytes()).command
    assert list((spool / "tmp").iterdir()) == []


RULES = sorted((EXAMPLE / "rules").iterdir())


@pytest.mark.parametrize("path", RULES, ids=names(RULES))
def test_every_rule_of_the_example_is_off_and_could_be_used(path: Path) -> None:
    """`queuectl demo` copies the example: a rule that is on would queue jobs at night."""
    assert path.suffix == ".off"
    assert rule_file.parse(path.name.partition(".")[0], path.read_bytes(), path.stem).jobs
    assert f"`rules/{path.name}`" in README
