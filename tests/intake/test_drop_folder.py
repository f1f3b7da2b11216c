"""The drop folder for other users: their jobs are checked, copied and run; all other files do no harm."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.config.change import set_value, unset_value
from queuectl.config.settings import load as load_settings
from queuectl.errors import ConfigError
from queuectl.intake import drop_folder, dropped_file
from queuectl.layout import Layout
from queuectl.worker import idle

from support import drain, drop, end_workers, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.worker.events import JobEvent

NOBODY, WORKER, OTHER = 65534, 12345, 12346
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach. pytest's own is not."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def box(place: Path, spool_dir: Path) -> Path:
    """The drop folder of a spool. The user nobody is in its group and allowed to use it."""
    Spool(spool_dir).refresh()
    folder = place / "drop here # please"
    set_up(spool_dir, folder, "nobody")
    drop_folder.make(str(folder), Layout(spool_dir))
    os.chown(folder, -1, NOBODY)
    return folder


def set_up(spool: Path, folder: Path, users: str) -> None:
    layout = Layout(spool)
    set_value(layout, "settle_time", "0")
    set_value(layout, "incoming", str(folder))
    set_value(layout, "incoming_users", users)


def as_user(
    uid: int, script: str, *, groups: int = NOBODY, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as another user."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={groups}"]
    return subprocess.run(
        [*become, "sh", "-c", script], input=stdin, text=True, check=True, capture_output=True
    )


def hand_in(box: Path, name: str, uid: int = NOBODY, mode: int = 0o644, **fields: Any) -> Path:
    """Drop a job as this user: written under another name, then renamed."""
    path = box / f"{name}.json"
    whole = shlex.quote(str(path))
    script = f"cat > {whole}.part && chmod {mode:o} {whole}.part && mv {whole}.part {whole}"
    as_user(uid, script, stdin=json.dumps(fields))
    return path


def refusals(spool: Path) -> dict[str, str]:
    """What was refused: the name of the dropped file, and the reason."""
    found = {}
    for path in (spool / "dead").glob("refused-*.json"):
        reason = Path(f"{path}.reason").read_text()
        note = load(path)["refused"]
        assert f"(from {note['owner']}, dropped as " in reason
        found[note["name"]] = reason
    return found


# -- the setting ---------------------------------------------------------------------------------------------------


def test_the_drop_folder_is_off_by_default(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """No folder is created or read until the setting names one."""
    assert cli("config", "get", "incoming", expect=0).stdout == "incoming = unset\n"
    drop(spool_dir, "job", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "job")
    assert not list(spool_dir.parent.rglob("*incoming*"))


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_the_folder_is_sticky_and_for_the_group(spool_dir: Path, tmp_path: Path, umask: int) -> None:
    """Whatever the umask: no user can change the files of another, and users outside the group see nothing."""
    Spool(spool_dir).refresh()
    old = os.umask(umask)
    try:
        drop_folder.make(str(tmp_path / "box"), Layout(spool_dir))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "box").stat().st_mode) == 0o1770


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
@pytest.mark.parametrize(
    "path",
    [
        "/a b/c",
        "/a #b",
        "/a: b",
        "/it's",
        '/say "hi"',
        "/back\\slash",
        "/{x}",
        "/ä/€/😀",
        "/100",
        "/a,b",
        "/*x",
        "/%d",
        "/- a",
    ],
)
def test_paths_survive_being_set(spool_dir: Path, path: str, name: str) -> None:
    """Blanks, '#', quotes and the like: the value is read as it was set, and the rest of the file stays."""
    layout = Layout(spool_dir)
    layout.create()
    (spool_dir / name).write_text("# mine\ntimeout: 7 # s\n" if name.endswith("yaml") else '{"timeout": 7}')
    for _ in range(2):  # made, and changed
        assert set_value(layout, "incoming", path) == path
        settings, warnings = load_settings(layout)
        assert (settings.incoming, settings.timeout, warnings) == (path, 7, [])
    assert ("# mine\ntimeout: 7 # s\n" in (spool_dir / name).read_text()) == name.endswith("yaml")
    unset_value(layout, "incoming")
    assert load_settings(layout)[0].incoming is None


def test_a_path_goes_through_the_command_line(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """As a user types it."""
    cli("config", "set", "incoming", "/x/it's # mine", expect=0)
    assert cli("config", "get", "incoming", expect=0).stdout == "incoming = /x/it's # mine\n"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("alice", "alice"), ("alice bob", "alice bob"), ("alice,bob", "alice bob"), ("alice, bob ", "alice bob"),
        ("no", "no"), ("null", "null"), ("1001", "1001"), ("1001 bob", "1001 bob"), ("1e3", "1e3"), ("www-data", "www-data"),
        ("DOM\\al", "DOM\\al"), ("al@dom.org", "al@dom.org"), ("pc$", "pc$"),
    ],
)  # fmt: skip
def test_lists_of_names_survive_being_set(spool_dir: Path, typed: str, names: str) -> None:
    """Names that YAML would read as another type, and numbers of users without a name."""
    layout = Layout(spool_dir)
    assert set_value(layout, "incoming_users", typed) == names
    assert load_settings(layout)[0].incoming_users == names


@pytest.mark.parametrize("text", ["[alice, bob]", "\n- alice\n- bob", "alice bob", "alice,bob"])
def test_names_are_read_as_people_write_them(spool_dir: Path, text: str) -> None:
    """A YAML list is accepted, too."""
    layout = Layout(spool_dir)
    layout.create()
    (spool_dir / "config.yaml").write_text(f"incoming_users: {text}\n")
    assert load_settings(layout)[0].incoming_users == "alice bob"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("incoming", "drop"),
        ("incoming", "7"),
        ("incoming_users", ""),
        ("incoming_users", "a;b"),
        ("incoming_users", "*"),
    ],
)
def test_impossible_settings_are_refused(spool_dir: Path, key: str, value: str) -> None:
    """There is no value for all users."""
    with pytest.raises(ConfigError):
        set_value(Layout(spool_dir), key, value)


# -- the way in ----------------------------------------------------------------------------------------------------


def test_a_job_of_an_allowed_user_is_copied_recorded_and_run(
    box: Path, spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """It runs as the worker's user, from a file written by the worker; attempts and history in the dropped file are ignored."""
    made_up: dict[str, Any] = {
        "submitted_by": "root",
        "attempts": 2,
        "history": [{"run": 1}],
        "state": "dead",
        "crashes": 2,
    }
    path = hand_in(box, "job", command="id -u", timeout=7, mine="kept", **made_up)
    said = drain(spool_dir)
    assert "took in job from nobody" in said
    assert not path.exists()
    done = spool_dir / "done" / "job.json"
    record = load(done)
    assert (record["output"], record["submitted_by"], record["timeout"]) == ("0\n", "nobody", 7)
    assert (record["attempts"], len(record["history"]), record["mine"]) == (1, 1, "kept")
    assert (done.stat().st_uid, stat.S_IMODE(done.stat().st_mode)) == (0, 0o600)
    assert "nobody" in cli("show", "job", expect=0).stdout
    assert not list(box.iterdir())


