"""`queuectl rule`, and what status, doctor and metrics say of rules: what people type, see, and are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Spool
from queuectl.api import rules
from queuectl.control import registry
from queuectl.doctor import doctor
from queuectl.doctor import rules as doctor_rules
from queuectl.doctor.finding import Case
from queuectl.errors import ConfigError, KeyTaken
from queuectl.rules import rule_book, rule_note

from support import load, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

WRONG = "when: {cron: '0 25 * * *'}\njob: {command: a}\n"


def old(path: Path) -> None:
    """Let a file count as complete."""
    os.utime(path, (0, 0))


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    found = Spool(spool_dir)
    found.add_rule("backup", {"cron": "0 2 * * *", "timezone": "Europe/Berlin"}, {"command": "true"})
    return found


def test_add_writes_a_file_that_a_person_would_write(cli: Cli, spool_dir: Path) -> None:
    told = cli(
        *("rule", "add", "backup", "--cron", "0 2 * * *", "--jitter", "5m", "--timeout", "8h"),
        *("--expires-in", "20h", "--", "rsync", "-a", "x y"),
        expect=0,
    )

    assert told.stdout == "backup: at 02:00 every day\n"
    text = (spool_dir / "rules" / "backup.yaml").read_text()
    assert text.splitlines()[:5] == [
        "when:",
        '  cron: "0 2 * * *"',
        '  jitter: "5m"',
        "job:",
        '  command: ["rsync", "-a", "x y"]',
    ]
    assert text.splitlines()[-2:] == ['  timeout: "8h"', '  expires_in: "20h"']
    again = cli("rule", "add", "backup", "--every", "1h", "true", expect=1)
    assert again.stderr == "error: there is a rule backup already\nhint: queuectl rule show backup\n"


def test_rule_of_a_vanished_directory_is_refused(spool_dir: Path, tmp_path: Path) -> None:
    """The error was that the output cannot be written."""
    gone = tmp_path / "gone"
    add = f'"{sys.executable}" -m queuectl rule add r --every 1h true'
    script = f'mkdir "{gone}"; cd "{gone}"; rmdir "{gone}"; exec {add}'
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    hint = "hint: run `queuectl rule add` in a folder that exists"
    assert (run.returncode, run.stderr) == (1, f"error: the current directory was deleted\n{hint}\n")
    assert not (spool_dir / "rules" / "r.yaml").exists()


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["x y", "--every", "1h"], 2, "'x y' cannot be a rule"),
        (["x"], 2, "it is not said when"),
        (["x", "--cron", "0 25 * * *"], 1, "when.cron: bad hour in '0 25 * * *'"),
        (["x", "--every", "1h", "--cron", "@daily"], 1, "when: has cron and every; one of them is wanted"),
        (["x", "--every", "1h", "--timeout", "soon"], 1, "job.timeout: 'soon' is not a duration"),
        (["x", "--every", "1h", "--timezone", "Berlin"], 1, "no zone is called Berlin; is Europe/Berlin meant?"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_not_written(
    cli: Cli, spool_dir: Path, words: list[str], code: int, reason: str
) -> None:
    told = cli("rule", "add", *words, "true", expect=code).stderr
    assert reason in told
    assert "line" not in told  # of a file that nobody has written
    assert not any(name.suffix == ".yaml" for name in spool_dir.glob("rules/*"))


def test_check_shows_what_a_file_says_and_refuses_a_wrong_one_with_its_place(
    cli: Cli, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("when: {every: 1d}\njob: {command: a, max_retry: 3}\n")
    bad.write_text(WRONG)

    told = cli("rule", "check", good, expect=0)
    assert "when: every day" in told.stdout
    assert told.stdout.count("next:") == 5
    assert "'max_retry' is kept but has no effect; did you mean max_retries?" in told.stderr
    refused = cli("rule", "check", good, bad, expect=1)
    assert f"error: {bad}, line 1, column 14: when.cron: bad hour in '0 25 * * *'" in refused.stderr
    assert json.loads(cli("rule", "check", bad, "--json", expect=1).stdout)[0]["problem"].endswith(
        "'0 25 * * *'"
    )


def test_check_tells_of_a_step_that_waits_for_none_of_its_chain(
    cli: Cli, spool_dir: Path, tmp_path: Path
) -> None:
    """A mistyped one would be blocked each night, and the rule would look sound."""
    chain = tmp_path / "chain.yaml"
    chain.write_text(
        "when: {every: 1d}\njobs:\n"
        "- {id: extract, command: a}\n- {id: load, command: b, after: extrakt}\n"
        "- {id: alarm, command: c, after_failure: [load, 'batch:{slot}', other]}\n"
    )

    told = cli("rule", "check", chain, expect=0).stderr
    assert told.splitlines() == [
        "note: load waits for extrakt, which is no job of this rule; is extract meant?",
        "note: alarm waits for other, which is no job of this rule",
    ]
    (spool_dir / "rules").mkdir(parents=True)
    os.rename(chain, spool_dir / "rules" / "chain.yaml")
    assert cli("rule", "show", "chain", expect=0).stderr.startswith(told)


def test_check_refuses_a_name_that_no_rule_can_have(cli: Cli, tmp_path: Path) -> None:
    """Moved into place it would be refused. A file with another ending may get its name then."""
    for name, code in (("my backup.yaml", 1), ("my backup.txt", 0), ("backup.yaml.off", 0)):
        (tmp_path / name).write_text("when: {every: 1d}\njob: {command: a}\n")
        told = cli("rule", "check", tmp_path / name, expect=code).stderr
        assert ("cannot be a rule: its name must be 1 to 30 of" in told) == bool(code)


def test_a_rule_whose_moments_have_all_passed_is_told(cli: Cli, spool_dir: Path) -> None:
    told = cli("rule", "add", "party", "--at", "2021-01-01T00:00", "true", expect=0).stderr
    assert "note: it is never due: all its moments have passed\n" in told
    told = cli("rule", "check", spool_dir / "rules" / "party.yaml", expect=0).stderr
    assert "note: it is never due: all its moments have passed\n" in told
    assert cli("rule", "list", expect=0).stdout.endswith("\tall its moments have passed\n")


def test_list_and_show_tell_what_is_wrong_and_what_came_of_it(
    cli: Cli, spool: Spool, spool_dir: Path
) -> None:
    broken = spool_dir / "rules" / "broken.yaml"
    broken.write_text(WRONG)
    old(broken)
    spool.pause_rule("backup", "bank holiday")
    [job] = spool.rule("backup").run()
    note = rule_note.Note(mark="x", done=1, queued=[1924995600], skipped=2, skips=[(1924995600, "missed")])
    rule_note.write(spool.layout, "backup", note)

    lines = [line.split("\t") for line in cli("rule", "list", expect=0).stdout.splitlines()]
    assert [line[0] for line in lines] == ["backup", "broken"]
    assert lines[0][1] == "at 02:00 every day (Europe/Berlin)"
    assert lines[0][3:] == [f"{job} (pending)", "paused: bank holiday"]
    shown = cli("rule", "show", "backup", expect=0).stdout
    assert shown.count("next:") == 5
    assert "skipped:    2" in shown
    assert ": missed" in shown
    found = json.loads(cli("rule", "show", "backup", "--json", expect=0).stdout)
    assert (found["last"]["id"], found["skips"][0]["reason"], len(found["next"])) == (job, "missed", 5)
    assert cli("rule", "show", "nightly", expect=1).stderr.startswith("error: no rule is called 'nightly'")


def test_run_queues_now_and_list_shows_the_jobs_of_the_rule(cli: Cli, spool: Spool) -> None:
    job = cli("rule", "run", "backup", expect=0).stdout.strip()
    spool.enqueue("true", id="backup2.x")

    assert job.startswith("backup.run-")
    assert spool.get(job).rule == "backup"
    assert "Rule backup" in " ".join(cli("show", job, expect=0).stdout.split())
    assert cli("list", "--rule", "backup", "--columns", "id", expect=0).stdout.split() == [job]
    assert [row.id for row in spool.list(where=Filter(rule="backup"))] == [job]
    refused = cli("rule", "run", "backup", expect=1).stderr
    assert refused.startswith(f"error: job {job} of rule backup is not over (pending), and overlap is skip\n")
    with pytest.raises(KeyTaken):
        spool.rule("backup").run()


def test_pause_and_resume_make_and_delete_the_file(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    file = spool_dir / "rules" / "backup.paused"

    cli("rule", "pause", "backup", "--reason", "bank holiday", expect=0)
    assert file.read_text() == "bank holiday\n"
    status = cli("status", expect=0).stderr
    assert "rule backup is paused since " in status
    assert ": bank holiday; it goes on after: queuectl rule resume backup" in status
    assert cli("rule", "resume", "backup", expect=0).stdout == "backup: resumed\n"
    assert not file.exists()
    assert cli("rule", "resume", "backup", expect=0).stderr == "backup was not paused\n"


def test_remove_deletes_the_file_and_keeps_the_jobs(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    [job] = spool.rule("backup").run()
    cli("rule", "remove", "backup", expect=0)

    assert list((spool_dir / "rules").iterdir()) == []
    assert spool.get(job).rule == "backup"
    assert cli("rule", "list", expect=0).stderr == "no rules; queuectl guide rules\n"


def test_status_tells_of_a_wrong_file_a_doubted_clock_and_of_what_is_overdue(
    cli: Cli, spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool_dir / "rules" / "broken.yaml").write_text(WRONG)
    monkeypatch.setattr(rule_book.RuleBook, "_is_being_written", lambda *_: False)
    now = int(time.time())
    ahead, late = rule_note.Note(mark="x", done=now + 86400), rule_note.Note(mark="x", done=now - 3 * 86400)

    rule_note.write(spool.layout, "backup", ahead)
    found = spool.notes()
    assert "rules/broken.yaml cannot be used: line 1, column 14: when.cron: bad hour in '0 25 * * *'" in found
    assert "rule backup: the clock was set back, so nothing is queued for ten minutes" in found
    rule_note.write(spool.layout, "backup", late)
    monkeypatch.setattr(registry, "live_workers", lambda _: ["worker-0"])
    assert rules.trouble(spool.rule("backup"), now, has_workers=False) is None
    assert any("rule backup: it is due since " in line for line in rules.notes(spool.layout))


def test_who_waits_for_a_rule_is_told_that_no_worker_runs(
    cli: Cli, spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = f"note: {rules.NOT_FOLLOWED}\n"
    assert "queuectl worker start" in note
    assert note in cli("status", expect=0).stderr
    assert cli("rule", "list", expect=0).stderr == cli("rule", "show", "backup", expect=0).stderr == note
    with monkeypatch.context() as working:
        working.setattr(registry, "live_workers", lambda _: ["worker-0"])
        assert rules.not_followed(spool.layout, spool.rules()) == []
    (spool_dir / "rules" / "backup.paused").touch()
    assert rules.NOT_FOLLOWED not in spool.notes()
    (spool_dir / "rules" / "backup.yaml").unlink()
    assert spool.notes() == []


def test_the_python_door_has_the_next_moments_the_last_job_and_the_problem(
    spool: Spool, spool_dir: Path
) -> None:
    one = spool.rule("backup")

    assert len(one.next(3)) == 3
    assert one.next(3) == sorted(one.next(3))
    assert (one.last, one.problem, one.kind) == (None, None, "cron")
    one.pause("why")
    assert spool.rule("backup").paused.reason == "why"  # type: ignore[union-attr]
    assert one.resume()
    with pytest.raises(ConfigError, match="no rule is called 'x'"):
        spool.rule("x")
    with pytest.raises(ValueError, match="cannot be a rule"):
        spool.add_rule("../x", {"every": "1h"}, {"command": "a"})
    assert [rule.name for rule in spool.rules()] == ["backup"]


def test_a_producer_cannot_claim_that_a_rule_has_made_its_job(cli: Cli, spool_dir: Path) -> None:
    text = '{"id": "a", "command": "true", "rule": "backup", "scheduled_for": "2031-01-01T00:00:00Z"}'
    cli("enqueue", "--file", "-", stdin=text, expect=0)

    assert not {"rule", "scheduled_for"} & load(spool_dir / "pending" / "a.json").keys()


def test_doctor_tells_of_wrong_files_lonely_notes_and_notes_ahead_of_the_clock(
    spool: Spool, spool_dir: Path
) -> None:
    now = int(time.time())
    (spool_dir / "rules" / "broken.yaml").write_text(WRONG)
    rule_note.write(spool.layout, "gone", rule_note.Note(mark="x", done=now))
    rule_note.write(spool.layout, "backup", rule_note.Note(mark="x", done=now + 86400))

    case = Case(spool.layout, lambda: now + 10.0, lambda _: None)
    wait_until(lambda: any(one.kind == "rule file" for one in doctor_rules.examine(case)), timeout=10)
    found = {one.where: one for one in doctor_rules.examine(case)}
    assert "line 1, column 14: when.cron: bad hour" in found["rules/broken.yaml"].fact
    assert found["data/rules/gone.json"].harmless
    assert "lies ahead of the clock" in found["data/rules/backup.json"].fact
    assert {"rules/broken.yaml", "data/rules/gone.json"} <= {
        one.where for one in doctor.examine(spool.layout)
    }


def test_metrics_have_the_next_and_the_last_moment_what_is_broken_and_what_was_skipped(
    spool: Spool, spool_dir: Path
) -> None:
    note = rule_note.Note(mark="x", done=1, queued=[1924995600], skipped=2)
    rule_note.write(spool.layout, "backup", note)

    lines = spool.metrics().splitlines()
    assert 'queuectl_rule_last_timestamp_seconds{rule="backup"} 1.9249956e+09' in lines
    assert 'queuectl_rule_skipped{rule="backup"} 2.0' in lines
    assert 'queuectl_rule_broken{rule="backup"} 0.0' in lines
    [following] = [line for line in lines if line.startswith("queuectl_rule_next_timestamp_seconds{")]
    assert float(following.split()[-1]) > time.time()
    (spool_dir / "rules" / "backup.yaml").unlink()
    assert "queuectl_rule" not in spool.metrics()
