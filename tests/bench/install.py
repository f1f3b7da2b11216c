"""Where the peers come from: Debian's packages, and an environment of their own with what is on PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("parallel", "task-spooler", "nq", "filespooler", "redis-server", "strace", "e2fsprogs")
LIBRARIES = ("huey", "rq", "celery[redis]", "redis", "persist-queue", "dirq")


def home() -> Path:
    """The environment's folder, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("QUEUECTL_BENCH_PEERS") or Path(cache) / "queuectl-bench" / "peers")


def program(name: str) -> str:
    """The path of a program in that environment."""
    return str(home() / "bin" / name)


def set_up() -> None:
    """Install them. Without root or without apt only the libraries: the tables say what is missing then."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=quiet, check=True)
        words = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(words, env=quiet, check=True)
    else:
        print(f"not root, or no apt-get: please install {' '.join(PACKAGES)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(home())], check=True)
    subprocess.run([program("pip"), "install", "-q", "--upgrade", *LIBRARIES], check=True)
    print(versions())


def has(library: str) -> bool:
    """Whether the environment has this library."""
    python = program("python")
    words = [python, "-c", f"import {library}"]
    return os.path.exists(python) and not subprocess.run(words, capture_output=True, check=False).returncode


def versions() -> str:
    """What is installed, in one line."""
    found = []
    for package in PACKAGES[:5]:
        words = ["dpkg-query", "-W", "-f", "${Package} ${Version}", package]
        asked = (
            subprocess.run(words, capture_output=True, text=True, check=False)
            if shutil.which(words[0])
            else None
        )
        if asked and not asked.returncode and not asked.stdout.endswith(" "):
            found.append(asked.stdout)
    if os.path.exists(program("pip")):
        words = [program("pip"), "--disable-pip-version-check", "list", "--format", "freeze"]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        names = [name.partition("[")[0] for name in LIBRARIES]
        found += [line.replace("==", " ") for line in listed if line.partition("==")[0] in names]
    return ", ".join(found)
