"""Settings: which are in force, what is refused, and changes that lose nothing."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from queuectl.config import file
from queuectl.config.change import set_value, unset_value
from queuectl.config.keys import KEYS, as_text, normalise
from queuectl.config.settings import Settings, load
from queuectl.errors import ConfigError
from queuectl.layout import Layout

from support import wait_until

REPOSITORY = Path(__file__).parents[2]


def write(layout: Layout, text: str, name: str = "config.yaml") -> Path:
    path = Path(layout.root, name)
    path.write_bytes(text.encode())
    return path


def settings(layout: Layout) -> dict[str, Any]:
    """What differs from the built-in values."""
    found, plain = load(layout)[0], Settings()
    return {key: getattr(found, key) for key in KEYS if getattr(found, key) != getattr(plain, key)}


def test_without_a_file_the_built_in_values_are_in_force(layout: Layout) -> None:
    """And the table of keys says the same defaults as the settings, in the same order."""
    assert load(layout) == (Settings(), [])
    assert {key.name: key.default for key in KEYS.values()} == {
        name: getattr(Settings(), name) for name in Settings.__match_args__
    }
    assert list(KEYS) == list(Settings.__match_args__)


@pytest.mark.parametrize("text", ["", "# nothing but words\n", "---\n", "null\n", "{}\n", "\ufeff"])
def test_an_empty_file_says_nothing(layout: Layout, text: str) -> None:
    """A file of comments is no error, and can be added to."""
    write(layout, text)
    assert load(layout) == (Settings(), [])

    if text != "null\n":
        set_value(layout, "priority", "7")
        assert settings(layout) == {"priority": 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timeout: 30s\nmax_backoff: 2h\n", {"timeout": 30, "max_backoff": 7200}),
        ("log_limit: 10K\noutput_limit: 1k\n", {"log_limit": 10240, "output_limit": 1024}),
        ("log_limit: 1.5MiB\n", {"log_limit": 3 << 19}),
        ("log_limit: 0\n", {"log_limit": 0}),
        ("max-retries: 0\ntimeout: 0\n", {"max_retries": 0, "timeout": 0}),
        ("backoff_base: 1.5 # slower\n", {"backoff_base": 1.5}),
        ("worker_count:\npriority: 1\n", {"priority": 1}),
        ("worker_count: 4\r\npriority: 1\r\n", {"worker_count": 4, "priority": 1}),
        ('{"timeout": "1m", "Max-Retries": 7}', {"timeout": 60, "max_retries": 7}),
        ("timeout: 0.25", {"timeout": 0.25}),
        ("resources: memory=64, gpu=2\n", {"resources": {"gpu": 2, "memory": 64}}),
        (
            "resources: {gpu: 2}\nbetween_queues: turns\n",
            {"resources": {"gpu": 2}, "between_queues": "turns"},
        ),
        ("resources: none\n", {}),
    ],
)
def test_values_are_read_with_their_units(layout: Layout, text: str, expected: dict[str, Any]) -> None:
    """Durations, sizes, an explicit zero, and either spelling of a key."""
    write(layout, text)

    assert settings(layout) == expected
    assert load(layout)[1] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_retries", "-1"),
        ("max_retries", "2.5"),
        ("max_retries", "many"),
        ("max_retries", "true"),
        ("backoff_base", "0.5"),
        ("backoff_base", "1e999"),
        ("max_backoff", "-3"),
        ("timeout", "1 fortnight"),
        ("timeout", ".nan"),
        ("priority", "99"),
        ("priority", "0"),
        ("worker_count", "0"),
        ("stop_timeout", "[]"),
        ("kill_grace", "soon"),
        ("crash_limit", "0"),
        ("log_limit", "-1"),
        ("log_limit", "10X"),
        ("output_limit", "1G"),
        ("settle_time", "2001-01-01"),
        ("durability", "most"),
        ("durability", "1"),
        ("resources", "gpu"),
        ("resources", "GPU=2"),
        ("resources", "gpu=-1"),
        ("resources", "gpu=two"),
        ("resources", "gpu=1.5"),
        ("resources", "gpu=1 gpu=2"),
        ("resources", "gpu=10001"),
        ("resources", "64"),
        ("between_queues", "fair"),
    ],
)
def test_a_bad_value_is_refused_and_named(layout: Layout, key: str, value: str) -> None:
    """From a file: the file, its line and the key; from the command line: the key. The file stays as it was."""
    path = write(layout, f"# mine\n{key}: {value}\n")

    with pytest.raises(ConfigError, match=f"{path}, line 2: {key}: "):
        load(layout)
    with pytest.raises(ConfigError, match=f"^{key}: "):
        set_value(layout, key, value)
    assert path.read_text() == f"# mine\n{key}: {value}\n"


def test_a_bad_value_in_the_file_can_be_mended_with_set(layout: Layout) -> None:
    """The hint of the error can be typed, and it helps."""
    path = write(layout, "timeout: soon # hm\n")
    with pytest.raises(ConfigError) as refused:
        load(layout)
    assert refused.value.hint == "queuectl config set timeout 20"

    set_value(layout, "timeout", "20")

    assert path.read_text() == "timeout: 20 # hm\n"


@pytest.mark.parametrize("key", ["max_retries", "max-retries", "MAX_RETRIES", " Max-Retries "])
def test_either_spelling_is_the_same_key(layout: Layout, key: str) -> None:
    """`max-retries` written and `max_retries` read must meet."""
    assert normalise(key) == "max_retries"
    assert set_value(layout, key, "5") == 5
    assert settings(layout) == {"max_retries": 5}


def test_an_unknown_key_is_refused_with_the_nearest_one(layout: Layout) -> None:
    """And nothing is written."""
    with pytest.raises(ConfigError, match=r"unknown setting 'timeuot'; did you mean timeout\?"):
        set_value(layout, "timeuot", "30")
    with pytest.raises(ConfigError, match=r"unknown setting 'qqq'$"):
        unset_value(layout, "qqq")
    assert not Path(layout.config_yaml).exists()


def test_an_unknown_key_in_the_file_is_a_warning(layout: Layout) -> None:
    """A typo is told with its line, and does not stop the queue."""
    path = write(layout, "priority: 7\nmax_retrys: 5\n")

    found, warnings = load(layout)

    assert found.priority == 7
    assert warnings == [f"{path}, line 2: unknown setting 'max_retrys'; did you mean max_retries?"]


def test_a_key_that_stands_twice_is_a_warning(layout: Layout) -> None:
    """The last one counts, set changes that one, unset takes all of them away."""
    path = write(layout, "max-retries: 1\npriority: 2\nmax_retries: 4\n")

    assert settings(layout) == {"max_retries": 4, "priority": 2}
    assert load(layout)[1] == [f"{path}, line 3: max_retries stands twice, the last one counts"]
    set_value(layout, "max_retries", "9")
    assert settings(layout) == {"max_retries": 9, "priority": 2}
    unset_value(layout, "max_retries")
    assert path.read_text() == "priority: 2\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("timeout: 5\npriority: [1\n", 3),
        ("timeout: 5\n\tpriority: 1\n", 2),
        ("just words\n", 1),
        ("# a\n- timeout\n- 5\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("timeout: *nobody\n", 1),
        ("timeout: !!python/object:os.system {}\n", 1),
        ("timeout: 5\n? [1]\n: 2\n{", 4),
    ],
)
def test_what_is_no_yaml_is_told_with_file_and_line(layout: Layout, text: str, line: int) -> None:
    """One line of fact, from load and from set, and the file is not touched."""
    path = write(layout, text)

    with pytest.raises(ConfigError, match=f"^{path}, line {line}: .+") as refused:
        load(layout)
    assert "\n" not in refused.value.message
    with pytest.raises(ConfigError, match=f"^{path}, line {line}"):
        set_value(layout, "timeout", "7")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"timeout: 5\n# caf\xe9\n", "line 2: not UTF-8"),
        (b"timeout: \x01\n", "not YAML"),
        (b"[" * 5000, "not YAML"),
        (b"#" * (2 << 20), "too large"),
    ],
)
def test_rubbish_is_told_in_one_line(layout: Layout, data: bytes, told: str) -> None:
    """No traceback, whatever lies there."""
    Path(layout.config_yaml).write_bytes(data)

    with pytest.raises(ConfigError, match=told) as refused:
        load(layout)
    assert layout.config_yaml in refused.value.message
    assert "\n" not in refused.value.message


def test_a_folder_in_the_place_of_the_file_is_told(layout: Layout) -> None:
    """It cannot be read, and the reason is there."""
    Path(layout.config_yaml).mkdir()

    with pytest.raises(ConfigError, match=r"cannot read .*config\.yaml"):
        load(layout)


def test_json_alone_is_used_and_edited_as_json(layout: Layout) -> None:
    """Who keeps config.json keeps it; no second file appears beside it."""
    path = write(layout, '{"max-retries": 4, "mine": {"a": [1]}}', "config.json")

    set_value(layout, "max_retries", "6")
    set_value(layout, "timeout", "10m")

    assert json.loads(path.read_text()) == {"max-retries": 6, "mine": {"a": [1]}, "timeout": "10m"}
    assert settings(layout) == {"max_retries": 6, "timeout": 600}
    unset_value(layout, "timeout")
    assert settings(layout) == {"max_retries": 6}
    assert not Path(layout.config_yaml).exists()


def test_broken_json_is_told_with_its_line(layout: Layout) -> None:
    """The same courtesy as for YAML."""
    path = write(layout, '{\n  "timeout": 5,\n}', "config.json")
    with pytest.raises(ConfigError, match=rf"^{path}, line [23]: not JSON"):
        load(layout)

    write(layout, "[1]", "config.json")
    with pytest.raises(ConfigError, match="an object"):
        load(layout)


def test_with_both_files_yaml_wins_with_a_warning(layout: Layout) -> None:
    """Neither reading nor setting touches the JSON then."""
    write(layout, "priority: 7\n")
    path = write(layout, '{"priority": 2}', "config.json")

    assert load(layout)[0].priority == 7
    assert load(layout)[1] == ["config.yaml and config.json are both there: config.yaml is used"]
    set_value(layout, "priority", "8")
    assert load(layout)[0].priority == 8
    assert path.read_text() == '{"priority": 2}'


def test_set_keeps_comments_order_and_spelling(layout: Layout) -> None:
    """Only the value changes; a new key goes below the line that has it commented out."""
    path = write(
        layout,
        "# top\n\nmax-retries:   3   # why\ntimeout: 20\n# worker_count: 2\n\n# tail\n",
    )

    set_value(layout, "max_retries", "8")
    set_value(layout, "timeout", "1h")
    set_value(layout, "worker_count", "4")
    set_value(layout, "priority", "6")

    assert path.read_text() == (
        "# top\n\nmax-retries:   8   # why\ntimeout: 1h\n# worker_count: 2\nworker_count: 4\n\n# tail\npriority: 6\n"
    )
    unset_value(layout, "worker_count")
    unset_value(layout, "timeout")
    assert path.read_text() == "# top\n\nmax-retries:   8   # why\n# worker_count: 2\n\n# tail\npriority: 6\n"


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("priority: 3", "priority: 3\ntimeout: 9\n"),
        ("priority: 3\r\n", "priority: 3\r\ntimeout: 9\r\n"),
        ("timeout:\npriority: 3\n", "timeout: 9\npriority: 3\n"),
        ("  priority: 3\n", "  priority: 3\n  timeout: 9\n"),
        ('"timeout": >-\n  5\n  \npriority: 3\n', '"timeout": 9\npriority: 3\n'),
        ("{priority: 3}\n", '{priority: 3, "timeout": 9}\n'),
        ('{\n  "priority": 3\n}\n', '{\n  "priority": 3,\n  "timeout": 9\n}\n'),
        (
            "x: |\n  # timeout: 3\n  more\npriority: 3\n",
            "x: |\n  # timeout: 3\n  more\npriority: 3\ntimeout: 9\n",
        ),
    ],
)
def test_set_copes_with_how_people_write(layout: Layout, text: str, after: str) -> None:
    """Missing newlines, Windows line ends, braces, empty values, indented keys."""
    path = write(layout, text)

    set_value(layout, "timeout", "9")

    assert path.read_bytes().decode() == after
    assert settings(layout) == {"priority": 3, "timeout": 9}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("{timeout: 9, priority: 3}\n", "{priority: 3}\n"),
        ("{priority: 3, timeout: 9}\n", "{priority: 3}\n"),
        ("timeout:\n  9\npriority: 3", "priority: 3"),
        ("priority: 3\ntimeout: 9 # c", "priority: 3\n"),
    ],
)
def test_unset_takes_out_the_entry_and_no_more(layout: Layout, text: str, after: str) -> None:
    """The neighbours stay, in braces too."""
    path = write(layout, text)

    unset_value(layout, "timeout")

    assert path.read_text() == after
    unset_value(layout, "timeout")
    assert path.read_text() == after


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n...\n", "timeout: &x 5\nkill_grace: *x\n"])
def test_what_cannot_be_changed_safely_is_left_to_people(layout: Layout, text: str) -> None:
    """An edit that does not read back as wanted is not written."""
    path = write(layout, text)

    with pytest.raises(ConfigError, match="edit it by hand"):
        set_value(layout, "timeout", "9")
    assert path.read_text() == text


def test_a_link_to_a_settings_file_stays_a_link(layout: Layout) -> None:
    """Who keeps settings in a folder of dotfiles finds the change there."""
    real = Path(layout.root).parent / "dotfile.yaml"
    real.write_text("priority: 3\n")
    Path(layout.config_yaml).symlink_to(real)

    set_value(layout, "priority", "4")

    assert Path(layout.config_yaml).is_symlink()
    assert real.read_text() == "priority: 4\n"


def test_the_first_set_makes_the_spool_and_a_private_file(spool_dir: Path) -> None:
    """There is no init step, and nothing else is left behind."""
    layout = Layout(spool_dir)

    assert set_value(layout, "log_limit", "2M") == 2 << 20

    assert Path(layout.config_yaml).read_text() == "log_limit: 2M\n"
    assert Path(layout.config_yaml).stat().st_mode & 0o777 == 0o600
    assert [name for name in spool_dir.iterdir() if name.name.startswith(".")] == []


def run(layout: Layout, code: str, *args: str) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from queuectl.config.change import *; from queuectl.config.settings import *; from queuectl.layout import Layout;"
        f"layout = Layout(sys.argv[1]); {code}"
    )
    return subprocess.Popen([sys.executable, "-c", program, layout.root, *args], cwd=REPOSITORY)


def test_twenty_sets_at_once_all_take_effect(layout: Layout) -> None:
    """Different keys from twenty processes: each is there in the end, and the comments are too."""
    write(layout, "# keep me\n")
    wanted = {key: 7 if key == "priority" else 11 for key in KEYS}
    wanted |= {"incoming": "/drop", "incoming_users": "alice bob", "durability": "none"}  # type: ignore[dict-item]
    wanted |= {"resources": {"gpu": 2, "memory": 64}, "between_queues": "turns"}  # type: ignore[dict-item]
    wanted |= {"jitter": 0.5, "retry_on": [111, 75], "give_up_on": [100]}  # type: ignore[dict-item]
    wanted |= {"engine": "slurm", "slurm_dir": "/shared", "slurm_options": ["--qos=low"]}  # type: ignore[dict-item]
    wanted |= {"slurm_fence": 30}
    pairs = [(key, as_text(value)) for key, value in wanted.items()]
    pairs.extend(pairs[: max(0, 20 - len(pairs))])

    running = [run(layout, "set_value(layout, *sys.argv[2:])", *pair) for pair in pairs]

    assert {process.wait(50) for process in running} == {0}
    assert settings(layout) == wanted
    assert Path(layout.config_yaml).read_text().startswith("# keep me\n")


def test_a_kill_never_leaves_half_a_file(layout: Layout) -> None:
    """At whatever moment a writer dies, readers find the old settings or the new ones, whole."""
    path = write(layout, "# keep me\npriority: 1\ntimeout: 5\n")
    writer = "[set_value(layout, 'priority', str(n % 10 + 1)) for n in range(10**9)]"
    for n in range(8):
        before = path.stat().st_ino
        process = run(layout, writer)
        wait_until(lambda old=before: path.stat().st_ino != old)  # type: ignore[misc]
        for _ in range(n * 3):
            assert load(layout)[0].timeout == 5
        process.kill()
        process.wait()

        assert load(layout)[0].timeout == 5
        assert path.read_text().startswith("# keep me\n")
        set_value(layout, "priority", "3")


def loads_yaml(layout: Layout) -> bool:
    return run(layout, "load(layout); sys.exit('yaml' in sys.modules)").wait(20) == 1


def test_a_plain_file_is_read_without_yaml(layout: Layout) -> None:
    """An enqueue does not pay more for yaml than for the job; what is not plain gets the real parser."""
    assert not loads_yaml(layout)
    write(layout, "# settings\n\npriority: 7 # x\ntimeout: 30s\nbackoff_base: 1.5\n")
    assert not loads_yaml(layout)
    write(layout, "priority: '7'\n")
    with pytest.raises(ConfigError):
        load(layout)
    write(layout, "priority: 0x7\n")
    assert loads_yaml(layout)


KEY_TEXTS = ["priority", "timeout", "max-retries", "x_y", "null", "'timeout'", "- a", ""]
GAPS = [": ", ":   ", ":", " : "]
VALUE_TEXTS = [
    "0",
    "07",
    "7",
    "1.5",
    "1.",
    "30s",
    "10M",
    "100/1h",
    "gpu=2 memory=64",
    "1_000",
    "1e3",
    "-",
    "yes",
    "1:30",
    "'8'",
    "{a:1}",
    "[",
    "|",
    "~",
]
ENDS = ["", " ", " # é", "#", "\t# x", "\u2028", " # \x85y: 1", " # \u2028", "\r", "\n---"]
OTHER_LINES = ["", "# words", "  # timeout: 3", "---", "...", "  ", "{", "#\u2029y: 1"]
LINES = ["".join(parts) for parts in itertools.product(KEY_TEXTS, GAPS, VALUE_TEXTS, ENDS)]


@pytest.mark.parametrize("before", ["", "x: 2\n"])
def test_the_short_reader_agrees_with_yaml(before: str) -> None:
    """Whatever line it takes on, it reads as yaml does; all else it leaves to yaml."""
    taken = 0
    for line in LINES + OTHER_LINES:
        short = file._simple_entries(before + line)
        if short is not None:
            taken += 1
            assert {entry.name: entry.value for entry in short} == (yaml.safe_load(before + line) or {}), line
    assert 50 < taken < len(LINES) / 10


@given(
    st.lists(st.sampled_from(LINES + OTHER_LINES * 20), max_size=4),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["\n", "", "\r\n"]),
    st.sampled_from(["priority", "timeout"]),
)
def test_a_change_changes_one_entry_or_is_refused(lines: list[str], end: str, last: str, key: str) -> None:
    """Every other entry of whatever file reads as before."""
    text = end.join(lines) + last

    def read(text: str) -> dict[str, Any]:
        value = yaml.safe_load(text) or {}
        return {file.key_of(str(name)): inner for name, inner in value.items()}

    try:
        after = file.changed("config.yaml", text, key, 8)
    except ConfigError:
        return
    assert read(after) == {**read(text), key: 8}


def test_a_value_is_shown_as_people_write_it() -> None:
    """20 and not 20.0."""
    assert [as_text(value) for value in (20.0, 0.5, 5, None, 86400)] == ["20", "0.5", "5", "unset", "86400"]


def test_every_key_says_what_it_does() -> None:
    """Help for each, and units only where there are some."""
    assert all(key.help for key in KEYS.values())
    assert {key.unit for key in KEYS.values()} == {"", "seconds", "bytes"}
    assert KEYS["log_limit"].check("10M") == Settings().log_limit
