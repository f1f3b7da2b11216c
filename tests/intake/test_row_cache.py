"""Files that are like one before them: the short way to their rows leads to the same rows."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.config.settings import Settings
from queuectl.index.row import COLUMNS
from queuectl.intake.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.intake.dropped_file import Found

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


def rows(root: Path, names: Sequence[str], *, quick: bool, settings: Sequence[Settings] = ()) -> list[Any]:
    reader = Reader(str(root))
    if not quick:
        reader._quick = lambda *_: None  # type: ignore[method-assign]
    made = []
    for in_force in settings or [Settings()]:
        reader.begin(NOW, in_force)
        made += reader.rows("pending", names, {"b"})
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
def test_the_short_way_leads_to_the_same_row(turns: list[int], kinds: list[dict[str, Any]]) -> None:
    """Whatever the files say, in whatever order they come."""
    with tempfile.TemporaryDirectory() as folder:
        names = put(Path(folder), [json.dumps(kinds[turn]).encode() for turn in turns])
        settings = [Settings(), Settings(priority=7), Settings(priority=7, max_retries=1)]
        slow = rows(Path(folder), names, quick=False, settings=settings)
        assert rows(Path(folder), names, quick=True, settings=settings) == slow


def test_files_that_are_alike_do_take_the_short_way(tmp_path: Path) -> None:
    """Only the first of them is looked at closely."""
    names = put(tmp_path, [b'{"command": "echo %d", "priority": 7}' % turn for turn in range(20)])
    reader = Reader(str(tmp_path))
    reader.begin(NOW, Settings())
    closely: list[str] = []
    read = reader.read

    def look(place: str, path: str) -> Found:
        closely.append(os.path.basename(path))
        return read(place, path)

    reader.read = look  # type: ignore[method-assign]
    made = reader.rows("pending", names, ())
    assert closely == ["a.json", "é.json", "con.json"]
    shown = [values[COLUMNS.index("command")] for *_, values in made if values is not None]
    assert shown == [f"echo {turn}" for turn in range(20) if turn not in (4, 5)]


@pytest.mark.parametrize(
    "data",
    [
        b'{"command": "true", "command": "false"}',
        b'{"command": "true" "x"}',
        b'{"command": "true"',
        b'\xef\xbb\xbf{"command": "true"}',
        b'{"command": "tr\\u0000ue"}',
        b'{"command": "true", "timeout": 12345678901234567890}',
        b'{"command": "true", "priority": []}',
        b'{"command": "true", "cwd": {}}',
        b"",
    ],
)
def test_what_is_odd_is_looked_at_closely(tmp_path: Path, data: bytes) -> None:
    """Even among files that are not."""
    names = put(tmp_path, [b'{"command": "true"}', data, data, b'{"command": "true"}'])
    assert rows(tmp_path, names, quick=True) == rows(tmp_path, names, quick=False)


def test_what_is_equal_is_not_always_alike(tmp_path: Path) -> None:
    """To Python 1 is True and 1.0, and only the first of them can be a priority."""
    content = [b'{"command": "true", "priority": %s}' % value for value in (b"1", b"true", b"1.0", b"1")]
    names = put(tmp_path, content)
    made = rows(tmp_path, names, quick=True)
    assert [values is not None for *_, values in made] == [True, False, False, True]
    assert made == rows(tmp_path, names, quick=False)
