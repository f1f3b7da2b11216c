"""Anybody who can write into a spool runs commands as the worker's user: a worker refuses a spool open to others."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.control.permissions import unsafe
from queuectl.doctor import doctor
from queuectl.errors import InvalidJob
from queuectl.layout import Layout

from support import drain, drop, end_workers, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
FOLDERS = (
    "",
    "pending",
    "processing",
    "processing/worker-7",
    "done",
    "dead",
    "logs",
    "tmp",
    "data",
    "data/workers",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def spool(spool_dir: Path) -> Path:
    Spool(spool_dir).refresh()
    (spool_dir / "processing" / "worker-7").mkdir(mode=0o700)
    drop(spool_dir, "job", command="echo hi")
    return spool_dir


def refused(cli: Callable[..., Any], told: str) -> str:
    """Insist on a refusal of one line and a hint, in each way to start a worker; returns the hint."""
    hint = ""
    for words in (["start"], ["start", "--foreground", "--drain"], ["start", "--foreground", "--count", "2"]):
        done = cli("worker", *words, expect=1)
        assert done.stdout == ""
        error, hinted = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert told in error
        assert "could run commands as you" in error
        hint = hinted.removeprefix("hint: ")
    return hint


def mend(hint: str) -> None:
    subprocess.run(["sh", "-c", hint.replace("sudo ", "")], check=True)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777], ids=oct)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_can_write_is_found(spool: Path, folder: str, mode: int) -> None:
    """The spool's own folder and every one in it, whether the group or everybody can write."""
    (spool / folder).chmod(mode)
    found = [(path, problem) for path, problem, _ in unsafe(Layout(spool))]
    assert found == [(str(spool / folder).rstrip("/"), "can be written by others")]


@needs_root
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_somebody_else_is_found(spool: Path, folder: str) -> None:
    """Its owner can open it to anybody at any moment."""
    os.chown(spool / folder, NOBODY, -1)
    found = [(path, problem) for path, problem, _ in unsafe(Layout(spool))]
    assert found == [(str(spool / folder).rstrip("/"), f"belongs to another user (uid {NOBODY})")]


@pytest.mark.parametrize("name", ["config.yaml", "config.json", "data/queuectl.db"])
def test_settings_and_index_that_others_can_write_are_found(spool: Path, name: str) -> None:
    """These files decide from which users jobs are accepted."""
    (spool / name).touch()
    (spool / name).chmod(0o666)
    assert [path for path, _, _ in unsafe(Layout(spool))] == [str(spool / name)]


def test_a_worker_refuses_and_the_hint_mends_it(cli: Callable[..., Any], spool: Path) -> None:
    """Every way to start one: exit code 1, one line, and what to type; nothing runs before that is done."""
    (spool / "pending").chmod(0o770)
    (spool / "dead").chmod(0o777)
    hint = refused(cli, f"{spool}/pending can be written by others")
    assert where_is(spool, "job") == ["pending"]
    mend(hint)
    cli("worker", "start", "--foreground", "--drain", expect=0)
    assert where_is(spool, "job") == ["done"]


@needs_root
def test_a_spool_of_somebody_else_is_refused(cli: Callable[..., Any], spool: Path) -> None:
    """Root does not run the jobs of another user's spool, and is told how to start workers as that user."""
    os.chown(spool, NOBODY, NOBODY)
    hint = refused(cli, f"{spool} belongs to another user (uid {NOBODY})")
    assert hint == f"sudo -u nobody queuectl --spool {spool} worker start"
    assert where_is(spool, "job") == ["pending"]
    told = cli("status", expect=0)
    assert "'pending': 1" in told.stdout
    assert told.stderr == "note: the index cannot be written here, so every look reads all folders\n"


@needs_root
@pytest.mark.parametrize(
    "words",
    [
        ["enqueue", "true"],
        ["enqueue", "--file", "-"],
        ["dlq", "retry", "old"],
        ["config", "set", "timeout", "5"],
    ],
    ids=" ".join,
)
def test_root_hands_nothing_to_workers_who_cannot_read_it(
    cli: Callable[..., Any], spool: Path, words: list[str]
) -> None:
    """Root's files are 0600: the workers would move an acknowledged job to dead/ because they cannot read it."""
    drop(spool, "old", command="true").rename(spool / "dead" / "old.json")
    cli("list", expect=0)
    os.chown(spool, NOBODY, NOBODY)
    before = sorted(path.relative_to(spool) for path in spool.rglob("*.[jy]*"))
    done = cli(*words, stdin='{"command": "true"}', expect=3)
    assert "is the spool of nobody" in done.stderr
    assert "hint: sudo -u nobody queuectl" in done.stderr
    assert sorted(path.relative_to(spool) for path in spool.rglob("*.[jy]*")) == before


