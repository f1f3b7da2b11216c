"""A worker whose installation is replaced or deleted while it runs needs no file of it any more."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import queuectl
from queuectl.worker import preload, upkeep

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and runs sh")
PACKAGE = Path(queuectl.__file__).parent
OF_COMMANDS = ("cli", "api", "doctor", "guide", "notify", "web", "worker/service", "worker/pool", "__init__")
"""Parts that a worker does not use."""


def late_imports() -> Iterator[str]:
    """The modules that functions import, in the parts that a worker uses."""
    for path in PACKAGE.rglob("*.py"):
        if not str(path.relative_to(PACKAGE)).startswith(OF_COMMANDS):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
            for node in (node for one in functions for node in ast.walk(one)):
                if isinstance(node, ast.Import):
                    yield from (name.name for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield node.module
                    yield from (
                        f"{node.module}.{name.name}"
                        for name in node.names
                        if (PACKAGE.parent / node.module.replace(".", "/") / f"{name.name}.py").exists()
                    )


def test_whatever_a_function_imports_later_is_loaded_by_then() -> None:
    """A new late import in a module that workers use has to be named in preload, too."""
    code = "import queuectl.worker.process as p, sys; from queuectl.worker import preload; preload.load_all(); print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    wanted = set(late_imports())
    assert len(wanted) > 20
    assert wanted - set(told.stdout.split()) == set()


WORKER = """
import sys
from queuectl import Worker
from queuectl.worker import preload, worker

load = preload.load_all
def load_and_watch(**words):
    load(**words)
    sys.addaudithook(lambda event, words: print("late", words[0], flush=True) if event == "import" else None)
preload.load_all = load_and_watch
worker.Worker(sys.argv[1], drain=True, wait_retries=True, say=lambda line: print(line, flush=True)).run()
"""


def test_no_fate_of_a_job_needs_another_module(spool_dir: Path) -> None:
    """A timeout, a failure, a retry, a left child, much output, new settings: nothing more is loaded for them."""
    config = spool_dir / "config.yaml"
    jobs = {
        "a0": "sleep 0.3; exit 1",
        "a1": f"printf 'timeout: 9\\nsettle_time: 0.1\\n' > {config}; sleep 1.2",
        "a2": ["no-such-program-xyz"],
        "a3": "kill -9 $$",
        "a4": "(sleep 1; touch $HOME/left) & echo left",
        "a5": "sleep 60",
        "a6": "head -c 20000 /dev/zero",
    }
    for name, command in jobs.items():
        support.drop(spool_dir, name, command=command, timeout=0.2 if name == "a5" else 5, max_retries=1)
    support.drop(spool_dir, "b", command="false", max_retries=2, backoff_base=1, max_backoff=0)
    support.drop_bytes(spool_dir, "c.json", b"{no json")
    spool_dir.chmod(0o700)
    config.write_text("settle_time: 0.1\n")  # or a quick machine leaves before c.json counts as complete

    done = subprocess.run(
        [sys.executable, "-c", WORKER, spool_dir], capture_output=True, text=True, check=True, timeout=50
    )

    support.wait_until((spool_dir.parent / "home" / "left").exists)
    assert [line for line in done.stdout.splitlines() if line.startswith("late ")] == []
    assert len(list((spool_dir / "dead").glob("*.json"))) == 6


def test_a_worker_outlives_its_installation(spool_dir: Path, tmp_path: Path) -> None:
    """The package is deleted under a worker: the next job times out and is recorded, and a new file is taken in and run.

    The first job drops that file when the package is gone. On a busy machine this test once dropped it after the worker
    had found that nothing was left, and had gone.
    """
    copy = tmp_path / "installed"
    shutil.copytree(PACKAGE, copy / "queuectl")
    home, pending = spool_dir.parent / "home", spool_dir / "pending"
    (home / "c.json").write_text('{"command": "true"}')
    until_gone = f"while [ -e {copy} ]; do sleep 0.02; done"
    support.drop(
        spool_dir, "a", command=f"touch $HOME/up; {until_gone}; mv $HOME/c.json {pending}", priority=9
    )
    support.drop(spool_dir, "b", command="sleep 60", timeout=0.3, max_retries=1)
    worker = subprocess.Popen(
        [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", "--drain"],
        env={**os.environ, "PYTHONPATH": str(copy)},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    support.wait_until((home / "up").exists)
    support.wait_until(lambda: "psutil" in Path(f"/proc/{worker.pid}/maps").read_text())
    shutil.rmtree(copy)

    told, _ = worker.communicate(timeout=40)

    assert worker.returncode == 0, told
    assert [support.where_is(spool_dir, name) for name in "abc"] == [["done"], ["dead"], ["done"]], told


def test_the_first_jobs_of_a_worker_wait_for_no_module_that_they_do_not_need(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modules were loaded at the first wait beside a run: no job started for 50 ms, and a slot was free all the time."""
    loaded: list[int] = []
    monkeypatch.setattr(preload, "load_all", lambda **_: loaded.append(len(ends())))

    def ends() -> list[Path]:
        return list((spool_dir / "done").glob("*.json"))

    for number in range(3):
        support.drop(spool_dir, f"j{number}", command="sleep 0.05")
    support.drain(spool_dir)
    assert len(ends()) == 3
    assert loaded == []

    monkeypatch.setattr(upkeep, "LOAD_AFTER", 0.1)
    support.drop(spool_dir, "long", command="sleep 0.3")
    support.drain(spool_dir)
    assert loaded == [3]  # the fourth ran on


