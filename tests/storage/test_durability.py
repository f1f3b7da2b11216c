"""`durability:` says whether a hand-over waits for the disk; the system calls say whether it did."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("strace tells what is synced", allow_module_level=True)

if TYPE_CHECKING:
    from pathlib import Path

SYNCS = "fsync,fdatasync,syncfs,sync,sync_file_range"
ONE = ["enqueue", "--id", "a", "--command", "true"]
TWICE = "from queuectl import Spool; s = Spool(); s.enqueue('true', id='a'); s.enqueue('true', id='b')"
HOW = {
    "one by the command": (["-m", "queuectl", *ONE], {"fsync": 3}),
    "a file of them": (["-m", "queuectl", "enqueue", "--file", "jobs"], {"syncfs": 1, "fsync": 1}),
    "two from a program": (["-c", TWICE], {"fsync": 5, "sync_file_range": 1}),
}
"""The words, and what is synced in full: the bytes, the file behind its name, and the folder."""


def synced(words: list[str], folder: Path) -> dict[str, int]:
    log = folder / "strace"
    done = subprocess.run(
        ["strace", "-f", "-o", log, "-e", f"trace={SYNCS}", "-e", "signal=none", sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split()[1].partition("(")[0] for line in log.read_text().splitlines() if "(" in line]
    return {call: calls.count(call) for call in set(calls)}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("durability", [None, "full", "none"])
def test_a_hand_over_waits_for_the_disk_unless_told_not_to(
    how: str, durability: str | None, spool_dir: Path, tmp_path: Path
) -> None:
    """Without the setting, and with full, every byte and name is synced; with none, nothing is."""
    from queuectl import Spool

    spool = Spool(spool_dir)
    spool.refresh()
    if durability:
        (spool_dir / "config.yaml").write_text(f"durability: {durability}\n")
    (tmp_path / "jobs").write_text(json.dumps([{"id": name, "command": "true"} for name in "ab"]))
    words, wanted = HOW[how]

    assert synced(words, tmp_path) == ({} if durability == "none" else wanted)
    assert (spool_dir / "pending" / "a.json").exists()
    assert spool.get("a").command == "true"


@pytest.mark.parametrize("what", ["one", "many"])
def test_without_durability_a_taken_id_is_refused_all_the_same(what: str, spool_dir: Path) -> None:
    """The setting is about power cuts and nothing else."""
    from queuectl import DuplicateId, Spool

    spool = Spool(spool_dir)
    spool.refresh()
    (spool_dir / "config.yaml").write_text("durability: none\n")
    spool.enqueue("true", id="a")

    def hand_over() -> None:
        if what == "one":
            spool.enqueue("false", id="a")
        spool.enqueue_many([{"id": "b", "command": "true"}, {"id": "a", "command": "false"}])

    with pytest.raises(DuplicateId):
        hand_over()
    assert spool.get("a").command == "true"
    assert not list((spool_dir / "tmp").iterdir())
