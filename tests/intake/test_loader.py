"""Rows that are made from cached ones: they are the same as those made by reading each file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.config.settings import Settings
from queuectl.index.row import COLUMNS
from queuectl.intake.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.intake.dropped_file import DroppedFile

NOW = 4_000_000_000_000_000
ODD: tuple[Any, ...] = (
    "2026-11-22T06:15:19.123456Z",
    "pending",
    None,
    True,
    False,
    0,
    1,
    1.0,
    5,
    10,
    11,
    2.5,
    "5",
    "",
    [],
    {},
    "2100-01-01",
    "10m",
    "dead",
    "a b",
)
FIELDS = (
    "priority",
    "timeout",
    "max_retries",
    "backoff_base",
    "max_backoff",
    "cwd",
    "env",
    "on_crash",
    "run_at",
    "next_retry_at",
    "state",
    "attempts",
    "default_timeout",
    "created_at",
    "updated_at",
    "tags",
    "hold",
    "unique",
    "jitter",
    "expires_at",
    "retry_on",
    "something",
)

records = st.fixed_dictionaries(
    {"command": st.sampled_from(["true", "echo a", "echo \N{SNOWMAN}", " ", "", "x" * 300, ["ls"], 5, None])},
    optional={
        "id": st.sampled_from(["a", "b", "c0", "-", "con", "a b", 7, None]),
        **{name: st.sampled_from(ODD) for name in FIELDS},
    },
)


def rows(root: Path, names: Sequence[str], *, cached: bool, settings: Sequence[Settings] = ()) -> list[Any]:
    loader = Loader(str(root))
    if not cached:
        loader._load_cached = lambda *_: None  # type: ignore[method-assign]
    made = []
    for current in settings or [Settings()]:
        loader.start(NOW, current)
        made += loader.load("pending", names, {"b"})
    return made


def put(root: Path, content: Sequence[bytes]) -> list[str]:
    """Write these files; returns their names."""
    (root / "pending").mkdir()
    stems = ("a", "b", "c0", "d", "é", "con", "e")
    names = [f"{stems[turn] if turn < len(stems) else f'job{turn}'}.json" for turn in range(len(content))]
    for name, data in zip(names, content, strict=True):
        (root / "pending" / name).write_bytes(data)
    return names


@given(
    st.lists(st.sampled_from([0, 1, 2]), min_size=4, max_size=12), st.lists(records, min_size=3, max_size=3)
)
def test_the_cache_gives_the_same_rows(turns: list[int], records_of: list[dict[str, Any]]) -> None:
    """Whatever the files hold, in whatever order they come."""
    with tempfile.TemporaryDirectory() as folder:
        names = put(Path(folder), [json.dumps(records_of[turn]).encode() for turn in turns])
        settings = [Settings(), Settings(priority=7), Settings(priority=7, max_retries=1)]
        expected = rows(Path(folder), names, cached=False, settings=settings)
        assert rows(Path(folder), names, cached=True, settings=settings) == expected


PLAIN = """{
  "id": "c0",
  "command": "echo \\"a\\" é",
  "cwd": "/",
  "created_at": "2026-11-22T06:15:19.123456Z"
}
""".encode()
PIECES = (
    *(
        b'"',
        b"\\",
        b'\\"',
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b" ",
        b"\n",
        b"\t",
        b"\x01",
        b"\xff",
        b"\\u0000",
        b"\\ud800",
    ),
    *(
        b'"id": "b"',
        b', "id": "c0"',
        b'"command": "',
        b'", "command": "ls',
        b'\\"id\\": \\"d\\"',
        b"null",
        b"id",
        b"",
    ),
)


@given(
    st.lists(
        st.tuples(st.integers(0, len(PLAIN)), st.integers(0, 12), st.sampled_from(PIECES)),
        min_size=1,
        max_size=5,
    )
)
def test_a_field_that_is_cut_out_changes_nothing_else(changes: list[tuple[int, int, bytes]]) -> None:
    """Files of which only the texts of some fields differ are read once. A quote in one of them must not make a new field."""
    with tempfile.TemporaryDirectory() as folder:
        names = put(Path(folder), [PLAIN[:at] + piece + PLAIN[at + cut :] for at, cut, piece in changes])
        (Path(folder) / "pending" / "c0.json").write_bytes(PLAIN)
        names = ["c0.json", *(name for name in names if name != "c0.json"), "c0.json"]
        assert rows(Path(folder), names, cached=True) == rows(Path(folder), names, cached=False)


def test_a_file_that_is_written_anew_while_it_is_read_teaches_nothing(tmp_path: Path) -> None:
    """It is read twice. What it said the second time was taken for what files like the first one say."""
    put(tmp_path, [b'{"command": "true", "priority": 7}'] * 3)
    loader = Loader(str(tmp_path))
    loader.start(NOW, Settings())
    read = loader.read

    def late(place: str, path: str) -> DroppedFile:
        if path.endswith("a.json"):
            Path(path).write_bytes(b'{"command": "true", "priority": 10}')
        return read(place, path)

    loader.read = late  # type: ignore[method-assign]
    made = loader.load("pending", ["a.json", "c0.json"], ())
    assert [values[COLUMNS.index("priority")] for *_, values in made] == [10, 7]


@pytest.mark.parametrize("moment", [{}, {"a": 1}, [], 5, True, "", "2031"])
@pytest.mark.parametrize("field", ["created_at", "updated_at"])
def test_a_moment_that_is_no_text_ends_no_scan(tmp_path: Path, field: str, moment: object) -> None:
    """Since Python 3.12 a part of a mapping is a KeyError, which nobody expected: the worker ended at such a file."""
    content = [{"command": "true"}, {"command": "true", field: moment}]
    names = put(tmp_path, [json.dumps(record).encode() for record in content])
    expected = rows(tmp_path, names, cached=False, settings=[Settings()])
    assert rows(tmp_path, names, cached=True, settings=[Settings()]) == expected


def test_similar_files_are_loaded_from_the_cache(tmp_path: Path) -> None:
    """Only the first of them is checked field by field."""
    names = put(tmp_path, [b'{"command": "echo %d", "priority": 7}' % turn for turn in range(20)])
    loader = Loader(str(tmp_path))
    loader.start(NOW, Settings())
    checked: list[str] = []
    read = loader.read

    def look(place: str, path: str) -> DroppedFile:
        checked.append(os.path.basename(path))
        return read(place, path)

    loader.read = look  # type: ignore[method-assign]
    made = loader.load("pending", names, ())
    assert checked == ["a.json", "é.json", "con.json"]
    shown = [values[COLUMNS.index("command")] for *_, values in made if values is not None]
    assert shown == [f"echo {turn}" for turn in range(20) if turn not in (4, 5)]


def test_what_was_enqueued_is_loaded_from_the_cache(spool_dir: Path) -> None:
    """Each job had got one more field, which the cache did not know: `reindex` took half as long again."""
    with Spool(spool_dir) as spool:
        spool.enqueue_many({"command": f"echo {number}"} for number in range(5))
    loader = Loader(str(spool_dir))
    loader.start(NOW, Settings())
    checked: list[str] = []
    read = loader.read

    def look(place: str, path: str) -> DroppedFile:
        checked.append(path)
        return read(place, path)

    loader.read = look  # type: ignore[method-assign]
    made = loader.load("pending", os.listdir(spool_dir / "pending"), ())
    assert len(made) == 5
    assert len(checked) == 1


@pytest.mark.parametrize(
    "data",
    [
        b'{"command": "true", "command": "false"}',
        b'{"command": "true" "x"}',
        b'{"command": "true"',
        b'\xef\xbb\xbf{"command": "true"}',
        b'{"command": "tr\\u0000ue"}',
        b'{"command": "tr\x01ue"}',
        b'{"command": "tr\xffue"}',
        b'{"command": "tr\\ud800ue"}',
        b'{"command": "true", "timeout": 12345678901234567890}',
        b'{"command": "true", "priority": []}',
        b'{"command": "true", "cwd": {}}',
        b"",
    ],
)
def test_invalid_files_are_not_loaded_from_the_cache(tmp_path: Path, data: bytes) -> None:
    """Even between valid ones."""
    names = put(tmp_path, [b'{"command": "true"}', data, data, b'{"command": "true"}'])
    assert rows(tmp_path, names, cached=True) == rows(tmp_path, names, cached=False)


def test_equal_values_of_other_types_are_no_cache_hit(tmp_path: Path) -> None:
    """In Python 1 == True == 1.0, and only the first of them is a valid priority."""
    content = [b'{"command": "true", "priority": %s}' % value for value in (b"1", b"true", b"1.0", b"1")]
    names = put(tmp_path, content)
    made = rows(tmp_path, names, cached=True)
    assert [values is not None for *_, values in made] == [True, False, False, True]
    assert made == rows(tmp_path, names, cached=False)
