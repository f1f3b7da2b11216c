"""Hostile or careless files in the folders: nothing blocks, spins, leaves the spool or stops other jobs."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool
from queuectl.system import files

from support import cpu_in, drain, drop, drop_bytes, finished, load, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPTLY = 1.0
"""Seconds within which every command must end, on a busy machine too."""


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """An empty spool in which an invalid file counts as complete at once."""
    made = Spool(spool_dir)
    made.refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    return made


@pytest.fixture
def outside(spool_dir: Path) -> Iterator[Path]:
    """A folder beside the spool with files that must not change: checked at the end."""
    folder = spool_dir.parent / "precious"
    folder.mkdir()
    (folder / "job.json").write_text('{"command": "echo led astray"}')
    (folder / "data").write_bytes(b"precious")
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


def snapshot(folder: Path) -> dict[str, Any]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, status.st_nlink, content)
    return found


def a_socket(path: Path, _: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def a_folder(path: Path, _: Path) -> None:
    made = path.parent.parent / f"made-{path.name}"  # a worker may take it away while it is being filled
    made.mkdir()
    (made / "inside.json").write_text('{"command": "echo led astray"}')
    made.rename(path)


def a_sparse_file(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def a_device(path: Path, _: Path) -> None:
    try:
        os.mknod(path, 0o020600, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


def holding(data: bytes) -> Callable[[Path, Path], None]:
    def make(path: Path, _: Path) -> None:
        path.write_bytes(data)

    return make


def saying(**fields: Any) -> Callable[[Path, Path], None]:
    return holding(json.dumps({"command": "echo led astray", **fields}).encode())


HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "link": (lambda path, outside: path.symlink_to(outside / "job.json"), "a symbolic link, not a file"),
    "link_to_folder": (lambda path, outside: path.symlink_to(outside), "a symbolic link"),
    "dangling_link": (lambda path, outside: path.symlink_to(outside / "gone"), "a symbolic link"),
    "link_to_zero": (lambda path, _: path.symlink_to("/dev/zero"), "a symbolic link"),
    "fifo": (lambda path, _: os.mkfifo(path), "a FIFO, not a file"),
    "socket": (a_socket, "a socket"),
    "device": (a_device, "a character device"),
    "folder": (a_folder, "a folder, not a file"),
    "empty": (holding(b""), "empty"),
    "zeroed": (holding(b"\0" * 5000), "NUL"),
    "large": (holding(b'{"command": "echo led astray", "x": "' + b"x" * (1 << 20) + b'"}'), "too large"),
    "sparse": (a_sparse_file, "too large"),
    "deep": (holding(b'{"command": "echo", "x": ' + b"[" * 500_000), "nested"),
    "deep_and_closed": (holding(b'{"x": ' + b'{"x":' * 90_000 + b"1" + b"}" * 90_001), "nested"),
    "many_keys": (holding(b"{" + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}"), "command"),
    "duplicate_keys": (holding(b'{"command": "true", "command": "echo led astray"}'), "is given twice"),
    "nan": (holding(b'{"command": "true", "timeout": NaN}'), "NaN"),
    "1e999": (holding(b'{"command": "true", "timeout": 1e999}'), "too large"),
    "digits": (holding(b'{"command": "true", "timeout": ' + b"9" * 5000 + b"}"), "digits"),
    "true_as_number": (saying(priority=True), "priority: must be a whole number, not true or false"),
    "surrogate": (holding(b'{"command": "echo \\ud800"}'), "surrogate"),
    "nul_in_command": (saying(command="echo a\0b"), "NUL"),
    "climbing_id": (saying(id="../escaped"), "id: "),
    "absolute_id": (saying(id="/tmp/escaped"), "id: "),
    "device_id": (saying(id="CON"), "id: "),
    "device_id_with_ending": (saying(id="con.txt"), "id: "),
    "id_ending_in_a_dot": (saying(id="x."), "id: "),
    "id_of_65": (saying(id="x" * 65), "id: "),
    "id_of_a_megabyte": (saying(id="x" * 1_000_000), "id: "),
    "hidden_id": (saying(id=".hidden"), "id: "),
    "id_with_newline": (saying(id="x\ny"), "id: "),
    "escape_in_id": (saying(id="\x1b[2J"), "id: "),
    "negative_timeout": (saying(timeout=-1), "timeout: "),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_ends_in_dead_untouched(
    spool: Spool, spool_dir: Path, outside: Path, cli: Callable[..., Any], kind: str
) -> None:
    """At once, with a plain reason; the job beside it runs; it can be listed, shown and deleted."""
    make, told = HOSTILE[kind]
    path = spool_dir / "pending" / f"{kind}.json"
    make(path, outside)
    before = path.lstat()
    drop(spool_dir, "healthy", command="true")

    began = time.monotonic()
    drain(spool_dir)
    assert time.monotonic() - began < 3 * PROMPTLY

    dead = spool_dir / "dead" / path.name
    after = dead.lstat()
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino, before.st_mode, before.st_size, before.st_mtime_ns
    )  # fmt: skip
    reason = (spool_dir / "dead" / f"{path.name}.reason").read_text()
    assert told in reason
    assert len(reason) < 400
    assert reason.strip().isprintable()
    assert finished(spool_dir, "healthy")
    assert spool.counts() == {"pending": 0, "processing": 0, "completed": 1, "failed": 0, "dead": 1}
    began = time.monotonic()
    assert spool.list("dead")[0].id == kind
    assert told in (spool.get(kind).last_error or "")
    assert spool.reindex() == 2
    assert told in (spool.get(kind).last_error or "")
    assert time.monotonic() - began < 4 * PROMPTLY  # for all four looks
    assert not (spool_dir / "escaped.json").exists()

    if kind in {"link", "fifo", "folder", "sparse"}:
        assert kind in cli("dlq", "list", expect=0).stdout
        cli("dlq", "retry", kind, expect=1)
        assert dead.lstat().st_ino == before.st_ino
        cli("dlq", "clear", "--yes", expect=0)
    else:
        spool.forget(kind)
    assert sorted(os.listdir(spool_dir / "dead")) == []


def test_all_of_it_at_once_under_a_worker(
    spool: Spool, spool_dir: Path, outside: Path, workers: Callable[..., Any]
) -> None:
    """The worker neither dies nor spins nor makes jobs wait, and the next worker finds the spool in order."""
    workers(1)
    [info] = spool.workers()
    process = psutil.Process(info.pid)
    for kind, (make, _) in HOSTILE.items():
        make(spool_dir / "pending" / f"{kind}.json", outside)
        began = time.monotonic()
        drop(spool_dir, f"beside_{kind}", command="true")
        wait_until(lambda kind=kind: finished(spool_dir, f"beside_{kind}"))  # type: ignore[misc]
        assert time.monotonic() - began < 3 * PROMPTLY
    wait_until(
        lambda: not os.listdir(spool_dir / "pending"), message=lambda: os.listdir(spool_dir / "pending")
    )
    assert {f"{kind}.json" for kind in HOSTILE} <= set(os.listdir(spool_dir / "dead"))
    assert spool.counts() == {
        "pending": 0, "processing": 0, "completed": len(HOSTILE), "failed": 0, "dead": len(HOSTILE)
    }  # fmt: skip
    assert cpu_in(process, 1.5) < 0.25
    assert process.is_running()
    assert [worker.pid for worker in spool.workers()] == [info.pid]


def test_a_file_that_stays_incomplete_costs_no_cpu(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """It has the first name and the highest priority and is never completed: others run, and the worker does not spin."""
    workers(1)
    [info] = spool.workers()
    drop(spool_dir, "first", command="true")
    wait_until(lambda: finished(spool_dir, "first"))
    with (spool_dir / "pending" / "0.json").open("w") as file:
        file.write('{"priority": 10, "command": ')
        file.flush()
        wait_until(lambda: spool.counts() and "not complete" in " ".join(spool.notes()))
        assert cpu_in(psutil.Process(info.pid), 2.5) < 0.25
        began = time.monotonic()
        drop(spool_dir, "second", command="true")
        wait_until(lambda: finished(spool_dir, "second"))
        assert time.monotonic() - began < 3 * PROMPTLY
        file.write('"true"}')
    wait_until(lambda: finished(spool_dir, "0"))


@pytest.mark.parametrize(
    "place", ["done", "dead", "processing", "processing/worker-7", "logs", "tmp", "data"]
)
def test_hostile_files_elsewhere_block_nothing(
    spool: Spool, spool_dir: Path, outside: Path, cli: Callable[..., Any], place: str
) -> None:
    """In any folder of the spool: commands answer, jobs run, no link is followed and no file waited for."""
    (spool_dir / place).mkdir(exist_ok=True, mode=0o700)
    for kind, (make, _) in HOSTILE.items():
        if kind not in {"id_of_a_megabyte", "deep", "deep_and_closed"}:
            make(spool_dir / place / f"{kind}.json", outside)
    drop(spool_dir, "healthy", command="true")
    began = time.monotonic()
    counts = spool.counts()
    assert time.monotonic() - began < 2 * PROMPTLY
    assert counts["pending"] == 1
    assert counts["dead"] == (len(HOSTILE) - 3 if place == "dead" else 0)
    cli("status", expect=0)
    drain(spool_dir)
    assert finished(spool_dir, "healthy")
    cli("list", expect=0)
    cli("show", "healthy", expect=0)
    assert not (spool_dir / "escaped.json").exists()


# -- names ---------------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "a b", "-rf", "--help", "CON", "con.txt", "x.", "x..y", "ü", "名前", "x" * 65, "x" * 240, "x$(touch escaped)", "a;b", "a'b", 'a"b',
    "a\nb", "\x1b[31mred", "*", "%s", "x...", "a\\b", "nul.json", "😀", " ", "a\u202eb",
]  # fmt: skip


def test_a_file_may_be_called_anything(spool: Spool, spool_dir: Path, cli: Callable[..., Any]) -> None:
    """A name that is not a valid id is not used as one: the job gets another id and runs under that."""
    for number, name in enumerate(ODD_NAMES):
        drop_bytes(spool_dir, "x.json", json.dumps({"command": f"echo {number}"}).encode()).rename(
            spool_dir / "pending" / f"{name}.json"
        )
    drain(spool_dir)
    assert os.listdir(spool_dir / "pending") == []
    records = [load(path) for path in (spool_dir / "done").iterdir()]
    assert sorted(int(record["output"]) for record in records) == list(range(len(ODD_NAMES)))
    assert all((spool_dir / "done" / f"{record['id']}.json").is_file() for record in records)
    assert spool.counts()["completed"] == len(ODD_NAMES)
    assert not list(spool_dir.rglob("escaped"))


def test_a_bad_file_may_be_called_anything(spool: Spool, spool_dir: Path, cli: Callable[..., Any]) -> None:
    """It is listed in one line, and no control character of its name reaches the terminal."""
    for name in ODD_NAMES:
        (spool_dir / "pending" / f"{name}.json").write_text("{}")
    drain(spool_dir)
    assert spool.counts()["dead"] == len(ODD_NAMES)
    listed = cli("dlq", "list", expect=0).stdout
    assert len(listed.splitlines()) == len(ODD_NAMES)
    assert all(character.isprintable() for character in listed.replace("\n", ""))
    cli("dlq", "clear", "--yes", expect=0)
    assert os.listdir(spool_dir / "dead") == []


@pytest.mark.parametrize("place", ["pending", "done", "dead", "processing/worker-5"])
def test_a_file_name_that_is_not_utf8_ends_no_worker(
    spool: Spool, spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any], place: str
) -> None:
    """Its bytes are not UTF-8, as from an old archive or another system: all other jobs run."""
    workers(1)
    (spool_dir / place).mkdir(exist_ok=True, mode=0o700)
    bad = os.fsencode(spool_dir / place) + b"/caf\xe9.json"
    with open(bad, "wb") as file:
        file.write(b'{"command": "true"}')
    drop(spool_dir, "healthy", command="true")
    wait_until(lambda: finished(spool_dir, "healthy"))
    cli("status", expect=0)
    cli("list", expect=0)
    cli("reindex", expect=0)
    assert len(spool.workers()) == 1


def test_a_workers_folder_that_is_not_utf8_ends_no_worker(
    spool: Spool, spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """Somebody created it; it belongs to no worker."""
    folder = os.fsencode(spool_dir / "processing") + b"/\xff"
    os.mkdir(folder)
    with open(folder + b"/job.json", "wb") as file:
        file.write(b'{"command": "true"}')
    drop(spool_dir, "healthy", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "healthy")
    cli("status", expect=0)


def test_names_that_differ_in_case_are_two_jobs(spool: Spool, spool_dir: Path) -> None:
    """If the file system distinguishes the names, so does the queue."""
    drop(spool_dir, "twin", command="echo small")
    drop(spool_dir, "TWIN", command="echo large")
    if len(os.listdir(spool_dir / "pending")) != 2:
        pytest.skip("the file system takes them for one")
    drain(spool_dir)
    assert load(spool_dir / "done" / "twin.json")["output"] == "small\n"
    assert load(spool_dir / "done" / "TWIN.json")["output"] == "large\n"


def test_bad_files_of_one_name_do_not_overwrite_each_other(spool: Spool, spool_dir: Path) -> None:
    """No outcome overwrites one of them, and no reason overwrites another."""
    for number in range(5):
        drop_bytes(spool_dir, "same.json", b"x" * number)
        wait_until(lambda: spool.counts() and not (spool_dir / "pending" / "same.json").exists())
    drop(spool_dir, "same", command="false", max_retries=1)
    drain(spool_dir)
    names = sorted(path.name for path in (spool_dir / "dead").iterdir() if not path.name.endswith(".reason"))
    assert len(names) == 6
    sizes = sorted((spool_dir / "dead" / name).stat().st_size for name in names)
    assert sizes[:5] == list(range(5))
    assert sum(1 for path in (spool_dir / "dead").iterdir() if path.name.endswith(".reason")) == 5
    assert spool.counts()["dead"] == 6


# -- changed under our hands ---------------------------------------------------------------------------------------


def test_what_ran_is_what_was_checked(spool: Spool, spool_dir: Path) -> None:
    """A writer keeps each file open and rewrites it all the time: every record holds the command that ran."""
    choices = [json.dumps({"command": f"echo {letter * 30}"}).encode() for letter in "ab"]
    choices.append(
        json.dumps({"command": f"echo {'c' * 9}", "id": "../escaped"}).encode().ljust(len(choices[0]))
    )
    assert len({len(text) for text in choices}) == 1
    paths = [drop_bytes(spool_dir, f"job{number}.json", choices[number % 2]) for number in range(40)]
    fds = [os.open(path, os.O_RDWR) for path in paths]
    over = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            for fd in fds:
                os.pwrite(fd, choices[turn % 3], 0)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        drain(spool_dir)
    finally:
        over.set()
        writer.join()
    for fd in fds:
        os.pwrite(fd, b"scribbled over", 0)
        os.close(fd)
    drain(spool_dir)
    done = [load(path) for path in (spool_dir / "done").iterdir()]
    for record in done:
        assert record["command"] == f"echo {record['output'].strip()}"
    assert len(done) + len(list((spool_dir / "dead").glob("*.json"))) == 40
    assert all(len(record["history"]) == 1 for record in done)
    assert not list(spool_dir.rglob("escaped*"))


def test_a_hard_link_kept_outside_reaches_no_outcome(spool: Spool, spool_dir: Path) -> None:
    """Somebody may keep a second name of a dropped file and change it; our records are other files."""
    kept = []
    for number in range(20):
        mine = spool_dir.parent / f"mine{number}.json"
        mine.write_text(json.dumps({"command": f"echo {number}"}))
        os.link(mine, spool_dir / "pending" / f"job{number}.json")
        kept.append(mine)
    drain(spool_dir)
    for mine in kept:
        assert json.loads(mine.read_text())["command"].startswith("echo ")
        mine.write_text("scribbled over")
    for _ in range(2):  # files that are used again would show it now
        for number in range(20):
            drop(spool_dir, f"more{time.monotonic_ns()}", command=f"echo {number}")
        drain(spool_dir)
    assert all(load(path)["state"] == "completed" for path in (spool_dir / "done").iterdir())
    assert all(mine.read_text() == "scribbled over" for mine in kept)
    assert spool.counts()["completed"] == 60


@pytest.mark.parametrize("swap", ["link", "fifo", "folder", "sparse", "zeroed"])
def test_a_file_swapped_after_the_check_is_not_run(
    spool: Spool, spool_dir: Path, outside: Path, swap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows a job of that name; when it is claimed, the file is another one."""
    path = drop(spool_dir, "job", command="echo fine")
    assert spool.counts()["pending"] == 1
    real = files.move_into_own

    def swapped(source: str, target: str) -> None:
        if str(source) == str(path) and not os.path.islink(path):
            path.unlink()
            HOSTILE[swap][0](path, outside)
            monkeypatch.undo()
        real(source, target)

    monkeypatch.setattr(files, "move_into_own", swapped)
    drain(spool_dir)
    drain(spool_dir)
    assert where_is(spool_dir, "job") == ["dead"]
    assert HOSTILE[swap][1] in (spool_dir / "dead" / "job.json.reason").read_text()
    assert spool.counts()["dead"] == 1


