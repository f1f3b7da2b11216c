"""Commands that read change nothing: not in another user's spool, not on a read-only disk, and not where no spool is."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from queuectl import Spool
from queuectl.cli import main
from queuectl.errors import SpoolError

from support import content, drain, drop, load

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

READING = [
    ["status"], ["list"], ["list", "--command", "echo"], ["show", "good"], ["logs", "good"], ["dlq", "list"], ["stats"],
    ["metrics"], ["worker", "list"], ["worker", "logs"], ["config", "get"], ["wait", "good", "--timeout", "5"],
    ["doctor"],
]  # fmt: skip
CHANGING = [
    ["enqueue", "true"], ["cancel", "waits"], ["hold", "waits"], ["set", "waits", "priority=9"], ["remove", "waits", "--yes"],
    ["dlq", "retry", "bad"], ["dlq", "clear", "--yes"], ["clear", "--yes"], ["purge", "--older-than", "0s", "--yes"],
    ["pause"], ["resume"], ["drain"], ["reindex"], ["config", "set", "timeout", "5"], ["worker", "stop"],
]  # fmt: skip


@pytest.fixture
def there(spool_dir: Path) -> Path:
    """A spool with a completed, a dead and a waiting job, and in pending/ a file that no worker has seen."""
    drop(spool_dir, "good", command="echo hello; echo oops >&2")
    drop(spool_dir, "bad", command="exit 3", max_retries=1)
    drain(spool_dir)
    drop(spool_dir, "waits", command="echo later", run_at="2099-01-01")
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    made = Spool(spool_dir)
    made.counts()
    made._index.close()  # or it would be changed when Python closes it, at any later moment
    drop(spool_dir, "new", command="true")
    drop(spool_dir, "wrong", command=7)
    for path in spool_dir.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    spool_dir.chmod(0o755)
    return spool_dir


def give_away(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


Ask = Callable[..., "Answer"]


class Answer(NamedTuple):
    """What a command has answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def ask(spool_dir: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Run a command in this process, which is quicker than a process for each of so many."""
    assert os.environ["QUEUECTL_SPOOL"] == str(spool_dir)

    def run(*words: object, expect: int | None = None) -> Answer:
        capfd.readouterr()
        code = main([str(word) for word in words])
        answer = Answer(code, *capfd.readouterr())
        assert expect in (None, code), answer
        assert "Traceback" not in answer.err, answer.err
        return answer

    return run


# -- a spool of another user ----------------------------------------------------------------------------------------


@needs_root
def test_root_reads_another_users_spool_and_changes_nothing(ask: Ask, there: Path) -> None:
    """With its index or without: the dropped files of that user stay where they are, and every job is seen."""
    give_away(there)
    for index in (True, False):
        if not index:
            for path in (there / "data").glob("queuectl.db*"):
                path.unlink()
        before = content(there)
        for words in READING:
            done = ask(*words)
            assert done.code in (0, 1), done.err
            assert "Traceback" not in done.err
            assert content(there) == before, words
        assert "'pending': 2, 'processing': 0, 'completed': 1, 'failed': 0, 'dead': 2" in ask("status").out
        assert "hello" in ask("logs", "good").out
        assert "new - pending - true" in ask("list").out


@needs_root
@pytest.mark.parametrize("words", CHANGING, ids=" ".join)
def test_root_is_refused_every_change(ask: Ask, there: Path, words: list[str]) -> None:
    """One line, and how it is done as the owner; nothing has changed, not even a missing folder is made."""
    (there / "tmp").rmdir()
    give_away(there)
    before = content(there)
    done = ask(*words, expect=3)
    assert f"{there} is the spool of nobody, and only nobody may change it" in done.err
    assert f"hint: sudo -u nobody queuectl --spool {there} " in done.err
    assert content(there) == before


@needs_root
@pytest.mark.parametrize("target", ["there", "missing"])
def test_no_link_of_a_hostile_owner_is_followed(ask: Ask, there: Path, tmp_path: Path, target: str) -> None:
    """An index that is a link made root create a file, or change a database of its own."""
    own = tmp_path / "roots.db"
    if target == "there":
        with closing(sqlite3.connect(own)) as db:
            db.execute("CREATE TABLE precious(x)")
    before = own.read_bytes() if own.exists() else None
    for path in (there / "data").glob("queuectl.db*"):
        path.unlink()
    (there / "data" / "queuectl.db").symlink_to(own)
    give_away(there)
    for words in READING:
        ask(*words)
    assert (own.read_bytes() if own.exists() else None) == before
    assert (there / "data" / "queuectl.db").is_symlink()


@needs_root
@pytest.mark.parametrize("name", ["pending", "done", "data", "data/workers", "logs"])
def test_a_folder_that_is_a_link_is_not_read(ask: Ask, there: Path, tmp_path: Path, name: str) -> None:
    """It could be any folder of the machine."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.json").write_text('{"command": "the secret"}')
    shutil.rmtree(there / name)
    (there / name).symlink_to(secret)
    give_away(there)
    before = content(secret)
    for words in (["status"], ["list"]):
        done = ask(*words, expect=3)
        assert f"{there / name} is a link or a file in the spool of another user" in done.err
        assert "secret" not in done.out
    assert content(secret) == before


