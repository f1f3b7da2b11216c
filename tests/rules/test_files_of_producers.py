"""Programs put files into a watched folder in their own ways: each is taken whole, and makes one job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rules.folder_world import Watched

from queuectl import Spool

from support import end_workers, load, wait_until

WHOLE = "line\n" * 20_000

SLOWLY = """
import sys, time
with open(sys.argv[1], "w") as file:
    for part in range(5):
        file.write("line\\n" * 4_000)
        file.flush()
        time.sleep(0.3)
"""

AS_SAMBA = """
import os, sys, time
open(sys.argv[1], "w").close()
time.sleep(0.3)
with open(sys.argv[1], "r+") as file:
    file.write("line\\n" * 20_000)
time.sleep(0.1)
os.utime(sys.argv[1], (1e9, 1e9))
os.rename(sys.argv[1], sys.argv[2])
"""

AS_A_SCANNER = """
import sys, time
for part in range(5):
    with open(sys.argv[1], "a") as file:  # a page at a time, and closed between them
        file.write("line\\n" * 4_000)
    time.sleep(0.2)
"""

SFTP = next(filter(os.path.exists, ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server")), None)


def _commands(whole: Path, scans: Path) -> dict[str, list[str]]:
    """What puts each of the files into the folder."""
    python = [sys.executable, "-c"]
    found = {
        "copied": ["cp", "-p", str(whole), str(scans / "copied")],
        "moved": ["mv", str(whole.with_name("to-move")), str(scans / "moved")],
        "linked": ["ln", str(whole.with_name("to-link")), str(scans / "linked")],
        "slow": [*python, SLOWLY, str(scans / "slow")],
        "samba": [*python, AS_SAMBA, str(scans / "New File"), str(scans / "samba")],
        "scanner": [*python, AS_A_SCANNER, str(scans / "scanner")],
        "piped": ["sh", "-c", f"(head -c 50000; sleep 1; cat) < {whole} > {scans}/piped"],
    }
    if shutil.which("rsync"):
        found["rsynced"] = ["rsync", "--bwlimit=80", str(whole), str(scans / "rsynced")]
        found["rsynced-in-place"] = [
            *("rsync", "--inplace", "--bwlimit=80", str(whole), str(scans / "rsynced-in-place"))
        ]
    if SFTP and shutil.which("sftp"):
        script = f"put {whole} {scans}/sftp.filepart\nrename {scans}/sftp.filepart {scans}/sftp\n"
        found["sftp"] = ["sh", "-c", f"printf '%b' '{script}' | sftp -q -b - -D {SFTP}"]
    return found


def test_whatever_writes_a_file_it_is_taken_whole_and_once(
    spool_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Watched(spool_dir, monkeypatch)
    one.rule("settle: 1500ms")
    outside = tmp_path / "outside"
    outside.mkdir()
    whole = outside / "whole"
    for name in ("whole", "to-move", "to-link"):
        (outside / name).write_text(WHOLE)
    commands = _commands(whole, one.scans)
    producers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands.values()]
    sizes: dict[str, int] = {}
    try:

        def all_taken() -> bool:
            one.live()
            for path in (spool_dir / "pending").iterdir():
                if path.name not in sizes:
                    sizes[path.name] = Path(load(path)["source"]).stat().st_size
            return len(sizes) >= len(commands)

        wait_until(all_taken, timeout=30)
        assert [process.wait(10) for process in producers] == [0] * len(commands)
    finally:
        for process in producers:
            process.kill()
            process.wait()
    until = time.monotonic() + 1.8
    while time.monotonic() < until:
        one.live()
    assert one.names() == sorted(commands)
    assert set(sizes.values()) == {len(WHOLE)}


def _start(spool_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "queuectl", "worker", "start", "--foreground"],
        env={**os.environ, "QUEUECTL_SPOOL": str(spool_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("source", ["leave", "move"])
def test_while_workers_are_killed_each_file_makes_one_job_that_ends_well(
    spool_dir: Path, tmp_path: Path, source: str
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    spool = Spool(spool_dir)
    spool.add_rule("scans", {"file": str(scans), "settle": "0", "source": source}, {"command": "cat {}"})
    workers = [_start(spool_dir), _start(spool_dir)]
    try:
        for number in range(45):
            scratch = tmp_path / "scratch"
            scratch.write_text("x")
            scratch.rename(scans / f"{number}.pdf")
            time.sleep(0.03)  # files come while the workers die
            if number % 15 == 14:
                workers[0].send_signal(signal.SIGKILL)
                workers.pop(0).wait()
                workers.append(_start(spool_dir))
        done = spool_dir / "done"
        wait_until(lambda: len(list(done.iterdir())) >= 45, timeout=40)
        wait_until(lambda: source == "leave" or len(os.listdir(scans / "done")) == 45, timeout=40)
    finally:
        end_workers(spool_dir)
        for worker in workers:
            worker.kill()
            worker.wait()
    names = sorted(os.path.basename(load(path)["source"]) for path in done.iterdir())
    assert names == sorted(f"{number}.pdf" for number in range(45))
    assert not list((spool_dir / "pending").iterdir())
    assert not list((spool_dir / "dead").iterdir())