@needs_root
def test_the_doctor_takes_no_spool_from_its_owner(cli: Callable[..., Any], spool: Path) -> None:
    """The doctor tells root how to check the spool as its owner; a repair is refused."""
    os.chown(spool, NOBODY, NOBODY)
    for words, code in ((["doctor"], 0), (["doctor", "--repair"], 3)):
        done = cli(*words, expect=code)
        assert "is the spool of nobody" in done.stdout + done.stderr
        assert f"sudo -u nobody queuectl --spool {spool} doctor" in done.stdout + done.stderr
    assert spool.stat().st_uid == NOBODY


@needs_root
def test_the_doctor_does_not_promise_what_it_cannot_do(cli: Callable[..., Any], spool: Path) -> None:
    """The doctor does not change the owner of a folder; it says which command does."""
    os.chown(spool / "dead", NOBODY, NOBODY)
    told = cli("doctor", "--repair", expect=1).stdout
    assert f"{spool}/dead belongs to another user" in told
    assert told.rstrip().endswith(f"; to do: sudo chown 0 {spool}/dead")
    mend(told.rstrip().rpartition("; to do: ")[2])
    cli("doctor", expect=0)


OPENED = {
    "group": lambda spool: (spool / "pending").chmod(0o770),
    "everybody": lambda spool: (spool / "dead").chmod(0o707),
    "a worker's folder": lambda spool: (spool / "processing" / "worker-7").chmod(0o722),
    "above": lambda spool: spool.parent.chmod(0o777),
    "settings": lambda spool: (spool / "config.yaml").chmod(0o666),
}


@pytest.mark.parametrize("how", OPENED)
def test_a_spool_opened_under_its_workers_stops_them(
    cli: Callable[..., Any], spool: Path, workers: Callable[..., Any], how: str
) -> None:
    """Within a second or so they take no new job, say why and what to type, and go on once that is done."""
    record = spool / "data" / "workers" / "worker-0.json"
    (spool / "config.yaml").write_text("timeout: 30\n")
    (spool / "config.yaml").chmod(0o600)
    mode = spool.parent.stat().st_mode & 0o777
    workers(1)
    wait_until(lambda: finished(spool, "job"))
    OPENED[how](spool)
    began = time.monotonic()
    wait_until(lambda: load(record).get("paused"))
    assert time.monotonic() - began < 3
    drop(spool, "waits", command="true")
    told = cli("status", expect=0).stderr
    assert "workers start nothing: " in told
    assert "can be written by others, who could run commands as you; chmod go-w " in told
    assert "paused: " in cli("worker", "list").stdout
    two_ticks_on = time.monotonic() + 2.2
    wait_until(lambda: time.monotonic() > two_ticks_on)
    assert where_is(spool, "waits") == ["pending"]
    mend(load(record)["paused"].partition("; ")[2])
    wait_until(lambda: finished(spool, "waits"))
    spool.parent.chmod(mode)
    assert where_is(spool, "waits") == ["done"]
    assert cli("status", expect=0).stderr == ""
    log = cli("worker", "logs").stdout
    assert log.count("pausing: ") == log.count("resuming: nobody else can write to the spool now") == 1


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o775], ids=oct)
def test_a_folder_above_that_others_can_write_is_refused(
    cli: Callable[..., Any], tmp_path: Path, mode: int
) -> None:
    """A user who can write there can replace the whole spool by another."""
    above = tmp_path / "a b" / "c"
    spool = above / "spool"
    drop(spool, "job", command="true")
    (tmp_path / "a b").chmod(mode)
    done = cli("--spool", spool, "worker", "start", expect=1)
    assert done.stderr.splitlines()[0].startswith(f"error: {tmp_path / 'a b'} can be written by others")
    hint = done.stderr.splitlines()[1].removeprefix("hint: ")
    assert hint == f"chmod go-w {shlex.quote(str(tmp_path / 'a b'))}"
    mend(hint)
    cli("--spool", spool, "worker", "start", "--foreground", "--drain", expect=0)


