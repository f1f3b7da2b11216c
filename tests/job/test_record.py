"""The record: every field wrong in every way is named, what is right comes back unchanged."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl.config.settings import Settings
from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.job import strict_json, times, zone
from queuectl.job.changes import changed
from queuectl.job.fields import is_id, is_queue, new_id

WRITTEN = st.dictionaries(
    st.sampled_from(jobs.PRODUCER_FIELDS) | st.text(max_size=8),
    st.text(max_size=40) | st.integers() | st.floats() | st.none() | st.lists(st.text()),
    max_size=12,
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
FILLED_TEXT = TEXT.filter(str.strip)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(is_id)
STARTS = st.floats(times.EARLIEST_NUMBER, times.LATEST).map(lambda moment: round(moment, 6))
MOMENTS = st.floats(0, times.LATEST).map(lambda moment: round(moment, 6))
DURATIONS = st.integers(0, 10**9) | st.floats(0, 10**9)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {
        "command": FILLED_TEXT
        | st.lists(TEXT, max_size=3).flatmap(lambda rest: FILLED_TEXT.map(lambda first: [first, *rest]))
    },
    optional={
        "id": IDS,
        "priority": st.integers(1, 10),
        "run_at": STARTS,
        "timeout": DURATIONS,
        "max_retries": st.integers(0, 1000),
        "backoff_base": st.integers(1, 100) | st.floats(1, 1e9),
        "cwd": TEXT,
        "env": st.dictionaries(FILLED_TEXT.filter(lambda name: "=" not in name), TEXT, max_size=3),
        "state": st.sampled_from(["pending", "processing", "completed", "failed", "dead"]),
        "attempts": st.integers(0, 1000),
        "created_at": MOMENTS,
        "next_retry_at": MOMENTS,
        "exit_code": st.integers(-255, 255),
        "last_error": TEXT,
        "output": TEXT,
        "crashes": st.integers(0, 5),
        "history": st.lists(st.dictionaries(TEXT, JSON_VALUES, max_size=3), max_size=3),
        "x-theirs": JSON_VALUES.filter(lambda value: value is not None),
        "tags": st.lists(
            st.from_regex(r"[A-Za-z0-9._:/@+=-]{1,64}", fullmatch=True), max_size=3, unique=True
        ),
        "hold": st.booleans(),
        "unique": FILLED_TEXT,
        "if_exists": st.sampled_from(["skip", "replace", "queue"]),
        "queue": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}", fullmatch=True).filter(is_queue),
        "needs": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_]{0,29}", fullmatch=True),
            st.integers(1, 1024),
            min_size=1,
            max_size=8,
        ),
        "jitter": st.floats(0, 1),
        "retry_on": st.lists(st.integers(0, 255), max_size=4),
        "give_up_on": st.lists(st.integers(0, 255), max_size=4),
        "expires_at": STARTS,
    },
)

WRONG: dict[str, list[Any]] = {
    "id": [
        "",
        " ",
        "a b",
        "../x",
        "/x",
        "a/b",
        "a\\b",
        ".x",
        "-x",
        "_x",
        "x.",
        "x\n",
        "ä",
        "x" * 65,
        "con",
        "CON",
        "con.txt",
        "Aux",
        "nul",
        "prn",
        "com1",
        "LPT9.json",
        True,
        ["x"],
        {"a": 1},
        1.5,
    ],
    "command": [
        "",
        "   ",
        "\n",
        5,
        1.5,
        True,
        False,
        [],
        [1],
        [""],
        ["echo", 5],
        ["echo", None],
        [["echo"]],
        {"run": "x"},
    ],
    "priority": [0, 11, -1, 99, 5.0, 1.5, "5", True, [5], {}],
    "run_at": [
        "",
        "soon",
        "tomorrow",
        "2026-13-01",
        "2026-02-30T00:00:00Z",
        "2026-01-01T25:00:00Z",
        -1,
        1e18,
        "1e9",
        True,
        [1],
        "NaN",
        "12:00",
    ],
    "timeout": [-1, -0.5, "-5", "5 lightyears", "", "s", True, [5], {}, 1e300, "99999999999d"],
    "max_retries": [-1, 1.5, 3.0, "3", True, 2**40, [3]],
    "backoff_base": [0, 0.5, -2, "2", True, [2], 1e308],
    "cwd": [5, True, ["/tmp"], {}],
    "env": [
        "A=1",
        [["A", "1"]],
        {"A": 1},
        {"A": True},
        {"A": None},
        {"": "x"},
        {"A=B": "x"},
        {"A": ["x"]},
        5,
        True,
    ],
    "state": ["", "running", "DONE", 5, True, ["pending"]],
    "attempts": [-1, 1.5, "1", True],
    "created_at": ["never", -5, True],
    "updated_at": ["never", -5, True],
    "started_at": ["never", -5, True],
    "finished_at": ["never", -5, True],
    "next_retry_at": ["never", -5, True],
    "duration": ["1s", True, [1]],
    "exit_code": [1.5, "0", True, 2**40],
    "last_error": [5, True, ["x"]],
    "output": [5, True, ["x"]],
    "worker": [5, True, {}],
    "default_timeout": ["20", True, []],
    "crashes": [-1, "1", True],
    "max_backoff": [-1, "never", True],
    "jitter": [-0.1, 1.1, "0.5", True, [0.5]],
    "retry_on": [1, "1", [-1], [256], ["1"], [True], [1.0], {}, list(range(65))],
    "give_up_on": [100, "100", [-1], [256], ["1"], [None], {}],
    "expires_at": ["never", -1, True, "", [5]],
    "tags": [
        "nightly",
        [5],
        [""],
        ["a b"],
        ["a,b"],
        ["ä"],
        ["x" * 65],
        {},
        [[]],
        [f"t{n}" for n in range(33)],
    ],
    "hold": [0, 1, "true", "yes", []],
    "unique": ["", " ", 5, True, ["x"], "x" * 201],
    "if_exists": ["", "wait", True, 5, ["skip"]],
    "queue": ["", "a b", "-a", "_a", "a.b", "ä", "x" * 31, "con", "mail\n", 5, True, ["mail"]],
    "after": (
        _PARENTS := [
            "",
            [],
            ["a b"],
            ["batch:"],
            ["batch:x=-1"],
            ["batch:x=x"],
            ["batch:x="],
            [1],
            {"a": 1},
            5,
            True,
            "a b",
        ]
    ),
    "after_any": _PARENTS,
    "after_failure": _PARENTS,
    "if_blocked": ["", "skip", True, 1, ["dead"]],
    "batch": ["", "a b", "a=b", "x" * 65, "ä", 5, True, ["x"]],
    "not_run": [5, True, ["x"]],
    "rule": ["", "a b", "-a", "a.b", "x" * 31, "con", 5, True, ["nightly"]],
    "scheduled_for": ["", "soon", "1830", 5, True, ["2031-01-01T02:00:00+01:00"]],
    "source": [5, True, ["/srv/scans/a.pdf"]],
    "event": ["", "failed", "completed", 5, True, ["dead"]],
    "about": [5, True, ["job1"]],
    "needs": [
        {},
        [],
        "gpu=1",
        {"gpu": 0},
        {"gpu": -1},
        {"gpu": 1025},
        {"gpu": "2"},
        {"gpu": 1.0},
        {"gpu": True},
        {"gpu": None},
        {"": 1},
        {"Gpu": 1},
        {"1gpu": 1},
        {"g-pu": 1},
        {"g" * 31: 1},
        {f"r{number}": 1 for number in range(9)},
    ],
    "on_crash": ["", "later", "RUN", 5, True, ["run"]],
    "history_left_out": [-1, 2**31 + 1, 1.5, True, "5", []],
    "history": ["x", {}, [1], ["x"], [[]], 5],
}


def as_file(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def refusal(data: bytes | str | dict[str, Any]) -> InvalidJob:
    if isinstance(data, dict):
        data = as_file(data)
    with pytest.raises(InvalidJob) as caught:
        jobs.parse(data.encode() if isinstance(data, str) else data)
    told = str(caught.value)
    assert "\n" not in told
    assert len(told) < 300, told
    return caught.value


# -- fields --------------------------------------------------------------------------------------------------------


def test_the_table_of_wrong_values_has_every_field() -> None:
    """A field added to the record gets its wrong values here."""
    assert set(WRONG) == set(jobs.Job.__match_args__) - set(jobs.NOT_IN_FILE)


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in WRONG.items() for value in values],
    ids=lambda v: repr(v)[:30],
)
def test_a_wrong_value_is_refused_and_the_field_named(field: str, value: Any) -> None:
    """Out of range, of the wrong type, or true where a number belongs: the reader learns which field it is."""
    error = refusal({"command": "true", field: value})
    assert error.field == field
    assert f"{field}: " in str(error)


@pytest.mark.parametrize("command", ['{"id": "x"}', '{"command": null}', "{}"])
def test_a_job_says_what_to_run(command: str) -> None:
    """Without a command there is no job."""
    assert refusal(command).field == "command"


@pytest.mark.parametrize("field", [name for name in WRONG if name != "command"])
def test_null_means_not_given(field: str) -> None:
    """Many tools write null for what they leave out."""
    job = jobs.parse(as_file({"command": "true", field: None}))
    assert getattr(job, field) == getattr(jobs.Job(), field)


@pytest.mark.parametrize(
    ("field", "given_value", "expected"),
    [
        ("timeout", 0, 0),
        ("timeout", "10m", 600),
        ("timeout", "1.5s", 1.5),
        ("timeout", 0.25, 0.25),
        ("max_retries", 0, 0),
        ("backoff_base", 1, 1),
        ("backoff_base", 1.5, 1.5),
        ("priority", 1, 1),
        ("priority", 10, 10),
        ("run_at", 0, 0.0),
        ("run_at", 1800000000, 1800000000.0),
        ("run_at", "1800000000.5", 1800000000.5),
        ("run_at", "2027-01-15T08:00:00Z", 1800000000.0),
        ("run_at", "2027-01-15T09:00:00+01:00", 1800000000.0),
        ("run_at", "2027-01-15 08:00:00.250+00:00", 1800000000.25),
        ("state", "done", "completed"),
        ("command", ["echo", ""], ["echo", ""]),
        ("env", {}, {}),
        ("tags", ["a", "b", "a"], ["a", "b"]),
        ("retry_on", [], []),
        ("hold", False, False),
        ("expires_at", "2027-01-15T08:00:00Z", 1800000000.0),
    ],
)
def test_what_is_right_is_kept(field: str, given_value: Any, expected: Any) -> None:
    """An explicit 0 is a value and not a gap; times come in with and without an offset."""
    assert getattr(jobs.parse(as_file({"command": "true", field: given_value})), field) == expected


def test_a_time_without_an_offset_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person at this machine means it, whatever the TZ of whoever reads it."""
    monkeypatch.setattr(zone, "LOCALTIME", "/usr/share/zoneinfo/Asia/Kolkata")
    job = jobs.parse(as_file({"command": "true", "run_at": "2027-01-15T13:30:00"}))
    assert job.run_at == 1800000000.0