def test_a_running_worker_takes_them_within_moments(
    box: Path, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """One of two workers takes it in, also while a job is running."""
    workers(2)
    for turn in range(3):
        hand_in(box, f"job{turn}", command="sleep 0.2")
        wait_until(lambda turn=turn: where_is(spool_dir, f"job{turn}") != [], 5)  # type: ignore[misc]
    wait_until(lambda: finished(spool_dir, "job0", "job1", "job2"))


def test_a_draining_worker_looks_into_the_drop_folder_before_it_leaves(
    box: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked once a second only, and left a job behind that had come in the second before."""
    monkeypatch.setattr(idle, "TICK", 60.0)  # the next look is far away
    drop(spool_dir, "first", command="true")

    def hand_in_another(event: JobEvent) -> None:
        if (event.kind, event.job.id) == ("ended", "first"):
            hand_in(box, "second", command="true")

    Worker(spool_dir, drain=True, on_event=hand_in_another).run()

    assert [where_is(spool_dir, name) for name in ("first", "second")] == [["done"], ["done"]]


@pytest.mark.parametrize("users", ["", "root daemon"])
def test_a_user_who_is_not_allowed_is_refused(
    box: Path, spool_dir: Path, cli: Callable[..., Any], users: str
) -> None:
    """A note goes to dead/, with owner, reason and content; neither a retry nor a move back by hand runs it."""
    layout = Layout(spool_dir)
    unset_value(layout, "incoming_users")
    if users:
        set_value(layout, "incoming_users", users)
    hand_in(box, "job", command="touch $HOME/ran")
    drain(spool_dir)
    ((name, reason),) = refusals(spool_dir).items()
    assert name == "job.json"
    assert reason.startswith("user nobody may not hand in jobs here")
    assert not list(box.iterdir())
    (dead,) = (spool_dir / "dead").glob("*.json")
    assert json.loads(load(dead)["refused"]["content"])["command"] == "touch $HOME/ran"
    assert (dead.stat().st_uid, stat.S_IMODE(dead.stat().st_mode)) == (0, 0o600)
    assert "user nobody may not" in cli("dlq", "list").stdout
    cli("dlq", "retry", "--all", expect=1)
    dead.rename(spool_dir / "pending" / "job.json")
    drain(spool_dir)
    assert where_is(spool_dir, "job") == ["dead"]
    assert not (spool_dir.parent / "home" / "ran").exists()


def test_a_user_without_a_name_is_known_by_number(box: Path, spool_dir: Path) -> None:
    """As happens in a container."""
    set_value(Layout(spool_dir), "incoming_users", f"{OTHER}")
    hand_in(box, "job", uid=OTHER, command="true")
    drain(spool_dir)
    assert load(spool_dir / "done" / "job.json")["submitted_by"] == str(OTHER)


def a_link(path: Path, place: Path) -> None:
    as_user(NOBODY, f"ln -s {shlex.quote(str(place / 'roots.json'))} {shlex.quote(str(path))}")


def a_hard_link(path: Path, place: Path) -> None:
    os.link(place / "roots.json", path)  # where the kernel does not forbid it


def a_hard_link_of_ones_own(path: Path, _: Path) -> None:
    hand_in(path.parent, "first", command="touch $HOME/ran")
    (path.parent / "first.json").rename(path)
    os.link(path, path.parent / "second name")


def a_fifo(path: Path, _: Path) -> None:
    as_user(NOBODY, f"mkfifo {shlex.quote(str(path))}")


def a_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    os.chown(path, NOBODY, NOBODY)


def a_device(path: Path, _: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero
    os.chown(path, NOBODY, NOBODY)


def no_json(path: Path, _: Path) -> None:
    path.write_bytes(b'{"command": "touch $HOME/ran"\xff')
    os.chown(path, NOBODY, NOBODY)


def a_bad_field(path: Path, _: Path) -> None:
    hand_in(path.parent, "bad", command="touch $HOME/ran", timeout=-1)
    (path.parent / "bad.json").rename(path)


def one_that_grows_when_written_anew(path: Path, _: Path) -> None:
    path.write_text(json.dumps({"command": "touch $HOME/ran", "x": [1] * 250_000}))
    os.chown(path, NOBODY, NOBODY)


REFUSED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "link": (a_link, "a symbolic link, not a file"),
    "hard_link": (a_hard_link, "has a second name elsewhere"),
    "own_hard_link": (a_hard_link_of_ones_own, "has a second name elsewhere"),
    "fifo": (a_fifo, "a FIFO, not a file"),
    "socket": (a_socket, "a socket"),
    "device": (a_device, "a character device"),
    "no_json": (no_json, "not UTF-8"),
    "bad_field": (a_bad_field, "timeout: "),
    "grows": (one_that_grows_when_written_anew, "too large: "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_not_a_job_is_refused_and_deleted(
    box: Path, place: Path, spool_dir: Path, kind: str
) -> None:
    """At once; the job beside it runs, and no other file is touched."""
    make, told = REFUSED[kind]
    roots = place / "roots.json"
    roots.write_text('{"command": "touch $HOME/ran"}')
    before = roots.lstat()
    make(box / "job.json", place)
    hand_in(box, "healthy", command="true")
    drain(spool_dir)
    assert finished(spool_dir, "healthy")
    assert told in refusals(spool_dir)["job.json"]
    assert [path.name for path in box.iterdir() if path.name != "second name"] == []
    assert not (spool_dir.parent / "home" / "ran").exists()
    after = roots.lstat()
    assert (before.st_ino, before.st_uid, before.st_mode, before.st_size) == (
        after.st_ino, after.st_uid, after.st_mode, after.st_size,
    )  # fmt: skip
    assert Spool(spool_dir).counts() == {
        "pending": 0,
        "processing": 0,
        "completed": 1,
        "failed": 0,
        "dead": 1,
    }


@pytest.mark.parametrize("kind", ["folder", "huge", "sparse"])
def test_what_cannot_be_copied_stays_and_is_reported_once(box: Path, spool_dir: Path, kind: str) -> None:
    """It may be the only copy, and belongs to another user."""
    path = box / "job.json"
    if kind == "folder":
        path.mkdir()
        (path / "inside.json").write_text('{"command": "touch $HOME/ran"}')
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40 if kind == "sparse" else 2 << 20)
    os.chown(path, NOBODY, NOBODY)
    hand_in(box, "slow", command="sleep 1.6")
    said = drain(spool_dir)
    assert finished(spool_dir, "slow")
    assert path.exists()
    told = [line for line in said if "job.json" in line]
    assert len(told) == 1
    assert told[0].startswith(
        "cannot take in job.json from nobody: " + ("a folder" if kind == "folder" else "too large")
    )


@pytest.mark.parametrize("end", ["20310101T010000Z", "20310101T010000Z.load", "job-mzxw6ytboi4do"])
def test_another_user_cannot_take_the_place_of_a_rule(box: Path, spool_dir: Path, end: str) -> None:
    """A job with the id of tomorrow night would be taken for the one that the rule has queued."""
    name = f"backup.{end}"
    of_rule: dict[str, Any] = {
        "rule": "backup",
        "scheduled_for": "2031-01-01T01:00:00Z",
        "source": "/srv/scans/a.pdf",
        "event": "dead",
        "about": "job1",
    }
    hand_in(box, name, id=name, command="true", **of_rule)
    drain(spool_dir)

    [job] = (load(path) for path in (spool_dir / "done").iterdir())
    assert job["id"].startswith("in-")
    assert not of_rule.keys() & job.keys()


def test_a_file_being_written_is_left_until_it_is_complete(box: Path, spool_dir: Path) -> None:
    """However long its writer pauses."""
    text = json.dumps({"command": "echo whole"})
    path = box / "job.json"
    with path.open("w") as file:
        os.chown(path, NOBODY, NOBODY)
        file.write(text[:10])
        file.flush()
        drain(spool_dir)
        assert path.exists()
        assert refusals(spool_dir) == {}
        file.write(text[10:])
    drain(spool_dir)
    assert load(spool_dir / "done" / "job.json")["output"] == "whole\n"


def test_an_id_that_is_taken_is_refused(box: Path, spool_dir: Path) -> None:
    """The second job with an id is refused, and the first one is not touched."""
    drop(spool_dir, "job", command="echo first")
    drain(spool_dir)
    hand_in(box, "any", id="job", command="echo second")
    hand_in(box, "job", command="echo third")  # a name chosen by nobody
    drain(spool_dir)
    assert "job" in refusals(spool_dir)["any.json"]
    assert load(spool_dir / "done" / "job.json")["output"] == "first\n"
    (third,) = (spool_dir / "done").glob("in-*.json")
    assert load(third)["output"] == "third\n"


def test_a_file_copied_in_twice_with_its_old_date_runs_twice(box: Path, spool_dir: Path) -> None:
    """`cp -p` gives each copy the same date and size, and often it gets the same inode."""
    template = box.parent / "job.json"
    template.write_text('{"command": "echo hi"}')
    os.chown(template, NOBODY, NOBODY)
    for _ in range(3):
        as_user(NOBODY, f"cp -p {shlex.quote(str(template))} {shlex.quote(str(box))}")
        drain(spool_dir)
    assert Spool(spool_dir).counts()["completed"] == 3
    first = template.stat()
    os.utime(template, ns=(first.st_atime_ns, first.st_mtime_ns))
    second = template.stat()
    assert (first.st_ino, first.st_mtime_ns, first.st_size) == (
        second.st_ino,
        second.st_mtime_ns,
        second.st_size,
    )
    assert drop_folder._fingerprint(first) != drop_folder._fingerprint(second)


# -- crashes and swaps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "running", "done", "done, no index"])
@pytest.mark.parametrize("job_id", [None, "chosen"])
def test_a_crash_between_queueing_and_deleting_does_not_run_it_twice(
    box: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch, when: str, job_id: str | None
) -> None:
    """Whatever the job's state is by then."""
    fields: dict[str, Any] = {"id": job_id} if job_id else {}
    path = hand_in(box, "job", command="echo run >> $HOME/runs", **fields)
    spool = Spool(spool_dir)
    spool.refresh()

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    drops = drop_folder.DropFolder(spool._storage, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(drop_folder, "_delete", crash)
        with pytest.raises(Crash):
            drops.take_in(spool.settings(), 10)
    name = f"{job_id or 'job'}.json"
    assert path.exists()
    assert (spool_dir / "pending" / name).exists()
    if when == "running":
        claimed = spool_dir / "processing" / "worker-9"
        claimed.mkdir()
        (spool_dir / "pending" / name).rename(claimed / name)
    elif when.startswith("done"):
        kept = path.rename(box / "kept")
        drain(spool_dir)
        kept.rename(path)  # a rename gives it a new change time, as a crash would not
        monkeypatch.setattr(
            drop_folder, "_fingerprint", lambda _: load(spool_dir / "done" / name)["submission"]
        )
    if when == "done, no index":
        (spool_dir / "data" / "queuectl.db").unlink()
    said: list[str] = []
    again = Spool(spool_dir)
    if when != "done, no index":
        again.refresh()
    drop_folder.DropFolder(again._storage, said.append).take_in(again.settings(), 10)
    assert not path.exists()
    assert refusals(spool_dir) == {}
    drain(spool_dir)
    assert (spool_dir.parent / "home" / "runs").read_text() == "run\n"
    counts = again.counts()
    assert sum(counts.values()) == 1, counts


def test_only_what_was_checked_runs(box: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced, and another is rewritten through an open descriptor, right after the check."""
    hand_in(box, "swapped", command="echo checked")
    hand_in(box, "rewritten", command="echo checked")
    real = dropped_file.read_dropped
    swaps: list[int] = []

    def read(path: str, *rest: Any, **options: Any) -> Any:
        found = real(path, *rest, **options)
        if path.endswith("swapped.json") and not swaps:
            swaps.append(1)
            hand_in(box, "swapped", command="echo another")
        elif path.endswith("rewritten.json"):
            Path(path).write_text('{"command": "echo astray"}')
        return found

    monkeypatch.setattr(drop_folder, "read_dropped", read)
    drain(spool_dir)
    drain(spool_dir)
    outputs = sorted(load(path)["output"] for path in (spool_dir / "done").iterdir())
    assert outputs == ["another\n", "checked\n", "checked\n"]
    assert refusals(spool_dir) == {}


def test_invalid_files_do_not_block_others(box: Path, spool_dir: Path) -> None:
    """A busy worker reads the folder in slices of time and continues where it stopped."""
    for number in range(20):
        (box / f"a{number:02}.json").touch()
    hand_in(box, "zlast", command="true")
    spool = Spool(spool_dir)
    spool.refresh()
    drops = drop_folder.DropFolder(spool._storage, lambda _: None)
    for turn in range(30):
        drops.take_in(spool.settings(), 0)
        assert turn > 5 or where_is(spool_dir, "zlast") == []
    assert where_is(spool_dir, "zlast") == ["pending"]


def test_many_drops_do_not_hold_up_a_timeout(box: Path, spool_dir: Path) -> None:
    """They are taken in while a job is running, in slices of time."""
    hand_in(box, "0", command="sleep 60", timeout=1, max_retries=1)
    for number in range(400):
        path = box / f"{number + 1}.json"
        path.write_text('{"command": "true"}')
        os.chown(path, NOBODY, NOBODY)
    drain(spool_dir)
    assert load(spool_dir / "dead" / "0.json")["duration"] < 3
    wait_until(lambda: (drain(spool_dir), not list(box.iterdir()))[1], 30)
    assert Spool(spool_dir).counts()["completed"] == 400


# -- the folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["not sticky", "not writable", "foreign", "pending", "root", "above"])
def test_an_unsafe_drop_folder_is_reported_and_left_alone(
    spool_dir: Path, place: Path, cli: Callable[..., Any], wrong: str
) -> None:
    """No file is taken from it, the worker goes on otherwise, and `status` says why."""
    spool = Spool(spool_dir)
    spool.refresh()
    above = place / "above"
    above.mkdir(mode=0o755)
    box = {"pending": spool_dir / "pending", "root": spool_dir}.get(wrong, above / "box")
    box.mkdir(exist_ok=True)
    # Written by hand: the command refuses some of them.
    (spool_dir / "config.yaml").write_text(f"settle_time: 0\nincoming: {box}\nincoming_users: root nobody\n")
    if box == above / "box":
        box.chmod({"not sticky": 0o777, "not writable": 0o1755}.get(wrong, 0o1777))
    if wrong == "foreign":
        os.chown(box, NOBODY, NOBODY)
    if wrong == "above":
        above.chmod(0o777)
    if wrong != "pending":
        (box / "theirs.json").write_text('{"command": "touch $HOME/ran"}')
    drop(spool_dir, "mine", command="true")
    said = drain(spool_dir)
    assert finished(spool_dir, "mine")
    told = [line for line in said if str(box) in line]
    assert len(told) == 1, said
    assert str(box) in cli("status").stderr
    assert not (spool_dir.parent / "home" / "ran").exists()
    if wrong != "pending":
        assert (box / "theirs.json").exists()


def test_one_user_cannot_change_files_of_another(box: Path) -> None:
    """The kernel prevents it, if the folder has the mode that we set."""
    path = shlex.quote(str(hand_in(box, "job", command="true")))
    for attack in (f"rm -f {path}", f"mv {path} {path}.mine", f"echo x > {path}"):
        with pytest.raises(subprocess.CalledProcessError):
            as_user(OTHER, attack)


# -- a worker that is not root -------------------------------------------------------------------------------------


def test_an_ordinary_worker_takes_jobs_of_others(place: Path) -> None:
    """It runs them as its own user, and leaves files that it can neither read nor delete, without filling dead/."""
    home = place / "worker"
    home.mkdir(mode=0o711)
    spool, box = home / "spool", place / "box"
    env = {**os.environ, "HOME": str(home), "QUEUECTL_SPOOL": str(spool)}
    become = ["setpriv", f"--reuid={WORKER}", f"--regid={WORKER}", f"--groups={NOBODY}"]

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*become, sys.executable, "-m", "queuectl", *args],
            env=env, cwd="/", text=True, capture_output=True, check=True, timeout=40,
        )  # fmt: skip

    os.chown(home, WORKER, WORKER)
    box.mkdir()
    os.chown(box, WORKER, NOBODY)
    box.chmod(0o1770)
    for key, value in (("incoming", str(box)), ("incoming_users", "nobody"), ("settle_time", "0")):
        run("config", "set", key, value)
    hand_in(box, "job", command="id -u; sleep 2.5")
    hand_in(box, "unreadable", mode=0o600, command="true")
    hand_in(box, "other", uid=OTHER, command="true")
    as_user(NOBODY, f"mkdir {box}/folder.json && touch {box}/folder.json/kept && mkfifo {box}/fifo.json")
    as_user(NOBODY, f"printf '{{' > {box}/half.json")
    try:
        said = run("worker", "start", "--foreground", "--drain").stdout
    finally:
        end_workers(spool)
    record = load(spool / "done" / "job.json")
    assert (record["output"], record["submitted_by"]) == (f"{WORKER}\n", "nobody")
    assert sorted(path.name for path in box.iterdir()) == ["folder.json", "unreadable.json"]
    assert said.count("cannot take in unreadable.json from nobody: the worker's user may not read it") == 1
    assert said.count("cannot take in folder.json") == 1
    told = refusals(spool)
    assert set(told) == {"other.json", "fifo.json", "half.json"}
    assert f"user {OTHER} may not" in told["other.json"]
    assert all(path.stat().st_uid == WORKER for path in spool.rglob("*"))