@needs_root
def test_settings_of_a_hostile_owner_lead_nowhere(ask: Ask, there: Path, tmp_path: Path) -> None:
    """Neither a link to a file that only root may read, nor a drop folder that asking about would make."""
    secret = tmp_path / "shadow"
    secret.write_text("root: $6$secret\n")
    (there / "config.yaml").unlink()
    (there / "config.yaml").symlink_to(secret)
    give_away(there)
    told = ask("status")
    assert "a link of another user" in told.err
    assert "$6$" not in told.out + told.err
    (there / "config.yaml").unlink()
    (there / "config.yaml").write_text(f"incoming: {tmp_path / 'made'}\n")
    give_away(there)
    ask("status", expect=0)
    assert not (tmp_path / "made").exists()


@needs_root
def test_a_pipe_in_place_of_a_record_stops_nobody(ask: Ask, there: Path) -> None:
    """Opening a FIFO waits for a writer, without end."""
    workers = there / "data" / "workers"
    for kind in ("lock", "json", "run", "log"):
        (workers / f"worker-0.{kind}").unlink(missing_ok=True)
        os.mkfifo(workers / f"worker-0.{kind}")
    give_away(there)
    for words in (["status"], ["worker", "list"], ["worker", "logs"], ["doctor"]):
        done = ask(*words)
        assert "Traceback" not in done.err


@needs_root
def test_another_ordinary_user_reads_as_well() -> None:
    """Without any right to write; and is refused as root is, in words that name the owner."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        spool = Path(made) / "spool"
        Spool(spool).enqueue("true", id="mine")
        for path in [Path(made), spool, *spool.rglob("*")]:
            os.chown(path, 1234, 1234)
            path.chmod(0o755 if path.is_dir() else 0o644)
        before = content(spool)
        listed, refused = as_user(NOBODY, spool, ["list"], ["cancel", "mine"])
        assert (listed.code, listed.out) == (0, "mine - pending - true\n"), listed
        assert refused.code == 3
        assert f"{spool} is the spool of 1234, and only 1234 may change it" in refused.err
        assert content(spool) == before


AS_USER = """
import contextlib, io, json, sys
from queuectl.cli import main
for words in json.loads(sys.argv[1]):
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    texts = [stream.seek(0) or stream.read() for stream in (out, err)]
    print(json.dumps([code, *texts]))
