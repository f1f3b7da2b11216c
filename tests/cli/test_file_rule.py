"""`queuectl rule`, and what status and doctor say, of rules that watch a folder; and workers that move its files."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.api import rules
from queuectl.control import registry
from queuectl.doctor import rules as doctor_rules
from queuectl.doctor.finding import Case
from queuectl.errors import ConfigError
from queuectl.system import mounts

from support import drain, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    found = tmp_path / "scans"
    found.mkdir()
    return found


@pytest.fixture
def spool(spool_dir: Path, scans: Path) -> Spool:
    """A spool with a rule that moves files."""
    found = Spool(spool_dir)
    found.add_rule(
        "scans", {"file": str(scans), "settle": 0, "source": "move"}, {"command": "cat {}", "max_retries": 1}
    )
    return found


def test_add_writes_the_rule_with_the_absolute_path(cli: Cli, spool_dir: Path, scans: Path) -> None:
    told = cli(
        *("rule", "add", "ocr", "--file", "scans", "--match", "*.pdf", "--source", "move"),
        *("--", "ocr", "{}", "{stem}.txt"),
        cwd=scans.parent,
        expect=0,
    )

    assert told.stdout == f"ocr: *.pdf appears in {scans}\n"
    text = (spool_dir / "rules" / "ocr.yaml").read_text()
    assert f'file: "{scans}"' in text
    assert 'command: ["ocr", "{}", "{stem}.txt"]' in text
    early = cli("rule", "add", "early", "--file", f"{scans}-2", "ocr {}", expect=0)
    assert early.stderr == f"note: {scans}-2 is not there\n"
    checked = cli("rule", "check", spool_dir / "rules" / "early.yaml", expect=0)
    assert f"problem: {scans}-2 is not there\n" in checked.stdout
    wrong = cli("rule", "add", "b", "--file", str(scans), "ocr", expect=1)
    assert "job.command: has no placeholder: {} stands for each file" in wrong.stderr


def test_show_tells_what_it_would_take_and_what_the_others_wait_for(
    cli: Cli, spool: Spool, scans: Path, tmp_path: Path
) -> None:
    (scans / "a\nb.pdf").write_text("x")
    (scans / "empty.pdf").touch()
    (scans / "$100.pdf").write_text("a name that some programs give to files that they still write")
    (scans / ".hidden.pdf").write_text("x")
    (scans / "link.pdf").symlink_to("a.pdf")
    with open(os.fsencode(scans) + b"/\xff.pdf", "w") as file:
        file.write("x")
    with (scans / "c.pdf").open("w") as file:
        file.write("half")
        file.flush()
        shown = cli("rule", "show", "scans", expect=0).stdout
        found = spool.rule("scans").look()
    assert found is not None

    assert found.takes == ["a\nb.pdf"]
    assert dict(found.waits) == {
        "empty.pdf": "it is empty",
        "link.pdf": "a symbolic link, not a file",
        "c.pdf": "a program has it open for writing",
    }
    assert (found.not_utf8, found.unfinished) == (1, 1)
    assert "would take: a\\nb.pdf" in shown
    assert "c.pdf: a program has it open for writing" in shown
    assert "left alone: 1, as their names are not UTF-8" in shown
    assert "left alone: 1, as their names are like those of unfinished files" in shown
    told = json.loads(cli("rule", "show", "scans", "--json", expect=0).stdout)
    assert told["files"]["takes"][0] == "a\nb.pdf"
    assert told["kind"] == "file"
    file_of_another = tmp_path / "new.yaml"
    file_of_another.write_text(f"when: {{file: {scans}, source: move}}\njob: {{command: 'cat {{}}'}}\n")
    checked = cli("rule", "check", str(file_of_another), expect=0)
    assert "rule scans watches the same folder: the first of the two takes a file" in checked.stderr


def test_run_is_refused_as_there_is_no_file_to_run_it_for(cli: Cli, spool: Spool) -> None:
    told = cli("rule", "run", "scans", expect=1).stderr
    assert told.startswith("error: rule scans takes files: its jobs are queued when one appears\n")
    with pytest.raises(ConfigError, match="takes files"):
        spool.rule("scans").run()


def test_status_tells_of_a_folder_that_is_not_there_or_not_ours_or_on_another_machine(
    spool: Spool, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "live_workers", lambda _: ["worker-0"])
    assert rules.notes(spool.layout) == []
    monkeypatch.setattr(mounts, "hanging_points", lambda: {str(scans)})
    assert rules.notes(spool.layout) == [
        f"rule scans: {scans} is on another machine, so it is looked at each 10 s"
    ]
    monkeypatch.undo()
    monkeypatch.setattr(registry, "live_workers", lambda _: ["worker-0"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_, **__: False)
        assert "cannot be written: source: leave lets the files stay" in rules.notes(spool.layout)[0]
    scans.rmdir()
    assert rules.notes(spool.layout) == [f"rule scans: {scans} is not there"]
    scans.touch()
    assert spool.rule("scans").problem == f"{scans} is no folder"


def test_remove_deletes_the_list_of_files_and_doctor_tells_of_a_lonely_one(
    spool: Spool, spool_dir: Path, scans: Path
) -> None:
    (scans / "a.pdf").write_text("x")
    drain(spool_dir)
    seen = spool_dir / "data" / "rules" / "scans.seen"
    assert seen.exists()
    case = Case(spool.layout, lambda: 0.0, lambda _: None)
    assert list(doctor_rules.examine(case)) == []

    (spool_dir / "data" / "rules" / "gone.seen").touch()
    [found] = doctor_rules.examine(case)
    assert found.harmless
    assert "gone.seen is the list of files of a rule that is not there" in found.fact
    subprocess.run(found.cure, shell=True, check=True)
    assert list(doctor_rules.examine(case)) == []
    spool.remove_rule("scans")
    assert not seen.exists()


def _take(spool_dir: Path, scans: Path, command: str) -> str:
    """Let a worker take a file and run its job, and return the id."""
    (spool_dir / "rules" / "scans.yaml").write_text(
        f"when: {{file: {scans}, settle: 0, source: move}}\njob: {{command: '{command}', max_retries: 1}}\n"
    )
    os.utime(spool_dir / "rules" / "scans.yaml", (1, 1))
    (scans / "a.pdf").write_text("x")
    drain(spool_dir)
    [path] = [*(spool_dir / "done").iterdir(), *(spool_dir / "dead").iterdir()]
    return path.stem


def test_the_worker_of_a_job_moves_its_file_also_when_the_rule_is_gone(
    spool: Spool, spool_dir: Path, scans: Path
) -> None:
    del spool
    job_id = _take(spool_dir, scans, f"rm {spool_dir}/rules/scans.yaml; test -s {{}}")
    assert load(spool_dir / "done" / f"{job_id}.json")["source"] == f"{scans}/taken/{job_id}/a.pdf"
    assert [path.name for path in (scans / "done").iterdir()] == ["a.pdf"]
    assert os.listdir(scans / "taken") == []


def test_a_dead_job_that_runs_again_gets_its_file_back(spool: Spool, spool_dir: Path, scans: Path) -> None:
    job_id = _take(spool_dir, scans, f"test -e {scans}/mended && test -s {{}}")
    assert [path.name for path in (scans / "failed" / job_id).iterdir()] == ["a.pdf"]
    (spool_dir / "rules" / "scans.yaml").unlink()

    (scans / "mended").touch()
    spool.retry(job_id)
    drain(spool_dir)
    assert (spool_dir / "done" / f"{job_id}.json").exists()
    assert [path.name for path in (scans / "done").iterdir()] == ["a.pdf"]


def test_a_draining_worker_takes_what_is_there_before_it_leaves(
    spool: Spool, spool_dir: Path, scans: Path
) -> None:
    """Also a file that only has to rest for a moment, and those that come while it works."""
    del spool
    (spool_dir / "rules" / "scans.yaml").write_text(
        f"when: {{file: {scans}, settle: 300ms}}\n"
        f"job: {{command: 'test -e {scans}/b.pdf || echo x > {scans}/b.pdf; cat {{}}'}}\n"
    )
    os.utime(spool_dir / "rules" / "scans.yaml", (1, 1))
    (scans / "a.pdf").write_text("x")
    drain(spool_dir)
    assert len(list((spool_dir / "done").iterdir())) == 2
