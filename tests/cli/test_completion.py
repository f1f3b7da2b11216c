"""Completion offers ids and names from the spool: fast in a spool of a million jobs, and never with an error message."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from terminal import typed_into

from queuectl import Spool

from support import drain, drop_bytes, run_cli

if TYPE_CHECKING:
    from pathlib import Path


def offered(line: str, env: dict[str, str] | None = None) -> list[str]:
    """The words that bash offers for this line; the last word is incomplete."""
    words = line.split(" ")
    variables = {
        "_QUEUECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        **(env or {}),
    }
    done = run_cli(env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    return [found.partition(",")[2] for found in done.stdout.splitlines() if found]


@pytest.fixture
def jobs(spool_dir: Path) -> Spool:
    """Jobs in several states with tags, and a worker that has stopped."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="alpha", tags=["night", "media/video"], batch="night")
    spool.enqueue("exit 1", id="beta", max_retries=1, tags=["night"])
    spool.enqueue("true", id="gamma")
    drain(spool_dir)
    spool.enqueue("true", id="another", tags=["mail"], batch="noon")
    return spool


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("queuectl show ", ["another", "gamma", "beta", "alpha"]),
        ("queuectl show a", ["alpha", "another"]),
        ("queuectl logs g", ["gamma"]),
        ("queuectl dlq retry ", ["beta"]),
        ("queuectl cancel ", ["another"]),
        ("queuectl cancel another ", []),
        ("queuectl set another prio", ["priority="]),
        ("queuectl hold a", ["another"]),
        ("queuectl release ", []),
        ("queuectl list --state p", ["pending", "processing"]),
        ("queuectl list --tag ", ["mail", "media/video", "night"]),
        ("queuectl list --tag me", ["media/video"]),
        ("queuectl enqueue --tag n", ["night"]),
        ("queuectl batch show ", ["night", "noon"]),
        ("queuectl wait --batch no", ["noon"]),
        ("queuectl enqueue --batch ni", ["night"]),
        ("queuectl enqueue --after al", ["alpha"]),
        ("queuectl enqueue --after ba", ["batch:"]),
        ("queuectl enqueue --after-any batch:no", ["batch:noon"]),
        ("queuectl enqueue --if-exists s", ["skip"]),
        ("queuectl list --worker ", ["worker-0"]),
        ("queuectl config get max-r", ["max_retries"]),
        ("queuectl config set time", ["timeout"]),
        ("queuectl list --sort prio", ["priority"]),
        ("queuectl service print --for l", ["launchd"]),
        ("queuectl serv", ["service"]),
        ("queuectl dlq re", ["retry"]),
        ("queuectl completion f", ["fish"]),
        ("queuectl guide s", ["settings", "slurm", "service", "security"]),
    ],
)  # fmt: skip
def test_what_is_there_is_offered(jobs: Spool, line: str, words: list[str]) -> None:
    """Completes ids in fitting states, tags, states, workers, settings, commands and option values."""
    assert offered(line) == words


def test_options_are_offered(spool_dir: Path) -> None:
    """A dash completes the options of the command."""
    assert {"--state", "--tag", "--json", "--no-pager"} <= set(offered("queuectl list -"))


@pytest.mark.parametrize("line", ["queuectl show ", "queuectl list --tag ", "queuectl list --worker "])
def test_without_a_spool_nothing_is_offered_and_none_is_made(spool_dir: Path, line: str) -> None:
    """Completion in an empty home directory creates nothing."""
    assert offered(line) == []
    assert not spool_dir.exists()


def test_spool_that_cannot_be_read_offers_nothing(spool_dir: Path) -> None:
    """With a file in place of the spool, or an invalid setting, completion prints no error."""
    spool_dir.write_text("no folder")
    assert offered("queuectl show ") == []
    spool_dir.unlink()
    drop_bytes(spool_dir, "a.json", b'{"command": "true"}')
    (spool_dir / "config.yaml").write_text("timeout: soon\n")
    assert offered("queuectl show b") == []


def test_ids_that_were_dropped_are_offered_too(spool_dir: Path) -> None:
    """A job that was dropped or moved by hand is completed too."""
    drop_bytes(spool_dir, "dropped.json", b'{"command": "true"}')

    assert offered("queuectl show d") == ["dropped"]


def test_no_more_is_offered_than_a_person_can_read(jobs: Spool) -> None:
    """Of thousands of jobs the newest are offered; typing the start of an id finds the others."""
    jobs.enqueue_many({"id": f"job-{n:04}", "command": "true"} for n in range(1200))

    first = offered("queuectl show ")
    assert (len(first), first[0]) == (200, "job-1199")
    assert offered("queuectl show job-0007") == ["job-0007"]
    assert offered("queuectl show al") == ["alpha"]


def test_completion_loads_nothing_heavy(spool_dir: Path) -> None:
    """Completion is fast enough to be pressed while typing."""
    code = "import sys; from queuectl.cli import main; main(); print(sorted({'rich', 'yaml', 'watchdog', 'psutil'} & set(sys.modules)), file=sys.stderr)"
    env = {"_QUEUECTL_COMPLETE": "bash_complete", "COMP_WORDS": "queuectl show ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )

    assert done.stderr.strip() == "[]"


LOAD = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ". {0}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D -u; . {0}"),
}
"""How each shell is started without the settings of whoever runs the tests, and how it loads the script."""


@pytest.fixture
def script(
    request: pytest.FixtureRequest, jobs: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The script for a shell, where there is one, and the program for it to ask."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    program = tmp_path / "queuectl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m queuectl "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / shell
    path.write_text(run_cli("completion", shell).stdout)
    return path


@pytest.mark.parametrize("script", [*LOAD], indirect=True)
def test_a_shell_completes_a_batch_although_its_name_has_a_colon(script: Path) -> None:
    """For bash a colon ends a word. So it asked for `no` alone, and nothing was offered; and a space came behind `batch:`."""
    start, load = LOAD[script.name]
    # The program itself is asked. What is run is a function that shows its words.
    show = "queuectl() { printf '<%s>' \"$@\"; echo; }"
    lines = {
        "queuectl enqueue --after batch:no\tx": "<enqueue><--after><batch:noon><x>",
        "queuectl enqueue 'a b' --after ba\tx": "<enqueue><a b><--after><batch:x>",
        "queuectl set another prio\tx": "<set><another><priority=x>",
    }
    seen = typed_into(start, f"{load.format(script)}; {show}", lines)
    assert seen == list(lines.values())


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_offers_whole_words(script: Path) -> None:
    """It leaves out the space behind a colon by itself."""
    asked = f"source {script}; complete -C 'queuectl enqueue --after batch:no'"
    done = subprocess.run(["fish", "--no-config", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "batch:noon\n"
