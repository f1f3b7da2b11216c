"""Durable changes of files: all or nothing, and never onto an existing name."""

from __future__ import annotations

import errno
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.system import files, libc

if TYPE_CHECKING:
    from collections.abc import Callable

LINK = os.link
HOW_MOVED = ["renameat2", "link and unlink", "a look and a rename", "publish", "publish without links"]


@pytest.fixture(params=HOW_MOVED)
def move(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """files.move and files.publish in each of their ways: with this kernel's calls, and with those of other systems."""
    if request.param not in {"renameat2", "publish without links"}:
        monkeypatch.setattr(files, "_rename_with_flag", lambda *_: False)
    if request.param in {"a look and a rename", "publish without links"}:

        def no_links_here(*args: Any, **options: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", no_links_here)
    way = files.publish if request.param.startswith("publish") else files.move
    return lambda source, target: way(str(source), str(target))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- move ----------------------------------------------------------------------------------------------------------


def test_a_move_takes_the_file_along(tmp_path: Path, move: Callable[[Path, Path], None]) -> None:
    """Afterwards it lies under the new name only."""
    (tmp_path / "a").write_text("mine")
    move(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "the same file"])
def test_a_move_never_clobbers(tmp_path: Path, move: Callable[[Path, Path], None], kind: str) -> None:
    """What has the target's name keeps it, and the source stays."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("mine")
    if kind == "file":
        target.write_text("theirs")
    elif kind == "folder":
        target.mkdir()
    elif kind == "dangling link":
        target.symlink_to("/nowhere/at/all")
    else:
        # A rename between two names of one file does nothing, and says that it went well.
        LINK(source, target)
    before = os.lstat(target)

    with pytest.raises(FileExistsError):
        move(source, target)

    assert names(tmp_path) == ["a", "b"]
    assert source.read_text() == "mine"
    after = os.lstat(target)
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_size,
    )


def test_a_move_of_what_is_gone_says_so(tmp_path: Path, move: Callable[[Path, Path], None]) -> None:
    """FileNotFoundError means that another storage won."""
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == []


def test_a_name_that_was_given_stays_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the temporary name cannot be deleted, the job is queued all the same."""

    def refuse(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    (tmp_path / "a").write_text("mine")
    monkeypatch.setattr(os, "unlink", refuse)

    files.publish(str(tmp_path / "a"), str(tmp_path / "b"))

    assert names(tmp_path) == ["a", "b"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's C library")
def test_a_call_that_the_c_library_lacks_fails_like_any_other() -> None:
    """With an older library without renameat2, a command takes the other way instead of failing."""
    assert libc.call("no_such_call", "c_int", 1) == -1
    assert libc.last_error() == errno.ENOSYS


def test_a_link_is_moved_itself(tmp_path: Path, move: Callable[[Path, Path], None]) -> None:
    """What it points to is not touched."""
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    move(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b", "precious"]
    assert (tmp_path / "b").is_symlink()


def test_a_folder_can_be_moved(tmp_path: Path, move: Callable[[Path, Path], None]) -> None:
    """A folder in pending/ must be moved out as well."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").touch()
    move(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path / "b") == ["inside"]


def test_of_many_movers_to_one_name_one_wins(tmp_path: Path) -> None:
    """Twenty threads, one name: one file is moved, nineteen stay where they were."""
    for number in range(20):
        (tmp_path / f"from{number}").write_text(str(number))
    refused: list[int] = []
    barrier = threading.Barrier(20)

    def go(number: int) -> None:
        barrier.wait()
        try:
            files.move(str(tmp_path / f"from{number}"), str(tmp_path / "to"))
        except FileExistsError:
            refused.append(number)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winner = int((tmp_path / "to").read_text())
    assert sorted([winner, *refused]) == list(range(20))
    assert all((tmp_path / f"from{number}").exists() for number in refused)


# -- write ---------------------------------------------------------------------------------------------------------


def test_a_new_file_is_ours_alone(tmp_path: Path) -> None:
    """0600 whatever the umask is, and never over what is there."""
    path = str(tmp_path / "new")
    before = os.umask(0)
    try:
        files.write_new(path, b"abc", sync=True)
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.write_new(path, b"xyz", sync=True)
    assert Path(path).read_bytes() == b"abc"


def test_a_new_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link that exists under the name is not followed."""
    (tmp_path / "trap").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        files.write_new(str(tmp_path / "trap"), b"abc", sync=False)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("failing", ["write", "fsync", "late write"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("how", ["write_new", "replace"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, code: int, how: str
) -> None:
    """On a full or failing disk no half file and no temporary stays behind, and an old file stays as it was."""
    path = tmp_path / "file"
    if how == "replace":
        path.write_text("old")
    real = os.write

    def refuse(*args: Any) -> int:
        raise OSError(code, os.strerror(code))

    def some_then_refuse(fd: int, data: Any) -> int:
        if len(data) <= 50:
            return refuse()
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(
        os, "fsync" if failing == "fsync" else "write", some_then_refuse if "late" in failing else refuse
    )
    write = files.replace if how == "replace" else partial(files.write_new, sync=True)
    with pytest.raises(OSError) as caught:
        write(str(path), b"x" * 1000)
    assert caught.value.errno == code
    if how == "replace":
        assert names(tmp_path) == ["file"]
        assert path.read_text() == "old"
    else:
        assert names(tmp_path) == []


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may take a few bytes at a time."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    files.write_new(str(tmp_path / "file"), b"0123456789" * 10, sync=False)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 10


def test_a_failed_rename_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    """If a folder has the name, replace fails and deletes its temporary file."""
    (tmp_path / "name").mkdir()
    with pytest.raises(OSError):
        files.replace(str(tmp_path / "name"), b"abc")
    assert names(tmp_path) == ["name"]


def test_readers_see_the_old_or_the_new_file_never_half(tmp_path: Path) -> None:
    """A file that is replaced again and again is complete at every read."""
    path = tmp_path / "file"
    sides = [b"a" * 100_000, b"b" * 50_000]
    path.write_bytes(sides[0])
    over = threading.Event()

    def write() -> None:
        for number in range(40):
            files.replace(str(path), sides[number % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not over.is_set():
        assert path.read_bytes() in sides
        looks += 1
    writer.join()
    assert looks
    assert names(tmp_path) == ["file"]


def noted(calls: list[str], name: str, function: Callable[..., None]) -> Callable[..., None]:
    """Note each call of a function by a name."""

    def call(*arguments: Any) -> None:
        calls.append(name)
        function(*arguments)

    return call


@pytest.mark.parametrize("many", [1, 2], ids=["single", "several"])
@pytest.mark.parametrize("here", [True, False], ids=["syncfs", "one by one"])
def test_files_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, many: int) -> None:
    """Several with one call on Linux, else one by one: a call for all waits for other programs' files too."""
    calls: list[str] = []
    monkeypatch.setattr(files, "sync_file", noted(calls, "one", files.sync_file))
    monkeypatch.setattr(files, "sync_filesystem", noted(calls, "all", files.sync_filesystem))
    if not here:
        monkeypatch.setattr(files, "HAS_SYNCFS", False)
    paths = [str(tmp_path / str(number)) for number in range(many)]
    for path in paths:
        files.write_new(path, b"abc", sync=False)
    files.sync_files(str(tmp_path), paths)
    assert calls == (["all"] if here and many > 1 else ["one"] * many)
    with pytest.raises(FileNotFoundError):
        files.sync_files(str(tmp_path / "gone"), [str(tmp_path / "gone" / "x")] * many)


def test_many_files_are_replaced_with_two_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone is not made again, also if it is deleted during the wait; no scratch file is left."""
    names = [f"{number}.json" for number in range(20)]
    for name in names[1:]:
        (tmp_path / name).write_bytes(b"old")
    calls: list[str] = []
    sync_all = files.sync_filesystem

    def sync_and_delete(folder: str) -> None:
        calls.append("bytes")
        sync_all(folder)
        (tmp_path / names[1]).unlink()

    monkeypatch.setattr(files, "sync_filesystem", sync_and_delete)
    monkeypatch.setattr(files, "sync_folder", noted(calls, "names", files.sync_folder))

    replaced = files.replace_existing(str(tmp_path), dict.fromkeys(names, b"new"))

    assert replaced == set(names[2:])
    assert calls == ["bytes", "names"]
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == dict.fromkeys(
        names[2:], b"new"
    )


def test_files_that_cannot_be_synced_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync nobody knows which of the new bytes are on the disk."""
    names = [f"{number}.json" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"old")

    def refuse(_folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_filesystem", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.replace_existing(str(tmp_path), dict.fromkeys(names, b"new"))
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == dict.fromkeys(names, b"old")


def test_tokens_differ_and_are_plain_letters() -> None:
    """A name that nobody else chooses, valid on any filesystem."""
    drawn = {files.token() for _ in range(2000)}
    assert len(drawn) == 2000
    assert all(len(text) == 16 and text.isalnum() and text == text.lower() for text in drawn)