def test_an_explicit_zero_survives_the_settings() -> None:
    """Settings fill gaps, and only gaps."""
    job = jobs.parse(b'{"command": "true", "timeout": 0, "max_retries": 0}')
    job.fill_in(Settings(timeout=99, max_retries=9, priority=7))
    assert (job.timeout, job.max_retries, job.priority) == (0, 0, 7)
    assert job.runs_allowed == 1


# -- bytes ---------------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "blank": (b" \r\n\t", "empty"),
    "NUL-filled": (b"\0" * 4096, "NUL"),
    "half": (b'{"command": "echo', "not JSON"),
    "no object": (b'["echo"]', "object"),
    "text": (b'"echo"', "object"),
    "number": (b"5", "object"),
    "shell": (b"echo hi\n", "not JSON"),
    "yaml": (b"command: echo hi\n", "not JSON"),
    "two objects": (b'{"command": "a"}{"command": "b"}', "not JSON"),
    "tail": (b'{"command": "a"} x', "not JSON"),
    "NUL tail": (b'{"command": "a"}' + b"\0" * 100, "not JSON"),
    "trailing comma": (b'{"command": "a",}', "not JSON"),
    "comment": (b'{"command": "a" /* x */}', "not JSON"),
    "single quotes": (b"{'command': 'a'}", "not JSON"),
    "UTF-16 little": ('\ufeff{"command": "a"}'.encode("utf-16-le"), "UTF-16"),
    "UTF-16 big": ('\ufeff{"command": "a"}'.encode("utf-16-be"), "UTF-16"),
    "UTF-16 without a mark": ('{"command": "a"}'.encode("utf-16-le"), ""),
    "latin-1": ('{"command": "ä"}'.encode("latin-1"), "UTF-8"),
    "overlong": (b'{"command": "\xc0\xaf"}', "UTF-8"),
    "surrogates in UTF-8": (b'{"command": "\xed\xa0\x80"}', "UTF-8"),
    "duplicate": (b'{"command": "a", "command": "b"}', "twice"),
    "duplicate, spelt otherwise": (b'{"command": "a", "c\\u006fmmand": "b"}', "twice"),
    "duplicate inside": (b'{"command": "a", "env": {"A": "1", "A": "2"}}', "twice"),
    "duplicate behind a backslash": (b'{"command": "a", "command": "b", "k\\\\":1}', "twice"),
    "duplicate beside a blank": (b'{"command" : "a", "command":"b"}', "twice"),
    "NaN": (b'{"command": "a", "x": NaN}', "NaN"),
    "Infinity": (b'{"command": "a", "timeout": -Infinity}', "Infinity"),
    "1e999": (b'{"command": "a", "x": 1e999}', "too large"),
    "5000 digits": (b'{"command": "a", "x": ' + b"9" * 5000 + b"}", "digits"),
    "70 bits": (b'{"command": "a", "x": ' + str(2**70).encode() + b"}", "64 bits"),
    "deep lists": (b'{"command": "a", "x": ' + b"[" * 100_000, "nested"),
    "deep objects": (b'{"x":' * 50_000, "nested"),
    "33 deep": (b'{"command": "a", "x": ' + b"[" * 32 + b"]" * 32 + b"}", "nested"),
    "half a surrogate": (b'{"command": "\\ud800"}', "surrogate"),
    "half a surrogate in a key": (b'{"command": "a", "\\udc00": 1}', "surrogate"),
    "NUL inside": (b'{"command": "a\\u0000b"}', "NUL"),
    "NUL in a list": (b'{"command": ["a", "\\u0000"]}', "NUL"),
    "raw NUL": (b'{"command": "a\0b"}', "not JSON"),
    "raw newline": (b'{"command": "a\nb"}', "not JSON"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_in_plain_words(what: str) -> None:
    """Quickly, in one line, and never by a traceback."""
    data, told = BROKEN[what]
    began = time.monotonic()
    error = refusal(data)
    assert time.monotonic() - began < 1
    assert told in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"command": "echo hi"}',
        b'\xef\xbb\xbf{\r\n  "command": "echo hi"\r\n}\r\n',
        b'\n\t {"command": "echo hi"}\n\n',
        b'{"comm\\u0061nd": "echo hi"}',
        b'{"command" : "echo hi" , "x" : [ { } ] }',
    ],
)
def test_json_as_tools_write_it_is_read(data: bytes) -> None:
    """PowerShell's BOM and CRLF, blanks, escapes."""
    assert jobs.parse(data).command == "echo hi"


