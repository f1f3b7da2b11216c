"""The doctor looks at what a spool has on a cluster, and changes nothing there."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.config.change import set_value
from queuectl.doctor import doctor
from queuectl.doctor.finding import STALE
from queuectl.engine import check, place
from queuectl.engine.packs import Order, Pack
from queuectl.engine.verdict import Limits

if TYPE_CHECKING:
    from queuectl.layout import Layout

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the head of a cluster runs Linux")

LATER = STALE + 3600


@pytest.fixture
def layout(spool_dir: Path, share: Path) -> Layout:
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", delay="1h")
    set_value(spool.layout, "slurm_dir", str(share))
    return spool.layout


def found(layout: Layout, ahead: float = 0) -> list[tuple[str, str, str]]:
    """Kind, fact and cure of each finding about the cluster, seen so many seconds later."""
    findings = doctor.examine(layout, now=lambda: time.time() + ahead)
    return [(one.kind, one.fact, one.cure) for one in findings if one.kind in ("slurm_dir", "pack")]


def pack(layout: Layout, share: Path, name: str = "p1") -> Path:
    _, home = place.prepare(str(share), layout, socket.gethostname())
    made = Pack.make(f"{home}/{name}", [Order(("a", "1.7"), "true", "/", {}, 60)], Limits(10, 600, 5), 1000)
    return Path(made.folder)


def test_a_share_that_is_well_is_no_finding(layout: Layout, share: Path) -> None:
    """Before the first dispatcher, and while a pack has jobs."""
    assert found(layout) == []
    assert list(share.iterdir()) == []
    one = pack(layout, share)
    claims = Path(layout.claims("slurm"))
    claims.mkdir()
    (claims / "a.json").write_text("{}")
    assert found(layout, LATER) == []
    assert one.exists()


def test_a_folder_that_cannot_be_used_is_told(layout: Layout, share: Path) -> None:
    share.chmod(0o770)
    assert found(layout) == [
        (
            "slurm_dir",
            f"slurm_dir {share} can be written by others, who could run commands as you",
            f"chmod go-w {share}",
        )
    ]
    share.rmdir()
    [(kind, fact, cure)] = found(layout)
    assert (kind, cure) == ("slurm_dir", "queuectl engine check")
    assert str(share) in fact


def test_the_place_of_another_spool_is_told(layout: Layout, share: Path) -> None:
    """The spool was copied, or the machine got another name."""
    spool, _ = place.prepare(str(share), layout, "elsewhere")
    [(_, fact, cure)] = found(layout)
    assert fact.startswith(f"{share}/{spool} belongs to {os.path.realpath(layout.root)} on elsewhere")
    assert "rm data/spool-id" in cure


def test_a_server_that_does_not_answer_holds_nobody_up(
    layout: Layout, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(check, "PATIENCE", 0.05)
    monkeypatch.setattr(place, "existing", lambda *_: gate.wait())
    assert found(layout) == [("slurm_dir", f"{share} has not answered within 0s", f"ls {share}")]
    gate.set()


def test_a_pack_of_another_version_is_left_alone_and_named(layout: Layout, share: Path) -> None:
    """Its jobs may run: an older or newer queuectl knows them."""
    one = pack(layout, share)
    plan = json.loads((one / "pack.json").read_text())
    (one / "pack.json").write_text(json.dumps({**plan, "v": 99}))
    [(kind, fact, cure)] = found(layout)
    assert (kind, fact) == ("pack", f"pack.json of {one} has version 99, and this queuectl knows 1")
    assert cure.endswith(f"rm -r {one}")
    (one / "pack.json").write_text("{")
    assert [fact for _, fact, _ in found(layout)] == [f"pack.json of {one} is damaged"]


def test_packs_without_jobs_are_told_when_they_are_old(layout: Layout, share: Path) -> None:
    """A dispatcher deletes them at once. They are there if none runs any more."""
    one = pack(layout, share)
    (share / "check-1a2b").mkdir()
    assert found(layout) == []
    assert found(layout, LATER) == [
        (
            "pack",
            f"{share}/check-1a2b was left by a check of the cluster that was killed",
            f"rm -r {share}/check-1a2b",
        ),
        ("pack", f"{one} is a pack whose jobs are all over; the next dispatcher deletes it", f"rm -r {one}"),
    ]
    assert one.exists()
