"""Output is read by parts while it grows: nothing is shown twice, nothing is left out, and nothing of another job."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import JobNotFound, Spool, SpoolError

from support import drop_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.api.output_part import Part


def printed(folder: Path, data: bytes, job_id: str = "a", *, packed: bool = False) -> Spool:
    """A spool with a job that has ended and printed this."""
    record = {"id": job_id, "command": "true", "attempts": 1, "history": [{"outcome": "completed"}]}
    drop_bytes(folder, f"{job_id}.json", json.dumps(record).encode(), "done")
    name = f"{job_id}.1.out.gz" if packed else f"{job_id}.1.out"
    drop_bytes(folder, name, gzip.compress(data) if packed else data, "logs")
    return Spool(folder)


def whole(spool: Spool, most: int) -> tuple[str, list[Part]]:
    """The output, read part after part."""
    parts: list[Part] = []
    at = 0
    while not parts or parts[-1].next < parts[-1].size:
        parts.append(spool.output_part("a", start=at, most=most))
        at = parts[-1].next
    return "".join(part.text for part in parts), parts


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("most", [4, 5, 7, 100])
def test_parts_make_the_whole_and_split_no_character(spool_dir: Path, most: int, packed: bool) -> None:
    """Whatever the size of a part; a compressed output as well."""
    text = "räksmörgås 🦐 €\nzwei\n" * 3
    spool = printed(spool_dir, text.encode(), packed=packed)

    found, parts = whole(spool, most)

    assert found == text
    assert all(len(part.data) <= most for part in parts)
    assert parts[-1].is_over
    assert parts[-1].size == len(text.encode())


@pytest.mark.parametrize("packed", [False, True])
def test_the_end_begins_with_a_line(spool_dir: Path, packed: bool) -> None:
    """Half a line above the rest would be taken for a whole one."""
    spool = printed(spool_dir, b"one\ntwo\nthree\n", packed=packed)

    part = spool.output_part("a", start=-1, most=8)

    assert (part.text, part.start, part.next) == ("three\n", 8, 14)


def test_one_line_longer_than_a_part_is_cut(spool_dir: Path) -> None:
    """Nothing would be shown of it otherwise."""
    part = printed(spool_dir, "ä".encode() * 50).output_part("a", start=-1, most=9)

    assert part.text == "ä" * 4


def test_a_long_line_above_a_short_one_is_cut_and_not_left_out(spool_dir: Path) -> None:
    """Of an output that is one line and queuectl's own note below it, the note alone would be shown."""
    part = printed(spool_dir, b"x" * 100 + b"\ncut\n").output_part("a", start=-1, most=20)

    assert part.text == "x" * 15 + "\ncut\n"


def test_bytes_that_are_no_text_are_replaced_and_end(spool_dir: Path) -> None:
    """A reader does not wait for the rest of a character that will never come."""
    spool = printed(spool_dir, b"ok\xff\xf0\x9f")

    assert whole(spool, 100)[0] == "ok\ufffd\ufffd"
    assert whole(spool, 3)[0].startswith("ok\ufffd")


def test_output_that_has_shrunk_is_read_anew(spool_dir: Path) -> None:
    """It was cut at log_limit, or is that of another job: what was shown before is not continued."""
    part = printed(spool_dir, b"new\n").output_part("a", start=1000)

    assert (part.text, part.start, part.was_cut) == ("new\n", 0, True)


@pytest.mark.parametrize("bad", [{"run": 0}, {"run": -1}, {"stream": "in"}, {"start": -2}, {"most": 0}])
def test_wrong_places_are_refused(spool_dir: Path, bad: dict[str, Any]) -> None:
    """A number from a browser may be any."""
    with pytest.raises(ValueError, match=r"must be|no stream"):
        printed(spool_dir, b"x").output_part("a", **bad)


def test_runs_and_jobs_that_are_not_there(spool_dir: Path) -> None:
    """A run that never was has printed nothing; a job that never was is an error."""
    spool = printed(spool_dir, b"x")

    assert spool.output_part("a", run=10**9).data == b""
    with pytest.raises(JobNotFound):
        spool.output_part("../a")


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_no_file_is_not_opened(spool_dir: Path, tmp_path: Path, kind: str) -> None:
    """A job can put a link or a FIFO in the place of its own log: the one tells a secret, the other hangs."""
    spool = printed(spool_dir, b"x")
    log = spool_dir / "logs" / "a.1.out"
    log.unlink()
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    if kind == "link":
        log.symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(log)

    with pytest.raises(SpoolError, match="cannot read"):
        spool.output_part("a")


def test_damaged_and_huge_compressed_output_is_told(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gets a sentence, and memory has an end."""
    spool = printed(spool_dir, b"x" * 5000, packed=True)
    log = spool_dir / "logs" / "a.1.out.gz"
    monkeypatch.setattr("queuectl.api.output_part.LARGEST_UNPACKED", 4000)
    with pytest.raises(Exception, match="too large to show"):
        spool.output_part("a")

    log.write_bytes(log.read_bytes()[:-9])
    monkeypatch.undo()
    with pytest.raises(SpoolError, match="damaged"):
        spool.output_part("a")
