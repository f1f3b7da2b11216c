"""A worker in an 8-bit locale hands over the bytes that are in the job's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", ["printf %s 'ä€' > out; printf %s \"$X\" >> out", ["cp", "ß", "out"]])
def test_program_gets_utf_8_whatever_the_locale(spool_dir: Path, tmp_path: Path, command: object) -> None:
    """Shell text, an argument, a variable and the folder; in Latin-1 an `ä` was one other byte."""
    folder = tmp_path / "Übung"
    folder.mkdir()
    (folder / "ß").write_text("ä€ü€")
    for name in ("pending", "tmp"):
        (spool_dir / name).mkdir(parents=True, mode=0o700, exist_ok=True)
    os.chmod(spool_dir, 0o700)
    job = {"command": command, "cwd": str(folder), "env": {"X": "ü€"}, "max_retries": 1}
    (spool_dir / "pending" / "a.json").write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", "--drain"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    wait_until(lambda: where_is(spool_dir, "a") in (["done"], ["dead"]))
    assert (folder / "out").read_bytes() == "ä€ü€".encode()


def test_text_is_native_in_latin_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python encodes in the locale's way comes out as UTF-8."""
    script = (
        "import os, sys; from queuectl.executor import base; text = base._native('ä€');"
        "sys.exit(os.fsencode(text) != 'ä€'.encode())"
    )
    for name in ("en_US.ISO-8859-1", "de_DE.ISO-8859-1", "C"):
        monkeypatch.setenv("LC_ALL", name)
        monkeypatch.setenv("PYTHONUTF8", "0")
        monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
        escaped = script.encode("unicode_escape").decode()
        subprocess.run([sys.executable, "-c", escaped], check=True, timeout=30)