def test_brackets_in_a_command_are_no_nesting() -> None:
    """A shell script may have any number of them."""
    command = 'if [[ -n "$x" ]]; then echo ' + "[{" * 500 + "\\; fi"
    assert jobs.parse(as_file({"command": command})).command == command


def test_a_pair_of_surrogates_is_one_character() -> None:
    """Python's own json.dumps writes an emoji so."""
    assert jobs.parse(b'{"command": "\\ud83d\\ude00"}').command == "😀"


LOOSE_JSON = st.recursive(
    st.sampled_from(
        [
            "1",
            "true",
            "null",
            '"a"',
            '"\\\\"',
            '"\\":"',
            '"x\\\\\\":"',
            "0.5",
            "[]",
            "{}",
            '"a":',
            "1e5",
            "-0",
            "1e999",
            "-1e400",
            "9007199254740993",
            "-9223372036854775809",
            "18446744073709551615",
            "123456789012345678901234567890",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]")
        | st.lists(
            st.tuples(st.sampled_from(['"a"', '"b"', '"k\\\\"', '"a\\":"', '"\\u0061"', '"a" ']), inner),
            max_size=4,
        ).map(lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}")
    ),
    max_leaves=10,
)


@given(LOOSE_JSON)
@example('{"a":1,"a":2,"k\\\\":3}')
@example('{"a" :1,"a":2}')
@example('{"a"\t:1,"a":2}')
@example('{"a"\n:1,"a":2}')
@example('{"a"\r:1,"a":2}')
@example('{"a":123456789012345678901234567890}')
@example('{"a":[-9223372036854775809]}')
@example('{"a":1e999}')
@example('{\n  "a": 18446744073709551615\n}\n')
@example('{\n  "a": 1,\n  "a": 1\n}\n')
@example('{\n  "a": [\n    -9223372036854775809\n  ]\n}\n')
def test_the_fast_reader_takes_nothing_that_the_strict_one_refuses(text: str) -> None:
    """Two readers that differ would be a way around every check."""
    fast = strict_json.load_simple(text.encode())
    if fast is not None:
        assert fast == strict_json._load_strictly(text.encode())


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_bring_the_reader_down(data: bytes) -> None:
    """Whatever lies there, it is a job or an InvalidJob."""
    try:
        jobs.parse(data)
    except InvalidJob:
        return