def test_a_sticky_folder_above_is_fine(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Such as /tmp: nobody can rename or delete the files of other users in it."""
    above = tmp_path / "sticky"
    drop(above / "spool", "job", command="true")
    above.chmod(0o1777)
    cli("--spool", above / "spool", "worker", "start", "--foreground", "--drain", expect=0)
    for name in ("spool", "spool/pending"):  # but not as a spool itself
        (above / name).chmod(0o1777)
        assert [path for path, _, _ in unsafe(Layout(above / "spool"))] == [str(above / name)]
        (above / name).chmod(0o700)


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o1777], ids=oct)
def test_a_folder_above_of_somebody_else_is_refused(
    cli: Callable[..., Any], tmp_path: Path, mode: int
) -> None:
    """The owner of a sticky folder can rename everything in it."""
    above = tmp_path / "theirs"
    drop(above / "spool", "job", command="true")
    above.chmod(mode)
    os.chown(above, NOBODY, -1)
    done = cli("--spool", above / "spool", "worker", "start", expect=1)
    assert f"{above} belongs to another user" in done.stderr
    mend(done.stderr.splitlines()[1].removeprefix("hint: "))
    cli("--spool", above / "spool", "worker", "start", "--foreground", "--drain", expect=0)


@needs_root
def test_a_link_of_somebody_else_on_the_way_is_refused(spool: Path, tmp_path: Path) -> None:
    """Its owner can let it point to another folder after the check."""
    link = tmp_path / "link"
    link.symlink_to(spool.parent)
    named = Layout(link / "spool")
    assert list(unsafe(named)) == []
    os.chown(link, NOBODY, -1, follow_symlinks=False)
    ((path, problem, _),) = unsafe(named)
    assert path == str(link)
    assert "link of another user" in problem


def test_a_link_to_a_spool_is_checked_where_it_leads(tmp_path: Path) -> None:
    """The folders above the link are checked, and those above its target."""
    for side in ("here", "there"):
        (tmp_path / side).mkdir()
    Spool(tmp_path / "there" / "spool").refresh()
    (tmp_path / "here" / "spool").symlink_to(tmp_path / "there" / "spool")
    for side in ("here", "there"):
        (tmp_path / side).chmod(0o777)
        assert [path for path, _, _ in unsafe(Layout(tmp_path / "here" / "spool"))] == [str(tmp_path / side)]
        (tmp_path / side).chmod(0o700)
    assert list(unsafe(Layout(tmp_path / "here" / "spool"))) == []


# -- files of strangers --------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("settled", [False, True], ids=["new", "known"])
def test_a_file_of_another_user_is_not_run(cli: Callable[..., Any], spool: Path, settled: bool) -> None:
    """Nor after `dlq retry`, which rewrites the file. Who trusts the job changes the owner of the file."""
    path = drop(spool, "theirs", command="touch $HOME/ran")
    if settled:  # the index has seen it while it was ours
        assert Spool(spool).counts()["pending"] == 2
    os.chown(path, NOBODY, NOBODY)
    drain(spool)
    assert finished(spool, "job", "theirs")
    assert where_is(spool, "theirs") == ["dead"]
    told = f"belongs to another user (uid {NOBODY})"
    assert told in (spool / "dead" / "theirs.json.reason").read_text()
    assert told in cli("dlq", "list").stdout
    assert told in cli("show", "theirs").stdout
    assert told in cli("dlq", "retry", "theirs", expect=1).stderr
    assert told in cli("dlq", "retry", "--all", expect=1).stderr
    drain(spool)
    assert where_is(spool, "theirs") == ["dead"]
    assert (spool / "dead" / "theirs.json").stat().st_uid == NOBODY
    assert not (spool.parent / "home" / "ran").exists()
    os.chown(spool / "dead" / "theirs.json", 0, 0)
    cli("dlq", "retry", "theirs", expect=0)
    drain(spool)
    assert where_is(spool, "theirs") == ["done"]
    assert (spool.parent / "home" / "ran").exists()


@needs_root
def test_a_claim_of_another_user_is_not_run_again(spool: Path) -> None:
    """A file of another user in the folder of a dead worker is taken back, but not run."""
    path = drop(spool, "theirs", command="touch $HOME/ran")
    os.chown(path, NOBODY, NOBODY)
    path.rename(spool / "processing" / "worker-7" / "theirs.json")
    drain(spool)
    assert where_is(spool, "theirs") == ["dead"]
    assert not (spool.parent / "home" / "ran").exists()


OPEN_MODES = [0o666, 0o664, 0o602]


@pytest.mark.parametrize("mode", OPEN_MODES, ids=oct)
@pytest.mark.parametrize("when", ["new", "known", "dead", "abandoned"])
def test_a_job_file_that_others_may_write_is_not_run(spool: Path, mode: int, when: str) -> None:
    """Another user wrote a command into it before its run_at, and it ran as the worker's user."""
    path = drop(spool, "open", command="touch $HOME/ran")
    for folder in (spool, *(spool / name for name in FOLDERS)):
        folder.chmod(0o755)
    if when == "known":  # the index has seen it while it was closed
        assert Spool(spool).counts()["pending"] == 2
    if when == "dead":
        path = path.rename(spool / "dead" / "open.json")
    if when == "abandoned":
        path = path.rename(spool / "processing" / "worker-7" / "open.json")
    path.chmod(mode)
    told = f"can be written by others (mode {mode:04o}): check what it says, then chmod go-w"
    if when in ("new", "known"):
        assert [one.kind for one in doctor.examine(Layout(spool)) if told in one.fact] == ["invalid"]
    if when == "dead":
        with pytest.raises(InvalidJob, match="can be written by others"):
            Spool(spool).retry("open")
    drain(spool)
    assert where_is(spool, "open") == ["dead"]
    assert where_is(spool, "job") == ["done"]
    assert not (spool.parent / "home" / "ran").exists()
    if when != "dead":
        assert told in (spool / "dead" / "open.json.reason").read_text()
    (spool / "dead" / "open.json").chmod(0o644)
    (spool / "dead" / "open.json").rename(spool / "pending" / "open.json")
    drain(spool)
    assert where_is(spool, "open") == ["done"]


def test_a_mode_that_lets_nobody_in_is_fine(spool: Path) -> None:
    """With a umask of 002 each dropped file can be written by its group, which cannot enter the folders."""
    drop(spool, "free", command="true").chmod(0o664)
    drain(spool)
    assert where_is(spool, "free") == ["done"]


def test_a_second_name_lets_others_in(spool: Path, tmp_path: Path) -> None:
    """A hard link outside the spool leads to the same file."""
    path = drop(spool, "linked", command="touch $HOME/ran")
    path.chmod(0o666)
    os.link(path, tmp_path / "second")
    drain(spool)
    assert where_is(spool, "linked") == ["dead"]
    assert not (spool.parent / "home" / "ran").exists()


# -- what we make --------------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o027], ids=oct)
def test_everything_made_is_private_whatever_the_umask(
    umask: Callable[[int], int],
    cli: Callable[..., Any],
    workers: Callable[..., Any],
    tmp_path: Path,
    mask: int,
) -> None:
    """After a full life of a spool: every folder 0700, every file 0600; folders above it, too, if we made them."""
    umask(mask)
    spool = tmp_path / "new" / "er" / "spool"
    at = ("--spool", spool)
    for words in (
        ["enqueue", "--id", "good", "echo out; echo err >&2; umask > mask"],
        ["enqueue", "--id", "bad", "--max-retries", "2", "--backoff-base", "1", "echo no; exit 3"],
        ["enqueue", "--id", "waits", "--delay", "1h", "true"],
        ["enqueue", "--file", "-"],
        ["config", "set", "max_backoff", "0"],
        ["worker", "start", "--count", "2"],
    ):
        cli(*at, *words, expect=0, stdin='[{"command": "true"}, {"command": "sleep 1.5"}]')
    drop_invalid = os.open(spool / "pending" / "wrong.json", os.O_WRONLY | os.O_CREAT, 0o600)
    os.close(drop_invalid)
    try:
        wait_until(lambda: cli(*at, "status").stdout.count("'completed': 3, 'failed': 0, 'dead': 2"), 30)
        assert_private(tmp_path / "new")  # while workers live
        cli(*at, "cancel", "waits", expect=0)
        cli(*at, "dlq", "retry", "bad", expect=0)
        cli(*at, "reindex", expect=0)
        cli(*at, "worker", "stop", expect=0)
    finally:
        end_workers(spool)
    assert_private(tmp_path / "new")
    assert (
        int((tmp_path / "home" / "mask").read_text(), 8) == mask
    )  # a job has the umask of who started the worker


def assert_private(folder: Path) -> None:
    count = 0
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        count += 1
        assert stat.S_IMODE(status.st_mode) == (0o700 if stat.S_ISDIR(status.st_mode) else 0o600), path
    assert count > 20


@needs_root
def test_an_ordinary_user_works_too() -> None:
    """Not only root: in a folder of one's own below a sticky /tmp, with root's own files in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        home = Path(made)
        os.chown(home, NOBODY, NOBODY)
        spool = home / "spool"
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        env = {**os.environ, "HOME": made, "QUEUECTL_SPOOL": str(spool)}

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(
                [*words, sys.executable, "-m", "queuectl", *args],
                env=env, cwd="/", text=True, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done
            return done

        run("enqueue", "--id", "mine", "--command", "id -u")
        drop(spool, "roots", command="id -u")  # written by root, who may do as he pleases anyway
        (spool / "pending" / "roots.json").chmod(0o644)
        run("worker", "start", "--foreground", "--drain")
        for name in ("mine", "roots"):
            assert load(spool / "done" / f"{name}.json")["output"] == f"{NOBODY}\n"
