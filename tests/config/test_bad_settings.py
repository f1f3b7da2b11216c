"""A bad settings file is an error beside what is known, and a bad drop folder is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, SpoolError
from queuectl.api import listing
from queuectl.config import settings
from queuectl.intake import drop_folder

from support import drop

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_bad_settings_do_not_hide_the_jobs_that_are_known(cli: Cli, spool_dir: Path) -> None:
    """The counts, the list and a job are shown, and the error beside them; the exit code tells a script."""
    cli("enqueue", "--id", "a", "true", expect=0)
    (spool_dir / "config.yaml").write_text("timeout: [\n")
    assert "'pending': 1" in cli("status", expect=0).stdout
    dropped = drop(spool_dir, "b", command="true")
    before = dropped.read_bytes()

    for words, shown in (
        (["status"], "'pending': 1"),
        (["list"], "a - pending - true"),
        (["show", "a"], "true"),
    ):
        done = cli(*words, expect=1)
        assert shown in done.stdout
        assert "config.yaml, line 2: not YAML" in done.stderr
        assert "jobs that were dropped meanwhile are not shown" in done.stderr

    assert dropped.read_bytes() == before
    (spool_dir / "config.yaml").write_text("timeout: 7\n")
    assert "'pending': 2" in cli("status", expect=0).stdout
    assert listing.one(Spool(spool_dir), "b").settings is not None


@pytest.mark.parametrize("inside", ["", "pending", "in/deep"])
def test_drop_folder_inside_the_spool_is_refused(cli: Cli, spool_dir: Path, inside: str) -> None:
    """By the command, and by a worker that finds it in the file, by any path that leads there."""
    spool = Spool(spool_dir)
    spool.layout.create()
    folder = spool_dir / inside
    link = spool_dir.parent / "link"
    link.symlink_to(folder)
    for path in (folder, link):
        assert "must be outside of the spool" in cli("config", "set", "incoming", str(path), expect=2).stderr
        (spool_dir / "config.yaml").write_text(f"incoming: {path}\n")
        with pytest.raises(SpoolError, match="lies in the spool itself"):
            drop_folder.make(settings.load(spool.layout)[0].incoming or "", spool.layout)
        (spool_dir / "config.yaml").unlink()
    cli("config", "set", "incoming", f"{spool_dir}-drops", expect=0)