# -- round trips ---------------------------------------------------------------------------------------------------


@given(RECORDS)
def test_any_valid_job_comes_back_as_it_was(record: dict[str, Any]) -> None:
    """Written and read again it is the same job, unknown fields included, and the file is whole JSON."""
    job = jobs.parse(as_file(record))
    data = job.to_bytes()
    again = jobs.parse(data)
    assert again == job
    assert again.to_bytes() == data
    written = json.loads(data)
    for name, value in record.items():
        if name in jobs._BLANK_IS_DEFAULT and not value:
            continue
        if name in jobs._MOMENTS:
            assert times.parse_moment(written[name]) == pytest.approx(value, abs=2e-6)
        else:
            assert written[name] == value


@given(st.dictionaries(st.sampled_from(list(WRONG)), JSON_VALUES, max_size=4), RECORDS)
def test_whatever_is_accepted_can_be_written(odd: dict[str, Any], record: dict[str, Any]) -> None:
    """A job that could be read but not written would end the worker that settles it."""
    try:
        job = jobs.parse(as_file({**record, **odd}))
    except InvalidJob:
        return
    job.fill_in(Settings())
    assert jobs.parse(job.to_bytes()) == job


def test_unknown_fields_are_kept() -> None:
    """Somebody else's note stays in the file, whatever it is, and behind our own fields."""
    theirs = {"ticket": 17, "who": {"name": "Ada", "tags": ["x", None, 1.5]}, "ünï": "ä", "attempt": 9}
    job = jobs.parse(as_file({**theirs, "command": "true"}))
    assert job.extra == theirs
    written = json.loads(job.to_bytes())
    assert {name: written[name] for name in theirs} == theirs
    assert next(iter(written)) == "command"


