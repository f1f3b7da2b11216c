"""The file of a rule that watches a folder: what it says, and what is told of a wrong one, with line and column."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from queuectl.layout import Layout
from queuectl.rules import file_jobs, folder_survey, rule_file
from queuectl.rules.file_trigger import FileTrigger, is_unfinished
from queuectl.rules.rule import InvalidRule

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.rules.rule import Rule

EACH = "job: {command: 'ocr {}'}"


def parse(text: str, layout: Layout | None = None) -> Rule:
    return rule_file.parse("scans", text.encode(), "rules/scans.yaml", layout)


def trigger(when: str) -> FileTrigger:
    found = parse(f"when: {{file: /srv/scans, {when}}}\n{EACH}").trigger
    assert isinstance(found, FileTrigger)
    return found


def fault(text: str, layout: Layout | None = None) -> str:
    with pytest.raises(InvalidRule) as found:
        parse(text, layout)
    return str(found.value).removeprefix("rules/scans.yaml, ")


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("file: scans", "line 2, column 9: when.file: must be an absolute path"),
        ("file: 5", "line 2, column 9: when.file: must be the path of a folder"),
        ("{file: /srv/scans, every: 1m}", "line 2, column 3: when: has every and file; one of them is wanted"),
        ("{file: /srv/scans, sourc: move}", "line 2, column 29: when.sourc: is not known beside file; is source meant?"),
        ("{file: /srv/scans, missed: all}", "line 2, column 30: when.missed: is not known beside file"),
        ("{file: /srv/scans, source: keep}", "line 2, column 30: when.source: must be leave, move or delete"),
        ("{file: /srv/scans, match: []}", "line 2, column 29: when.match: is an empty list"),
        ("{file: /srv/scans, match: [a, 5]}", "line 2, column 33: when.match[2]: must be a pattern like '*.pdf', or a list of them"),
        ("{file: /srv/scans, match: a/*.pdf}", "line 2, column 29: when.match: must be a pattern for names, without folders; recursive: true looks into these"),
        ("{file: /srv/scans, recursive: 1}", "line 2, column 33: when.recursive: must be true or false"),
        ("{file: /srv/scans, settle: soon}", "line 2, column 30: when.settle: 'soon' is not a duration: write seconds, or 30s, 10m, 2h, 7d"),
        ("{file: /srv/scans, companion: done}", "line 2, column 33: when.companion: must have {name} or {stem} once, as in '{name}.done'"),
        ("{file: /srv/scans, companion: '{name}'}", "line 2, column 33: when.companion: is the file itself"),
        ("{file: /srv/scans, companion: 'x/{name}'}", "line 2, column 33: when.companion: must be a name like '{name}.done'"),
        ("{file: /srv/scans, at_most: 0}", "line 2, column 31: when.at_most: must be a whole number from 1 to 100000"),
        ("{file: /srv/scans, poll: 0.5}", "line 2, column 28: when.poll: must be at least 1s"),
    ],
)  # fmt: skip
def test_a_wrong_when_is_told_with_its_place(when: str, reason: str) -> None:
    assert fault(f"when:\n  {when}\n{EACH}\n") == reason


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("job: {command: ocr}", "line 2, column 16: job.command: has no placeholder: {} stands for each file"),
        ("job: {command: \"ocr '{}'\"}", "line 2, column 16: job.command: {} stands in quotes, where a value cannot be quoted safely; outside of quotes each value is quoted by itself"),
        ("job: {command: 'ocr {n}'}", "line 2, column 16: job.command: no placeholder is called {n} ({{n} is that text itself)"),
        ("job: {command: 5}", "line 2, column 16: job.command: must be text or a list of texts, not a number"),
        ("job: {command: 'ocr {}', id: a}", "line 2, column 30: job.id: a rule makes the ids"),
        ("jobs: [{id: a, command: a}]", "line 2, column 7: jobs: has no placeholder: {} stands for each file"),
    ],
)  # fmt: skip
def test_a_wrong_job_is_told_with_its_place(rest: str, reason: str) -> None:
    assert fault(f"when: {{file: /srv/scans}}\n{rest}\n") == reason


def test_a_file_moves_with_one_job_only() -> None:
    """Of several it would not be known which one's end decides where it goes."""
    text = "when: {file: /srv/scans, source: move}\njobs: [{id: a, command: 'a {}'}]"
    assert fault(text) == "line 1, column 34: when.source: must be leave with jobs"


