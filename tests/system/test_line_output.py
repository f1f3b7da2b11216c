"""Lines that somebody may or may not read never make their writer wait."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from queuectl.system import line_output
from queuectl.system.line_output import LineOutput

from support import no_thread_to_have, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pipe is made small as on Linux")

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds 4096 bytes."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    yield read, write
    os.close(write)


def test_lines_that_nobody_takes_are_counted_and_said(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and the reader learns where lines are missing."""
    monkeypatch.setattr(line_output, "BACKLOG", 1000)
    read, write = pipe
    output = LineOutput(write)
    for _ in range(200):
        output.write(LINE)
    with open(read, "rb") as file:
        lines = [file.readline() for _ in range(1)]
        while b"left out" not in lines[-1]:
            lines.append(file.readline())
        missing = 200 - (len(lines) - 1)
        assert lines[-1] == f"... {missing} line(s) were left out here: nobody was reading\n".encode()
        assert {*lines[:-1]} == {LINE}
        assert missing > 100
        wait_until(lambda: output._thread is None)
        output.write(b"again\n")
        assert file.readline() == b"again\n"


@pytest.mark.parametrize("more", [LINE, b""], ids=["the next line", "the end"])
def test_lines_wait_while_there_is_no_thread_to_have(pipe: tuple[int, int], more: bytes) -> None:
    """A worker that is at the limit of processes goes on, and its lines come in their order with what follows."""
    read, write = pipe
    output = LineOutput(write)
    with no_thread_to_have():
        for _ in range(60):
            output.write(LINE)
        output.write(b"waits\n")
    with open(read, "rb") as file:
        if more:
            output.write(more)
        else:
            threading.Thread(target=output.close, daemon=True).start()
        assert [file.readline() for _ in range(61)] == [LINE] * 60 + [b"waits\n"]
        assert file.readline() == LINE if more else True
    output.close()


def test_end_waits_for_a_slow_reader_and_not_for_none(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last lines of a worker must not be lost to a reader that takes its time; one that is gone costs moments."""
    monkeypatch.setattr(line_output, "PATIENCE", 0.2)
    read, write = pipe
    output = LineOutput(write)
    for _ in range(100):
        output.write(LINE)
    began = time.monotonic()
    output.close()
    assert 0.1 < time.monotonic() - began < 5
    os.close(read)


def test_the_terminal_of_others_keeps_its_mode(pipe: tuple[int, int]) -> None:
    """A flag on the shared descriptor would make the shell's own programs lose output after the worker's end."""
    read, write = pipe
    LineOutput(write).write(b"hi\n")
    assert os.get_blocking(write)
    assert os.read(read, 100) == b"hi\n"
    os.close(read)


def test_a_file_is_continued_where_it_is(tmp_path: Path) -> None:
    """`worker start --foreground > log`: opened once more, the file would be written from its beginning."""
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        LineOutput(file.fileno()).write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"
