"""A spool with a rule that watches a folder, under a clock that the test sets."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rules.clock import World

from support import load

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

JOB = "job: {command: 'cat {}'}"
NOW = "2031-01-01T12:00Z"


class Watched(World):
    """A spool with one rule, and the folder that it watches."""

    def __init__(self, spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(spool_dir, NOW, monkeypatch)
        self.scans = spool_dir.parent / "scans"
        self.scans.mkdir()

    def rule(self, more: str = "", job: str = JOB) -> None:
        """Watch the folder."""
        self.write("scans", f"{{file: {self.scans}{more and ', '}{more}}}", job)

    def drop(self, name: str, text: str = "x") -> Path:
        """Put a whole file into the folder, as `mv` does."""
        path = self.scans / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.scans.parent / "scratch"
        scratch.write_text(text)
        os.rename(scratch, path)
        return path

    def names(self) -> list[str]:
        """The names of the files that the jobs are about."""
        return sorted(
            os.path.basename(load(path)["source"])
            for folder in ("pending", "done", "dead")
            for path in (self.folder.parent / folder).glob("*.json")
        )

    def live(self) -> None:
        """Let time pass as it does, and look once."""
        self.now, self.ticks = time.time(), time.monotonic()
        self.scheduler.look()

    def tree(self) -> list[str]:
        """The files in the folder and below, without the ids of jobs."""
        found = []
        for path in sorted(self.scans.rglob("*")):
            if path.is_file():
                parts = path.relative_to(self.scans).parts
                found.append("/".join("ID" if part.startswith("scans.file-") else part for part in parts))
        return sorted(found)
