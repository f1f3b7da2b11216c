"""Packs as the dispatcher sees them: what nodes have written there is a stranger's word."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.engine import packs, script
from queuectl.engine.packs import DISPATCHER, HOWS, Order, Pack, parse
from queuectl.engine.verdict import Claim, Limits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the head of a cluster runs Linux")

LIMITS = Limits(beat=10, fence=600, grace=5)
KEYS = [("a", "1.7"), ("b", "1.8"), ("c", "2.9")]
GOOD: dict[str, Any] = {
    "n": 1,
    "key": ["b", "1.8"],
    "how": "exited",
    "code": 0,
    "why": "",
    "ran": True,
    "node": "n1",
    "started": 1.7e9,
    "ended": 1.7e9,
    "seconds": 2,
    "out": 3,
    "err": 4,
}


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    orders = [Order(key, "true", "/", {"SECRET": "x"}, 60) for key in KEYS]
    return Pack.make(str(tmp_path / "pack"), orders, LIMITS, 1000)


def put(pack: Pack, name: str, data: bytes = b"") -> Path:
    path = Path(pack.path(name))
    path.write_bytes(data)
    return path


def runner(pack: Pack, *numbers: int, name: str = "n1.7.8") -> str:
    """A runner that has come and has these attempts."""
    by = put(pack, f"by.{name}", b"{}")
    put(pack, f"beat.{name}", b"1\n")
    for number in numbers:
        os.link(by, pack.path(f"claim.{number}"))
    return name


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode() + b"\n"


def test_a_new_pack_is_nobodys_and_only_ours(pack: Pack) -> None:
    """Other users of the share see nothing of it: it has the environments of jobs."""
    look = pack.look()
    assert (look.claims, look.beats, look.left, look.records) == ({}, {}, set(), [])
    assert look.claim(0) is Claim.NOBODY
    assert Path(pack.folder).stat().st_mode & 0o777 == 0o700
    assert Path(pack.path("pack.json")).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Pack.make(pack.folder, [], LIMITS, 0)


def test_a_plan_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that is killed while it writes has sent nobody. A part of a plan would keep its jobs claimed for ever."""

    def die(*_: str) -> None:
        raise SystemExit

    monkeypatch.setattr("queuectl.system.files.rename_over", die)
    folder = tmp_path / "pack"
    with pytest.raises(SystemExit):
        Pack.make(str(folder), [Order(KEYS[0], "true", "/", {}, 60)], LIMITS, 1000)
    assert Pack.found(str(folder)) is None


def test_a_pack_is_found_again_by_the_next_dispatcher(pack: Pack) -> None:
    """Its keys and limits are in it, and what was collected before is collected again."""
    put(pack, f"exits.{runner(pack, 1)}", line())
    again = Pack.found(pack.folder)
    assert again is not None
    assert (again.keys, again.limits) == (tuple(KEYS), LIMITS)
    assert [one.number for one in again.look().records] == [1]


def test_a_pack_that_was_not_made_whole_was_sent_to_nobody(tmp_path: Path) -> None:
    """A dispatcher that died while it made one has not called the engine yet."""
    (tmp_path / "half").mkdir()
    assert Pack.found(str(tmp_path / "half")) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"v": 1}', b'{"v": 1, "jobs": [{"key": 3}]}', b"\xff"])
def test_a_damaged_pack_is_left_alone(pack: Pack, text: bytes) -> None:
    put(pack, "pack.json", text)
    with pytest.raises(ValueError, match="damaged"):
        Pack.found(pack.folder)


def test_who_has_what_is_told_by_inodes(pack: Pack) -> None:
    """Of a claim that is no link to anybody's file it is not known who has it; nobody can begin it any more."""
    name = runner(pack, 0)
    assert pack.revoke(1)
    put(pack, "claim.2")
    look = pack.look()
    assert look.claims == {0: name, 1: DISPATCHER, 2: ""}
    assert [look.claim(number) for number in range(3)] == [Claim.RUNNER, Claim.DISPATCHER, Claim.RUNNER]
    assert [pack.revoke(number) for number in range(3)] == [False, True, False]


