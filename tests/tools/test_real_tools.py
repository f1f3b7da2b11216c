"""Real programs hand over jobs and operate the spool: each job runs once, whole, and each move means what is documented."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import faults
import pytest

from queuectl import Spool

from support import finished, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

PADDING = "x" * 40_000
"""Makes a file that is on its way for a while."""


@pytest.fixture
def spool(spool_dir: Path, workers: Callable[..., object]) -> Spool:
    """A spool with a worker at work."""
    made = Spool(spool_dir)
    made.refresh()
    workers(1)
    return made


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "out box"
    folder.mkdir()
    return folder


def job_text(spool_dir: Path, name: str) -> str:
    """A job that notes its run; its last field is what a copy that was cut off lacks."""
    return json.dumps({"command": f"echo {name} >> {spool_dir.parent}/ran", "note": PADDING, "timeout": 60})


def ran(spool_dir: Path) -> list[str]:
    return sorted((spool_dir.parent / "ran").read_text(encoding="ascii").split())


def need(*programs: str) -> None:
    if missing := [name for name in programs if not shutil.which(name)]:
        faults.must_not_skip(f"not installed: {' '.join(missing)}")


def call(*words: str | os.PathLike[str], stdin: str = "") -> None:
    done = subprocess.run(
        [str(word) for word in words], input=stdin, capture_output=True, text=True, check=False, timeout=40
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def all_ran_once(spool_dir: Path, *names: str) -> None:
    wait_until(
        lambda: finished(spool_dir, *names), 30, lambda: {name: where_is(spool_dir, name) for name in names}
    )
    assert [where_is(spool_dir, name) for name in names] == [["done"]] * len(names)
    assert ran(spool_dir) == sorted(names)


# -- OpenSSH -----------------------------------------------------------------------------------------------------------


class Server(NamedTuple):
    """An sshd of the test's own: the options that lead there, the port, and user@host."""

    options: list[str]
    port: int
    at: str


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Server]:
    """The server listens on the loopback interface only, with keys that were made for this test."""
    need("sshd", "ssh-keygen", "scp", "sftp")
    for key in ("host", "user"):
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key)
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where Debian's sshd locks its helpers in
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "sshd_config"
    settings.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    log = tmp_path / "sshd.log"
    program = shutil.which("sshd")
    assert program
    with log.open("wb") as file:
        server = subprocess.Popen(
            [program, "-D", "-e", "-f", str(settings)], stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        wait_until(lambda: "listening" in log.read_text() or server.poll() is not None, message=log.read_text)
        assert server.poll() is None, log.read_text()
        ways = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            "BatchMode=yes",
        )
        options = [
            "-F",
            "/dev/null",
            "-i",
            str(tmp_path / "user"),
            *(word for way in ways for word in ("-o", way)),
        ]
        yield Server(options, port, f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1")
    finally:
        server.terminate()
        server.wait(10)


def test_scp_over_a_slow_line_hands_over_whole_jobs(
    spool: Spool, spool_dir: Path, outbox: Path, sshd: Server
) -> None:
    """Scp writes under the final name; the file grows for more than a second and is not taken before it is whole."""
    for name in ("one", "two"):
        (outbox / f"{name}.json").write_text(job_text(spool_dir, name))
    target = f"{sshd.at}:{spool_dir}/pending/"
    call("scp", *sshd.options, "-P", str(sshd.port), "-l", "300", *sorted(outbox.iterdir()), target)
    all_ran_once(spool_dir, "one", "two")


@pytest.mark.parametrize("way", ["put", "put and rename"])
def test_sftp_hands_over_whole_jobs(
    spool: Spool, spool_dir: Path, outbox: Path, sshd: Server, way: str
) -> None:
    """Put under the final name, or under another one and then renamed, as careful clients do."""
    (outbox / "job1.json").write_text(job_text(spool_dir, "job1"))
    first = "job1.json" if way == "put" else "job1.json.filepart"
    script = f'put "{outbox}/job1.json" "{spool_dir}/pending/{first}"\n'
    if first != "job1.json":
        script += f'rename "{spool_dir}/pending/{first}" "{spool_dir}/pending/job1.json"\n'
    call("sftp", *sshd.options, "-P", str(sshd.port), "-l", "300", "-b", "-", sshd.at, stdin=script)
    all_ran_once(spool_dir, "job1")


def test_sftp_operates_the_queue(spool: Spool, spool_dir: Path, sshd: Server) -> None:
    """A rename from dead/ to pending/ runs a job again, a removal forgets it."""
    spool.enqueue(f"echo >> {spool_dir.parent}/tries; exit 3", id="again", max_retries=1)
    spool.enqueue("true", id="unwanted", hold=True)
    wait_until(lambda: finished(spool_dir, "again"))
    script = f"rename {spool_dir}/dead/again.json {spool_dir}/pending/again.json\nrm {spool_dir}/pending/unwanted.json\n"
    call("sftp", *sshd.options, "-P", str(sshd.port), "-b", "-", sshd.at, stdin=script)
    wait_until(lambda: (spool_dir.parent / "tries").read_text() == "\n\n")
    wait_until(lambda: finished(spool_dir, "again"))
    assert [row.id for row in spool.list()] == ["again"]


# -- copies and synchronisers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-a"], ["-a", "--inplace"], ["-a", "--bwlimit=30"]], ids=" ".join)
def test_rsync_hands_over_a_folder_of_jobs(
    spool: Spool, spool_dir: Path, outbox: Path, options: list[str]
) -> None:
    """With its hidden names, written in place, and slowly."""
    need("rsync")
    for name in ("one", "two"):
        (outbox / f"{name}.json").write_text(job_text(spool_dir, name))
    call("rsync", *options, f"{outbox}/", f"{spool_dir}/pending/")
    all_ran_once(spool_dir, "one", "two")


def test_syncthings_way_of_writing(spool: Spool, spool_dir: Path) -> None:
    """It writes blocks in any order into .syncthing.NAME.tmp, sets the old date, and renames."""
    data = job_text(spool_dir, "job1").encode()
    scratch = spool_dir / "pending" / ".syncthing.job1.json.tmp"
    with scratch.open("wb") as file:
        file.truncate(len(data))
        for start in (20_000, 0):
            file.seek(start)
            file.write(data[start:] if start else data[:20_000])
            file.flush()
            time.sleep(0.2)
    os.utime(scratch, (1_600_000_000, 1_600_000_000))
    scratch.rename(spool_dir / "pending" / "job1.json")
    all_ran_once(spool_dir, "job1")


def test_sambas_way_of_writing(spool: Spool, spool_dir: Path) -> None:
    """A client of Windows makes the file, gives it its length, writes pieces, sets the date, and then renames it."""
    data = job_text(spool_dir, "job1").encode()
    new = spool_dir / "pending" / "New Text Document.json"
    with new.open("wb") as file:
        file.truncate(len(data))
        for start in range(0, len(data), 16_384):
            file.write(data[start : start + 16_384])
            file.flush()
            time.sleep(0.1)
    os.utime(new, (1_600_000_000, 1_600_000_000))
    new.rename(spool_dir / "pending" / "job1.json")
    all_ran_once(spool_dir, "job1")


# -- a file manager ----------------------------------------------------------------------------------------------------


def test_gio_moves_and_trashes(spool: Spool, spool_dir: Path, outbox: Path) -> None:
    """What GNOME's file manager does: copy in, move a dead job back, throw one into the trash."""
    need("gio")
    (outbox / "copied.json").write_text(job_text(spool_dir, "copied"))
    (outbox / "moved.json").write_text(job_text(spool_dir, "moved"))
    spool.enqueue(f"echo >> {spool_dir.parent}/tries; exit 3", id="again", max_retries=1)
    spool.enqueue("true", id="unwanted", hold=True)
    call("gio", "copy", outbox / "copied.json", f"{spool_dir}/pending/")
    call("gio", "move", outbox / "moved.json", f"{spool_dir}/pending/")
    all_ran_once(spool_dir, "copied", "moved")
    wait_until(lambda: finished(spool_dir, "again"))
    call("gio", "move", spool_dir / "dead" / "again.json", f"{spool_dir}/pending/")
    call("gio", "trash", spool_dir / "pending" / "unwanted.json")
    wait_until(lambda: (spool_dir.parent / "tries").read_text() == "\n\n")
    wait_until(lambda: finished(spool_dir, "again"))
    assert sorted(str(row.id) for row in spool.list()) == ["again", "copied", "moved"]
    assert (spool_dir.parent / "home/.local/share/Trash/files/unwanted.json").exists()


# -- editors -----------------------------------------------------------------------------------------------------------


def vim(path: Path, text: str, copy: str) -> None:
    """Change the command in vim; it writes a new file, or the same one again, and keeps a backup meanwhile."""
    need("vim")
    edit = f"%s/false/{text}/"
    words = [
        "-u",
        "NONE",
        "-i",
        "NONE",
        "-N",
        "-es",
        f"+set writebackup backupcopy={copy}",
        f"+{edit}",
        "+wq",
    ]
    call("vim", *words, path)


def code(path: Path, text: str) -> None:
    """VS Code empties the file and writes it again."""
    whole = path.read_text().replace("false", text)
    with path.open("w") as file:
        file.write(whole[:9])
        file.flush()
        time.sleep(0.3)
        file.write(whole[9:])


@pytest.mark.parametrize("editor", ["vim, new file", "vim, same file", "VS Code"])
def test_an_editor_saves_a_waiting_job(spool: Spool, spool_dir: Path, editor: str) -> None:
    """The saved command is the one that runs, once, and no backup of the editor becomes a job."""
    spool.enqueue("false", id="job1", hold=True, max_retries=1)
    path, text = spool_dir / "pending" / "job1.json", "echo job1 >> $QUEUECTL_SPOOL\\/..\\/ran"
    if editor == "VS Code":
        code(path, text.replace("\\", ""))
    else:
        vim(path, text, "no" if "new" in editor else "yes")
    spool.release("job1")
    all_ran_once(spool_dir, "job1")
    assert [row.id for row in spool.list()] == ["job1"]
    assert sorted(os.listdir(spool_dir / "pending")) == []
