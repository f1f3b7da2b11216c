"""Fixtures: a spool of one's own, the command line as a process, workers that are gone at the end."""

from __future__ import annotations

import os
import random
import shutil
from itertools import chain
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from queuectl.layout import Layout

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import faults

# mkfs, mount and sshd are there, but not on the PATH of an ordinary user of Debian.
os.environ["PATH"] += f"{os.pathsep}/usr/sbin{os.pathsep}/sbin"

# A busy machine must not fail a property because one example took long.
hypothesis.settings.register_profile(
    "queuectl", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("queuectl")


def pytest_configure() -> None:
    """Each run tries other points of the sweeps; QUEUECTL_SEED repeats those of another run."""
    os.environ.setdefault("QUEUECTL_SEED", str(random.randrange(1 << 30)))


def pytest_report_header() -> str:
    """Say how to repeat this run."""
    return f"QUEUECTL_SEED={os.environ['QUEUECTL_SEED']}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: tests wait a third of their time, so three workers keep two cores busy."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(scope="session", autouse=True)
def command_server() -> Iterator[None]:
    """What runs the commands of the tests ends with them."""
    yield
    support.COMMANDS.close()


@pytest.fixture(autouse=True)
def nothing_outlives_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process that a test leaves behind fails that test, and is ended."""
    folder: Path | None = None
    if "tmp_path" in request.fixturenames:
        folder = request.getfixturevalue("tmp_path")
    yield
    if folder is None or not any(chain(folder.glob("data/workers"), folder.glob("*/data/workers"))):
        return
    left = support.processes_of(folder)
    told = [process.as_dict(["pid", "cmdline", "status"]) for process in left]
    support.end_all(left)
    assert not told, f"still running after the test: {told}"


@pytest.fixture
def spool_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path for a spool that does not exist yet; QUEUECTL_SPOOL names it, HOME is a new empty folder."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    spool = tmp_path / "spool"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("QUEUECTL_SPOOL", str(spool))
    # Settings of the developer's own shell change what a command prints.
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return spool


@pytest.fixture
def layout(spool_dir: Path) -> Layout:
    """A spool of folders, without settings, queues or jobs."""
    made = Layout(spool_dir)
    made.create()
    return made


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """The folder that a cluster's nodes share; its owner alone can enter it."""
    folder = tmp_path / "share"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def cli(spool_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a queuectl command on spool_dir, from the test's home; see support.run_cli."""

    def run(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("cwd", spool_dir.parent / "home")
        return support.run_cli(*args, **options)

    return run


@pytest.fixture
def workers(
    spool_dir: Path, cli: Callable[..., Any]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Start background workers, as in workers(2, "--drain"); at the end all are gone, jobs included."""

    def start(count: int = 1, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("expect", 0)
        started: subprocess.CompletedProcess[str] = cli(
            "worker", "start", "--count", str(count), *args, **options
        )
        return started

    yield start
    support.end_workers(spool_dir)


@pytest.fixture(scope="module")
def server() -> Iterator[faults.Server]:
    """What makes a child for each move that is to be killed, refused or cut off."""
    import faults

    if not shutil.which("strace"):
        faults.must_not_skip("strace is not installed")
    made = faults.Server()
    yield made
    made.close()