def test_the_file_is_for_human_eyes() -> None:
    """Indented, in UTF-8 as it is spoken, ending in a newline, with nothing that is not given."""
    data = jobs.parse(as_file({"id": "x", "command": "echo ä"})).to_bytes()
    assert (
        data.decode()
        == '{\n  "id": "x",\n  "command": "echo ä",\n  "state": "pending",\n  "attempts": 0\n}\n'
    )


def test_renewing_keeps_the_history_and_drops_the_outcome() -> None:
    """Run again means fresh attempts; what happened stays told."""
    job = jobs.Job(
        id="x", command="true", state="dead", attempts=3, crashes=2, next_retry_at=5.0, exit_code=1, last_error="no",
        output="out", duration=1.0, started_at=1.0, finished_at=2.0, worker="worker-0", history=[{"run": 1}], priority=8,
        created_at=1.0, run_at=3.0,
    )  # fmt: skip
    job.renew(0)
    expected = jobs.Job(id="x", command="true", history=[{"run": 1}], priority=8, created_at=1.0, run_at=3.0)
    assert job == expected


# -- times ---------------------------------------------------------------------------------------------------------


@given(MOMENTS, MOMENTS)
@example(1800000000.0, 1800000000.000001)
@example(1799999999.9999995, 1800000000.0)
@example(0.0, times.LATEST)
def test_times_have_one_width_so_that_text_order_is_time_order(one: float, other: float) -> None:
    """Around whole seconds, too."""
    texts = times.iso(one), times.iso(other)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text) for text in texts)
    if abs(one - other) > 1e-4:
        assert (texts[0] < texts[1]) == (one < other)
    assert times.parse_moment(texts[0]) == pytest.approx(one, abs=1e-4)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_time_is_read_as_it_is_meant(when: datetime) -> None:
    """To the microsecond, with any offset."""
    seconds = (when - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    assert times.parse_moment(when.isoformat()) == pytest.approx(seconds, abs=1e-4)
    assert times.parse_moment(when.isoformat().replace("+00:00", "Z")) == times.parse_moment(when.isoformat())


# -- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "A",
        "0",
        "a" * 64,
        "job.v1-2_x",
        "9.json",
        "console",
        "con-1",
        "com10",
        "x..y",
        "a-",
        "a_",
        "nulls",
    ],
)
def test_an_id_may_be(text: str) -> None:
    """1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit."""
    assert is_id(text)
    assert jobs.parse(as_file({"id": text, "command": "true"})).id == text


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9./\\_-]{1,70}", fullmatch=True))
def test_an_id_is_always_a_safe_file_name(text: str) -> None:
    """On any system, and nowhere but in its folder."""
    if is_id(text):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text)
        assert text[0] not in ".-_"
        assert not text.endswith(".")
        assert text.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


