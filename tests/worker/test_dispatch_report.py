"""What a dispatcher tells people: why jobs wait on the cluster and who has to act, once in its log, and always in its record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from queuectl.engine.base import Parcel, Row
from queuectl.engine.handed import Handed
from queuectl.engine.summary import summarize, word_of
from queuectl.errors import SpoolError
from queuectl.worker import dispatch_report
from queuectl.worker.dispatch_report import Reporter, waits_in_words

SENTENCE = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ({"Resources": 3, "Priority": 1, "QOSMaxCpuPerUserLimit": 2, "AssocGrpCpuLimit": 5, "Licenses": 1}, []),
        ({"PartitionConfig": 4}, ["4 jobs wait in slurm for what it may never have: PartitionConfig"]),
        (
            {"QOSMaxCpuPerJobLimit": 1, "AssocMaxNodePerJobLimit": 1, "QOSMinGRES": 1},
            ["3 jobs wait in slurm for what it may never have: AssocMaxNodePerJobLimit, QOSMaxCpuPerJobLimit, QOSMinGRES"],
        ),
        (
            {"NodesDown": 1, "ReqNodeNotAvail": 2},
            ["3 jobs wait in slurm for nodes that are out of service: sinfo -R"],
        ),
        ({"PartitionDown": 1}, ["1 job waits in slurm for a partition that starts nothing now: sinfo"]),
        ({"JobHeldAdmin": 1}, ["1 job waits in slurm as somebody holds it there: scontrol release"]),
        (
            {"FAILED": 1},
            ["1 job waits in slurm to be sent again, as no start came of it: queuectl engine check"],
        ),
    ],
)  # fmt: skip
def test_only_what_somebody_must_do_is_a_note(reasons: dict[str, int], told: list[str]) -> None:
    """That others are first, and that a limit of an account is used up, is usual on a cluster."""
    assert waits_in_words("slurm", reasons) == told


@pytest.mark.parametrize(
    ("reason", "word"),
    [("Resources", "Resources"), ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "ReqNodeNotAvail"), (SENTENCE, "NodesDown")],
)  # fmt: skip
def test_reasons_are_counted_without_their_details(reason: str, word: str) -> None:
    assert word_of(reason) == word


class Out:
    """What a tracker has: packs, none of which has a runner."""

    def __init__(self, *packs: list[Row]) -> None:
        self.handed = [self._pack(number, rows) for number, rows in enumerate(packs)]
        self.packs, self.idle = len(packs), 0
        self.unreadable: dict[str, str] = {}
        self.doubtful: list[tuple[str, str]] = []

    def over(self) -> list[str]:
        """No pack."""
        return []

    @staticmethod
    def _pack(number: int, rows: list[Row]) -> Handed:
        pack: Any = SimpleNamespace(keys=[(f"{number}a", "1"), (f"{number}b", "1")], path=str)
        handed = Handed(pack, Parcel(f"p{number}", "/p", "/node.py"), 0.0, sends=1)
        handed.rows = rows
        return handed


def test_each_job_has_the_reason_of_its_pack() -> None:
    """Also one that a node could not begin: Slurm says so before it is sent again. Of one that runs nothing is told."""
    tracker: Any = Out(
        [Row("7", "PENDING", "", is_live=True), Row("8", "PENDING", "(Resources)", is_live=True)],
        [Row("9", "FAILED", "JobLaunchFailure", is_live=False)],
        [Row("9", "FAILED", "JobLaunchFailure", is_live=False), Row("10", "CONFIGURING", "", is_live=True)],
        [Row("11", "COMPLETED", "", is_live=False)],
        [],
    )
    tracker.handed[0].claims = {1: "n1.8.1"}
    found = summarize(tracker)
    assert [(one.number, one.reason, one.jobs) for one in found.queued] == [
        ("8", "Resources", ("0a",)),
        ("9", "FAILED, JobLaunchFailure", ("1a", "1b")),
    ]
    assert found.reasons == {"Resources": 1, "FAILED": 2}


def test_what_becomes_wrong_is_logged_once_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the log the next day sees since when. A number that changes each second is no news."""
    lines: list[str] = []
    noted: list[str | None] = []
    dispatcher: Any = SimpleNamespace(
        share=None, upkeep=SimpleNamespace(note=lambda _, value: noted.append(value))
    )
    reporter = Reporter(lines.append)
    for found in (
        [],
        ["4 jobs wait for slurm"],
        ["12,400 jobs wait for slurm"],
        ["5 jobs wait for slurm", "the share is away since 2026-11-30 22:41:07"],
        ["the share is away since 2026-11-30 22:41:08"],
        [],
        [],
        ["the share is away since 2026-11-30 23:00:00"],
    ):
        monkeypatch.setattr(dispatch_report, "troubles", lambda _, found=found: found)
        reporter.report(dispatcher)
    assert lines == [
        "4 jobs wait for slurm",
        "the share is away since 2026-11-30 22:41:07",
        "nothing is wrong any more",
        "the share is away since 2026-11-30 23:00:00",
    ]
    assert noted[3] == "5 jobs wait for slurm\nthe share is away since 2026-11-30 22:41:07"


def test_a_share_that_could_not_be_used_is_told_also_while_it_is_tried_again() -> None:
    """Each try would be logged as its mending."""
    share = SimpleNamespace(busy_since=None, danger=None, summary=None)
    dispatcher: Any = SimpleNamespace(
        name="slurm",
        settings=SimpleNamespace(slurm_dir="/shared"),
        trouble_of_share=SpoolError("it is not there"),
        has_moved=False,
        connection=None,
        pace=SimpleNamespace(rests_until=0.0),
    )
    for dispatcher.share in (None, share):
        assert dispatch_report.troubles(dispatcher) == ["slurm cannot use the shared folder: it is not there"]