"""


def as_user(uid: int, spool: Path, *commands: list[str]) -> list[Answer]:
    """Run commands as another user, one after the other in one process."""
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*who, sys.executable, "-c", AS_USER, json.dumps(commands)],
        env={**os.environ, "HOME": "/", "QUEUECTL_SPOOL": str(spool)},
        cwd="/", text=True, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return [Answer(*json.loads(line)) for line in done.stdout.splitlines()]


# -- a spool that cannot be written ---------------------------------------------------------------------------------


@pytest.fixture
def closed(there: Path) -> Iterator[Path]:
    """The spool, of which this user may change nothing; root gives it to nobody and asks as nobody."""
    for path in (there / "data").glob("queuectl.db*"):
        path.unlink()
    (there / "tmp").rmdir()
    folders = [there, *(path for path in there.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    yield there
    for path in folders:
        path.chmod(0o755)


def test_every_reading_command_works_without_an_index_and_without_rights(closed: Path) -> None:
    """From the folders alone, as for a backup on a read-only disk. A folder that is missing is empty."""
    if os.geteuid() == 0:
        for above in closed.parents:
            if not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
        give_away(closed)
    before = content(closed)
    answers = as_user(NOBODY, closed, *READING, ["cancel", "waits"])
    assert content(closed) == before
    told = {" ".join(words): answer for words, answer in zip(READING, answers, strict=False)}
    for answer in told.values():
        assert answer.code in (0, 1), answer
        assert "error" not in answer.err, answer
    assert "'pending': 2, 'processing': 0, 'completed': 1, 'failed': 0, 'dead': 2" in told["status"].out
    assert "good - completed" in told["list"].out
    assert "bad - exit 3" in told["dlq list"].out
    assert "hello" in told["show good"].out
    assert answers[-1].code == 3
    assert f"{closed} cannot be written by this user, or its disk is read-only" in answers[-1].err


# -- no spool -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [*READING, ["cancel", "x"], ["worker", "stop"], ["resume"]], ids=" ".join)
def test_a_mistyped_spool_is_not_made_by_looking(ask: Ask, spool_dir: Path, words: list[str]) -> None:
    """Nothing is made, neither there nor in a folder that is something else; and the command says so."""
    for place in (spool_dir / "typo", spool_dir.parent / "home"):
        before = content(spool_dir.parent)
        done = ask("--spool", place, *words)
        assert f"note: there is no spool at {place}; the first job or worker makes it\n" in done.err
        assert done.code == (1 if {"x", "good"} & {*words} else 0), done
        assert content(spool_dir.parent) == before


def test_whoever_makes_a_spool_says_so(ask: Ask, tmp_path: Path) -> None:
    """Once, on stderr, with its path: it may be a slip of the keyboard."""
    for number, words in enumerate((["enqueue", "true"], ["pause"], ["config", "set", "timeout", "5"])):
        place = tmp_path / f"new-{number}"
        told = f"note: made a new spool: {place}\n"
        assert ask("--spool", place, *words, expect=0).err == told
        assert (place / "pending").is_dir()
        assert told not in ask("--spool", place, *words).err
        assert ask("--spool", tmp_path / f"quiet-{number}", *words, "--json").err == ""


def test_a_file_is_no_spool(ask: Ask, tmp_path: Path) -> None:
    """Nor is a path below a file."""
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        done = ask("--spool", place, "list", expect=3)
        assert f"error: cannot use {place}: not a " in done.err


def test_a_program_that_reads_makes_no_spool(tmp_path: Path) -> None:
    """The methods that read give empty answers; `refresh` and `enqueue` make it."""
    spool = Spool(tmp_path / "spool")
    assert sum(spool.counts().values()) == 0
    assert spool.list() == []
    assert not (tmp_path / "spool").exists()
    job = spool.enqueue("true")
    assert [row.id for row in spool.list()] == [job.id]
    assert load(tmp_path / "spool" / "pending" / f"{job.id}.json")["command"] == "true"
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="not a folder"):
        Spool(tmp_path / "file").counts()