def test_generated_ids_differ_and_sort_by_time() -> None:
    """A thousand in one second are a thousand; a later second sorts behind."""
    now = [new_id(1800000000.0) for _ in range(1000)]
    assert len(set(now)) == 1000
    assert max(now) < min(new_id(1800000001.0) for _ in range(100))
    assert all(is_id(text) for text in now)


def test_the_writer_of_the_file_and_python_agree_on_json() -> None:
    """Whatever orjson writes, the standard library reads the same."""
    job = jobs.parse(as_file({"command": "x", "deep": {"a": [1, 2.5, None, True, "\u2028"]}}))
    assert json.loads(job.to_bytes()) == orjson.loads(job.to_bytes()) == job.to_dict()


@given(WRITTEN)
@example({"command": 'python -c "print(1)" \\ ü €'})
@example({"command": "a\tb", "id": "x"})
@example({"big": 2**63})
@example({"big": -(2**63), "no": 2**64})
@example({'na"me': "x"})
@example({"half": "\ud800"})
def test_what_is_written_without_a_library_is_the_same(record: dict[str, Any]) -> None:
    """A lone enqueue does not load orjson: then the bytes are those that orjson would write, or it is loaded."""
    plain = jobs._simple_json(record)

    if plain is not None:
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        assert not record or plain.encode() == orjson.dumps(record, option=option)
        assert record or plain == "{\n\n}\n"


def test_a_field_without_a_name_is_left_to_the_library() -> None:
    """From a program anything may come as a name; what is wrong with it is said in one way."""
    assert jobs._simple_json({1: "x"}) is None


def test_plain_jobs_need_no_library() -> None:
    """What most people enqueue is written without it."""
    assert jobs._simple_json({"command": "python -c 'print(\"ü\")' > out.txt", "priority": 5}) is not None


def test_a_change_adds_to_what_a_person_wrote_as_one_text() -> None:
    """`after: extract` in a dropped file is a list of one. It was lost when another was added."""
    data = b'{"command": "true", "after": "extract"}'
    assert changed(data, {"after+": ["fetch"]}).after == ["extract", "fetch"]
    assert changed(data, {"after-": ["extract"]}).after is None


def test_a_batch_is_taken_away_whatever_its_count() -> None:
    """`after-=batch:parts` was answered with `changed`, and changed nothing."""
    data = b'{"command": "true", "after": ["batch:parts=3", "batch:parts2"], "tags": ["a=b"]}'
    assert changed(data, {"after-": ["batch:parts"], "tags-": ["a"]}).after == ["batch:parts2"]
    assert changed(data, {"tags-": ["a"]}).tags == ["a=b"]


@pytest.mark.parametrize(
    ("ends", "recovered"),
    [
        ("succeeded", False),
        ("failed succeeded", True),
        ("timed_out stopped succeeded", True),
        ("succeeded succeeded", False),
        ("failed succeeded succeeded", False),
        ("cancelled succeeded", False),
        ("interrupted succeeded", False),
        ("interrupted interrupted succeeded", True),
        ("failed failed", False),
    ],
)
def test_a_job_has_recovered_only_after_a_run_that_failed(ends: str, *, recovered: bool) -> None:
    """A worker that died once, or was stopped, is no fault of the job."""
    job = jobs.Job(id="a", history=[{"outcome": end} for end in ends.split()])

    assert job.has_recovered is recovered