SHORT = """
import os, resource, queuectl.worker.process
from queuectl.worker import preload

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for preload.MODULES in (("_ctypes",), preload.MODULES):  # a shared library first
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, most))
    try:
        preload.load_all()
    except (OSError, ImportError) as error:
        print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    preload.load_all()
    print("loaded")
"""

MIDWAY = """
import os, resource, sys, queuectl.worker.process
from queuectl.worker import preload

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)

class Shortage:
    begun = False
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1] and not self.begun:
            self.begun = True
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, most))

sys.meta_path.insert(0, Shortage())
try:
    preload.load_all()
except (OSError, ImportError) as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
preload.load_all()
print("loaded")
"""


def test_out_of_descriptors_nothing_is_taken_for_missing() -> None:
    """A worker that was short of them during its first job ended; the modules load when there are some again."""
    done = subprocess.run([sys.executable, "-c", SHORT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError", "loaded"] * 2, done


@pytest.mark.parametrize(
    "at", ["yaml.nodes", "yaml._yaml", "psutil._psutil_linux", "watchdog.observers.inotify_c"]
)
def test_a_package_that_was_half_loaded_is_loaded_anew(at: str) -> None:
    """The descriptors run out in the middle of it. The next try failed with an AttributeError, and ended the worker."""
    done = subprocess.run([sys.executable, "-c", MIDWAY, at], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["OSError", "loaded"], done


def test_a_worker_that_cannot_load_everything_leaves_in_order(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finishes its job, records it, says why, and starts no other."""
    monkeypatch.setattr(preload, "MODULES", ("gone_with_an_upgrade",))
    monkeypatch.setattr(upkeep, "LOAD_AFTER", 0.0)
    support.drop(spool_dir, "a", command="sleep 0.2", priority=9)
    support.drop(spool_dir, "b", command="sleep 0.2")

    said = support.drain(spool_dir)

    assert (support.where_is(spool_dir, "a"), support.where_is(spool_dir, "b")) == (["done"], ["pending"])
    assert any("cannot be loaded" in line and "gone_with_an_upgrade" in line for line in said)


LACKING = """
import sys
from queuectl import cli
from queuectl.worker import preload

preload.MODULES = ("gone_with_an_upgrade",)
sys.exit(cli.main(["worker", "start", "--foreground"]))
"""


def test_a_worker_that_cannot_load_everything_tells_who_watches_over_it(spool_dir: Path) -> None:
    """It left with exit code 0, as one that was stopped: neither the supervisor nor systemd started another one."""
    done = subprocess.run(
        [sys.executable, "-c", LACKING], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == 3, done
    assert "gone_with_an_upgrade" in done.stdout