def test_a_share_that_refuses_the_link_revokes_nothing(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nobody has the claim does not mean that we have it."""

    def refuse(_: str, claim: str, **__: bool) -> None:
        raise OSError(errno.EIO, "input/output error", claim)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="claim"):
        pack.revoke(0)
    assert pack.look().claims == {}


def test_records_are_read_once_and_whole(pack: Pack) -> None:
    """A line without its end is not there yet."""
    path = put(pack, f"exits.{runner(pack, 0, 1)}", line()[:20])
    assert pack.look().records == []
    path.write_bytes(line() + line(n=0, key=["a", "1.7"], how="signalled", code=-9)[:-1])
    assert [one.number for one in pack.look().records] == [1]
    assert pack.look().records == []
    with path.open("ab") as file:
        file.write(b"\n")
    assert [(one.number, one.how, one.code) for one in pack.look().records] == [(0, "signalled", -9)]


def test_the_first_record_of_an_attempt_counts(pack: Pack) -> None:
    """A second one has no meaning, whatever it says."""
    put(pack, f"exits.{runner(pack, 1)}", line() + line(code=9))
    assert [one.code for one in pack.look().records] == [0]


def test_a_record_counts_only_from_the_runner_that_has_the_claim(pack: Pack) -> None:
    """Another one cannot have run it."""
    runner(pack, 1, name="n1.7.8")
    put(pack, f"exits.{runner(pack, name='n2.7.9')}", line())
    assert pack.look().records == []


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3}, {"n": -1}, {"n": True}, {"n": 1e9}, {"n": "1"}, {"key": ["b", "1.9"]}, {"key": None}, {"how": "well"},
        {"how": None}, {"code": "0"}, {"code": 1 << 40}, {"code": True}, {"seconds": "long"}, {"out": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_something_else_is_ignored(pack: Pack, change: dict[str, Any]) -> None:
    """An attempt that does not exist, an earlier job of the same id, a way to end that there is not."""
    put(pack, f"exits.{runner(pack, 1)}", line(**change))
    assert pack.look().records == []


def test_numbers_of_a_node_are_made_harmless(pack: Pack) -> None:
    """They are recorded in a job, and reading it must not fail."""
    text = b'{"n": 1, "key": ["b", "1.8"], "how": "exited", "code": 0, "why": "\\u001b[2J", "ran": 1, "node": "n\\n1",'
    text += b'"started": -5, "ended": NaN, "seconds": -Infinity, "out": -3, "err": 1e400}\n'
    put(pack, f"exits.{runner(pack, 1)}", text)
    [record] = pack.look().records
    assert (record.started, record.ended, record.seconds, record.out, record.err) == (0, 0, 0, 0, 0)
    assert (record.why, record.node, record.ran) == ("\\x1b[2J", "n\\n1", False)


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=2), max_size=3)
)


@settings(max_examples=60)
@given(st.binary(max_size=50) | st.dictionaries(st.sampled_from([*GOOD]), ODD).map(lambda odd: line(**odd)))
def test_no_line_ends_the_dispatcher(data: bytes) -> None:
    record = parse(data, KEYS)
    assert record is None or record.how in HOWS


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device", "stranger"])
@pytest.mark.parametrize("name", ["exits", "beat"])
def test_what_is_no_file_of_ours_is_not_read(pack: Pack, name: str, kind: str) -> None:
    """A FIFO would be waited for, a link leads elsewhere."""
    path = Path(pack.path(f"{name}.{runner(pack, 1)}"))
    path.unlink(missing_ok=True)
    elsewhere = put(pack, "elsewhere", line())
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif os.geteuid():
        pytest.skip("needs root")
    elif kind == "device":
        os.mknod(path, 0o20600, os.makedev(1, 5))  # /dev/zero
    else:
        path.write_bytes(line())
        os.chown(path, 65534, 65534)

    look = pack.look()

    assert look.records == []
    if kind != "stranger":
        assert look.beats == {"n1.7.8": None if name == "beat" else b"1\n"}


def test_a_huge_file_of_records_costs_one_piece_a_look(pack: Pack) -> None:
    """And what is no line is passed over."""
    path = put(pack, f"exits.{runner(pack, 1)}")
    with path.open("wb") as file:
        file.truncate(packs._AT_ONCE * 2)
        file.seek(packs._AT_ONCE * 2)
        file.write(b"\n" + line())
    found = [len(pack.look().records) for _ in range(4)]
    assert sorted(found) == [0, 0, 0, 1]


def test_a_deleted_pack_is_gone_and_may_be_deleted_again(pack: Pack) -> None:
    """A dispatcher may have died in the middle."""
    runner(pack, 0, 1)
    pack.cancel()
    pack.cancel(1)
    pack.cancel(1)
    pack.delete()
    assert not Path(pack.folder).exists()
    pack.delete()
    with pytest.raises(FileNotFoundError):
        pack.look()


def test_a_pack_loses_its_name_before_any_claim_is_deleted(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that comes late would make the claim anew, and run its attempt a second time."""
    runner(pack, 0, 1)
    there, unlink = list[bool](), os.unlink

    def look_and_unlink(path: str) -> None:
        there.append(os.path.exists(pack.folder))
        unlink(path)

    monkeypatch.setattr(os, "unlink", look_and_unlink)
    pack.delete()
    assert len(there) > 2
    assert not any(there)


def test_the_script_is_written_whole_and_once(tmp_path: Path) -> None:
    """An upgrade has another name; a file that is not ours is replaced."""
    path = Path(packs.write_script(str(tmp_path)))
    inode = path.stat().st_ino
    assert path.name == script.name()
    assert path.read_bytes() == script.text()
    assert path.stat().st_mode & 0o777 == 0o700
    assert packs.write_script(str(tmp_path)) == str(path)
    assert path.stat().st_ino == inode
    path.write_bytes(script.text()[:100])
    packs.write_script(str(tmp_path))
    assert path.read_bytes() == script.text()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
