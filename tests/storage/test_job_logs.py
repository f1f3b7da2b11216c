"""The output of runs, as it is repeated in a job's record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.storage.job_logs import tail

if TYPE_CHECKING:
    from pathlib import Path


def test_a_tail_is_text_whatever_was_written(tmp_path: Path) -> None:
    """Bytes 0-255 become text that JSON and the job's own reader accept."""
    out = tmp_path / "job.out"
    out.write_bytes(bytes(range(256)))

    text = tail(str(out), 4096)

    assert "ABC" in text
    assert "\0" not in text
    text.encode()
    assert tail(str(tmp_path / "nothing"), 100) == ""


def test_a_cut_tail_says_how_much_is_missing(tmp_path: Path) -> None:
    """The note counts the bytes and names the command that shows the rest; no character is split."""
    out = tmp_path / "job.out"
    out.write_text("é" * 100)

    assert tail(str(out), 11, whole="queuectl logs job1") == (
        "[… 190 bytes cut; the whole: queuectl logs job1]\n" + "é" * 5
    )
    assert tail(str(out), 200) == "é" * 100
    assert tail(str(out), 0) == ""
