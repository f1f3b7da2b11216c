"""Users type in the recipes of the cookbook: tests run a block of each one, and the cron lines.

The blocks themselves are run by test_readme.py, with all others of the README and the guide.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import BLOCKS, PAGES, Block, name_of

from queuectl import Spool

from support import end_workers, wait_until

RECIPES = dict(re.findall(r"^## (.+)\n((?s:.*?))(?=^## |\Z)", PAGES["cookbook"], flags=re.MULTILINE))
CRON_LINE = re.compile(r"^((?:[\d*/,-]+ +){4}[\d*/,-]+) +(\S.*)$", flags=re.MULTILINE)
CRON_BLOCKS = [block for block in BLOCKS if CRON_LINE.search(block.text)]
HERE = str(Path(sys.executable).parent)


def test_there_are_ten_recipes() -> None:
    """The cookbook has at least ten recipes, each under its own heading."""
    assert len(RECIPES) >= 10


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_a_block_that_is_run(name: str) -> None:
    """Each recipe has a session, commands, or a cron line that a test runs. An untested recipe would go out of date."""
    text = RECIPES[name]

    assert re.search(r"^```(console|sh)$", text, flags=re.MULTILINE) or CRON_LINE.search(text)
    assert "not-in-tests" not in text


@pytest.mark.parametrize("block", CRON_BLOCKS, ids=name_of)
def test_cron_lines_do_their_work(spool_dir: Path, block: Block) -> None:
    """The printed line works twice under the conditions of cron: sh, the home folder, a PATH that lacks queuectl."""
    home = spool_dir.parent / "home"
    spool = Spool(home / ".queuectl")
    spool.enqueue("true", id="there")
    # A person's shell puts the full path in.
    printed = subprocess.run(
        ["/bin/sh", "-c", block.text], check=True, capture_output=True, text=True,
        env={"PATH": f"{HERE}:/usr/bin:/bin"}, timeout=40,
    ).stdout  # fmt: skip
    ((_, command),) = CRON_LINE.findall(printed)
    assert command.startswith("/"), command
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    try:
        for _ in range(2):
            subprocess.run(
                ["/bin/sh", "-c", command], cwd=home, env=env, check=True, capture_output=True, timeout=40
            )
        if "queuectl worker " in command:
            wait_until(lambda: spool.get("there").state == "completed")
            wait_until(lambda: not spool.workers())
        else:
            assert sum(row.id != "there" for row in spool.list("pending")) == 1
    finally:
        end_workers(home / ".queuectl")


def test_there_are_cron_lines() -> None:
    """The pattern that finds cron lines still finds some."""
    assert len(CRON_BLOCKS) >= 2