def test_an_unreadable_file_is_reported(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped by another user and readable for that user only."""
    path = drop(spool_dir, "theirs", command="true")
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything
        real = os.open

        def refuse(name: Any, *rest: Any, **options: Any) -> int:
            if str(name).endswith("/theirs.json"):
                raise PermissionError(13, "Permission denied", name)
            return real(name, *rest, **options)

        monkeypatch.setattr(os, "open", refuse)
        monkeypatch.setattr(os, "access", lambda name, *_, **__: not str(name).endswith("/theirs.json"))
    drop(spool_dir, "healthy", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "healthy", "theirs")
    assert "may not read it" in (spool_dir / "dead" / "theirs.json.reason").read_text()
    assert spool.counts() == {"pending": 0, "processing": 0, "completed": 1, "failed": 0, "dead": 1}


def test_a_fifo_with_a_waiting_writer_is_not_a_job(spool: Spool, spool_dir: Path) -> None:
    """We do not open it for a writer that waits for a reader, and do not wait ourselves."""
    path = spool_dir / "pending" / "job.json"
    os.mkfifo(path)
    writer = subprocess.Popen(["sh", "-c", 'echo \'{"command": "echo led astray"}\' > "$1"', "sh", path])
    try:
        began = time.monotonic()
        drain(spool_dir)
        assert time.monotonic() - began < 3 * PROMPTLY
        assert where_is(spool_dir, "job") == ["dead"]
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.parametrize("folder", ["pending", "done", "dead"])
def test_a_state_folder_that_is_a_link_or_a_file(spool_dir: Path, outside: Path, folder: str) -> None:
    """A file in place of a folder is reported in one line, with the path; nothing is written elsewhere."""
    Spool(spool_dir).refresh()
    (spool_dir / folder).rmdir()
    (spool_dir / folder).write_text("in the way")
    done = run_cli("status", timeout=20)
    assert done.returncode == 3, done
    assert str(spool_dir / folder) in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_what_ran_is_what_was_read(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Rewriting a file after its check changes nothing: the record has the hash of the bytes that ran."""
    original = b'{"command": "echo first; while ! test -e $HOME/go; do sleep 0.02; done", "timeout": 60}\n'
    home = Path(os.environ["HOME"])
    drop_bytes(spool_dir, "job.json", original)
    with (spool_dir / "pending" / "job.json").open("r+b") as still_open:
        workers(1)
        wait_until(lambda: where_is(spool_dir, "job") == ["processing/worker-0"])
        printed = (spool_dir / "data" / "workers").glob
        wait_until(lambda: any(file.stat().st_size for file in printed("worker-0.out")))
        still_open.write(b'{"command": "echo second", "timeout": 60}'.ljust(len(original)))
    (home / "go").touch()
    wait_until(lambda: finished(spool_dir, "job"))

    record = load(spool_dir / "done" / "job.json")
    assert record["output"] == "first\n"
    assert record["command"].startswith("echo first")
    assert record["history"][0]["file_sha256"] == hashlib.sha256(original).hexdigest()
