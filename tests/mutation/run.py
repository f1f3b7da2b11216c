"""One mutant at a time: a copy of the project with one text replaced, and the tests that must notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


TOP = Path(__file__).parent.parent.parent
REAPER = Path(__file__).with_name("reaper.py")
NEEDED = ("queuectl", "spool_example", "tests", "pyproject.toml", "README.md")
LIMIT = 240
"""Seconds for the tests of one mutant; one that hangs has been noticed, too."""


@dataclass(frozen=True)
class Mutant:
    """One protection taken out.

    Attributes:
        name: short and unique.
        file: the source file within the package.
        old: the text that is replaced; it must be there exactly once, or `times` times, all replaced.
        new: what stands there instead.
        tests: pytest ids of which at least one must fail, in the order in which they are tried.
        times: how often the text is there.
        equal: why no test can tell the mutant from the original; then it must survive its tests.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    times: int = 1
    equal: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "killed", "SURVIVED", "equal", "NOT FOUND" or "BROKEN" (its tests cannot be run)."""

    mutant: Mutant
    fate: str
    by: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.fate in ("killed", "equal")


def mutate(source: str, mutant: Mutant) -> str | None:
    """The source with the protection taken out; None if the text is not there as often as it should be."""
    return source.replace(mutant.old, mutant.new) if source.count(mutant.old) == mutant.times else None


def try_all(mutants: Sequence[Mutant], *, at_once: int = 2) -> Iterator[Verdict]:
    """Try each on a copy of the project, some at once, and tell in their order."""
    with _snapshot() as folder, ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda pair: _try(pair[1], folder, str(pair[0])), enumerate(mutants))


def failing(mutants: Iterable[Mutant]) -> list[str]:
    """Those of the tests that fail with nothing taken out: they can kill no mutant."""
    tests = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
    with _snapshot() as folder, _copy(folder, "sound") as copy:
        _, said = _test(copy, list(tests), limit=1800, first=False)
    return [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]


@contextmanager
def _snapshot() -> Iterator[Path]:
    """A copy of the project for all mutants: it may be worked on meanwhile."""
    with (
        tempfile.TemporaryDirectory(prefix="queuectl-mutants-", ignore_cleanup_errors=True) as folder,
        _copy(Path(folder), "", TOP),
    ):
        yield Path(folder)


def _try(mutant: Mutant, folder: Path, name: str) -> Verdict:
    began = time.monotonic()
    with _copy(folder, name) as copy:
        target = copy / "queuectl" / mutant.file
        changed = mutate(target.read_text(encoding="utf-8"), mutant)
        if changed is None:
            return Verdict(mutant, "NOT FOUND", mutant.file, 0)
        compile(changed, str(target), "exec")
        target.write_text(changed, encoding="utf-8")
        code, said = _test(copy, mutant.tests)
    seconds = time.monotonic() - began
    if code == 0:
        return Verdict(mutant, "equal" if mutant.equal else "SURVIVED", mutant.equal, seconds)
    if code in (1, None):
        fate = "NOT EQUAL" if mutant.equal else "killed"
        return Verdict(mutant, fate, _who_failed(said), seconds)
    return Verdict(mutant, "BROKEN", said[-400:], seconds)


@contextmanager
def _copy(folder: Path, name: str, source: Path | None = None) -> Iterator[Path]:
    """A copy of what the tests need, in a folder of this name within the snapshot; gone at the end."""
    target = folder / name
    target.mkdir(exist_ok=True)
    ignore = shutil.ignore_patterns("__pycache__", ".*cache")
    for part in NEEDED:
        here = (source or folder) / part
        if here.is_dir():
            shutil.copytree(here, target / part, ignore=ignore, symlinks=True)
        else:
            shutil.copy(here, target / part)
    try:
        yield target
    finally:
        if name:
            shutil.rmtree(target, ignore_errors=True)


def _test(
    copy: Path, tests: Sequence[str], *, limit: float = LIMIT, first: bool = True
) -> tuple[int | None, str]:
    """Run these tests against the copy; the exit code of pytest, None when it had to be ended.

    Args:
        first: stop at the first one that fails.
    """
    words = [sys.executable, str(REAPER), sys.executable, "-m", "pytest", "-q", *(["-x"] if first else [])]
    words += [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "--tb=no",
        "-rf",
        "--timeout=25",
    ]
    # Its own temporary folder, inside the copy: what a broken worker leaves behind goes with it.
    words += [f"--basetemp={copy / 'tmp'}", *tests]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("QUEUECTL_", "PYTEST_"))}
    # A sweep has to try the point at which the protection is missed.
    env |= {"QUEUECTL_STRIDE": "1", "QUEUECTL_SEED": "0"}
    env |= {"PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "examples")}
    with subprocess.Popen(
        words,
        cwd=copy,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate()
            return None, said
    return process.returncode, said


def _who_failed(said: str) -> str:
    failed = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" - ")[0].split()[1].replace("tests/", "") if failed else "a time limit"
