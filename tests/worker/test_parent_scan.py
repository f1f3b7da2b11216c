"""What a person moves in done/ and dead/ lets waiting jobs go, whatever else happens there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import Spool
from queuectl.worker.parent_scan import ParentScan

if TYPE_CHECKING:
    from pathlib import Path


def test_a_parent_in_dead_is_found_while_somebody_changes_done(spool_dir: Path) -> None:
    """A script that archives the records of completed jobs, file by file, kept workers from ever looking into dead/."""
    with Spool(spool_dir) as spool:
        spool.enqueue("true", id="parent")
        spool.enqueue("true", id="alarm", after_failure="parent")
        spool.refresh()
        scan = ParentScan(spool._index, spool._intake)
        (spool_dir / "pending" / "parent.json").rename(spool_dir / "dead" / "parent.json")
        for number in range(3):
            (spool_dir / "done" / f"note{number}.txt").touch()
            scan.look()
        assert spool._index.states(["parent"]) == {"parent": "dead"}