def test_no_rule_watches_the_spool_itself(tmp_path: Path) -> None:
    """Each job file would be taken for a file to work on, and queue another one."""
    layout = Layout(tmp_path / "spool")
    layout.create()
    (tmp_path / "link").symlink_to(tmp_path / "spool")
    for folder in (tmp_path, tmp_path / "spool", tmp_path / "spool" / "done", tmp_path / "link"):
        told = fault(f"when:\n  file: {folder}\n{EACH}", layout)
        assert told == "line 2, column 9: when.file: is a folder of the spool itself"
    parse(f"when: {{file: {tmp_path}/spool2}}\n{EACH}", layout)


@pytest.mark.parametrize(
    "name",
    [".scan.pdf.Xa91Lk", ".~tmp~", "scan.pdf.part", "scan.pdf.filepart", "scan.pdf.crdownload", "~$letter.docx",
     "scan.PDF.TMP", "letter.docx~", "Thumbs.db", ".DS_Store", "#scan.pdf#", "$RECYCLE.BIN", "_rsync_x", "a.!qB"],
)  # fmt: skip
def test_the_names_of_unfinished_files_are_never_meant(name: str) -> None:
    assert is_unfinished(name)
    assert not trigger("match: '*'").chooser()(name)


def test_a_pattern_and_the_companions_decide_which_names_are_meant() -> None:
    meant = trigger("match: ['*.pdf', '*.tif'], companion: '{stem}.ok.pdf'").chooser()
    names = ["a.pdf", "b.tif", "a.txt", "a.ok.pdf", "b.PDF", "two\nlines.pdf", "-x.pdf", "x.pdf.exe"]

    assert [name for name in names if meant(name)] == ["a.pdf", "b.tif", "two\nlines.pdf", "-x.pdf"]
    assert trigger("companion: '{name}.done'").companion_of("a.pdf") == "a.pdf.done"
    assert trigger("companion: '{stem}.ok'").companion_of("a.b.pdf") == "a.b.ok"


def test_whatever_a_name_contains_is_one_argument() -> None:
    hostile = "-x '$(touch pwned)\" `id`\n;.pdf"
    job = parse("when: {file: /srv/scans}\njob: {command: 'printf %s.%s {} {rel}', unique: 'k-{name}'}").jobs

    [made] = file_jobs.Templates(job).filled(f"/srv/scans/{hostile}", hostile)
    assert (
        subprocess.check_output(made["command"], shell=True, text=True) == f"/srv/scans/{hostile}../{hostile}"
    )
    assert made["unique"] == f"k-{hostile}"
    words = parse("when: {file: /srv/scans}\njob: {command: [ocr, '{}', '/out/{stem}.txt', '{{']}").jobs
    assert file_jobs.Templates(words).filled("/srv/scans/a b.pdf", "a b.pdf")[0]["command"] == [
        *("ocr", "/srv/scans/a b.pdf", "/out/a b.txt", "{")
    ]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("match: '*.pdf'", "match: '*.tif'", False),
        ("match: '*.pdf'", "match: ['*.tif', 'scan-*']", True),
        ("match: 'a-*'", "match: 'b-*'", False),
        ("match: 'a-*.pdf'", "match: '*.pdf'", True),
        ("match: 'a-*.pdf'", "match: 'a-*.tif'", False),
        ("match: '*.[tp]if'", "match: '*.pif'", True),
        ("match: '*.pdf'", "match: 'a.pdf'", True),
        ("match: '*.pdf'", "match: 'a.PDF'", False),
        ("match: '*.pdf'", "recursive: true", True),
        ("match: '*.pdf', companion: '{name}.done'", "match: '*.done'", True),
        ("match: '*.pdf', companion: '{name}.done'", "match: '*.tif'", False),
    ],
)
def test_two_rules_are_told_apart_by_what_their_patterns_begin_and_end_with(
    one: str, other: str, meet: bool
) -> None:
    """A note that is always there is read by nobody; one that is missing lets a rule take the files of another."""
    found = folder_survey.movers(trigger(f"{one}, source: move"), {"other": trigger(other)})
    assert found == (["other"] if meet else [])
    assert folder_survey.movers(trigger(other), {"other": trigger(f"{one}, source: move")}) == found


def test_two_rules_share_a_folder_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "scans" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("scans")

    def movers(one: str, other: str) -> list[str]:
        first, second = (
            FileTrigger(str(tmp_path / one), source="move", recursive=True),
            FileTrigger(str(tmp_path / other)),
        )
        return folder_survey.movers(first, {"other": second})

    assert movers("scans", "link") == ["other"]
    assert movers("scans", "link/in") == ["other"]
    assert movers("scans/in", "scans") == []
    assert movers("scans/i", "scans/in") == []
