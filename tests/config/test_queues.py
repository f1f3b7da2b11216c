"""The files of queues: what they may say, what is refused and in which words, and how workers follow them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from queuectl.config import queue_file, stamp
from queuectl.config.queues import QueueChoice, Queues, QueueSettings, Rate, parse_rate
from queuectl.config.settings import JobDefaults, Settings
from queuectl.errors import ConfigError
from queuectl.layout import Layout

LONG_AGO = 1_000_000_000


def write(layout: Layout, queue: str, text: str | bytes) -> Path:
    path = Path(layout.queue_file(queue))
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def pause(layout: Layout, queue: str, reason: str = "") -> Path:
    path = Path(layout.queue_paused(queue))
    path.write_text(reason)
    return path


def fault_of(layout: Layout, text: str | bytes) -> str:
    write(layout, "mail", text)
    with pytest.raises(ConfigError) as refused:
        queue_file.load(layout, "mail")
    return str(refused.value)


def test_a_queue_has_limits_and_defaults_for_its_jobs(layout: Layout) -> None:
    """Each key with its unit; null and `none` mean that it is not set."""
    write(
        layout,
        "mail",
        "limit: 2\nrate: 100/1h  # the provider's\ntimeout: 5m\nmax-retries: 0\nretry_on: 111 75\njitter:\ngive_up_on: none\n",
    )

    assert queue_file.load(layout, "mail") == QueueSettings(
        "mail", 2, Rate(100, 3600), {"timeout": 300, "max_retries": 0, "retry_on": [111, 75]}
    )
    assert queue_file.load(layout, "mail").as_dict()["rate"] == "100/1h"


def test_a_limit_of_0_says_how_to_stop_the_queue(layout: Layout) -> None:
    """Who writes it wants to stop the queue, and is told how."""
    path = layout.queue_file("mail")

    told = fault_of(layout, "# mine\nlimit: 0\n")

    assert told == f"{path}, line 2: limit: must be 1 to 1000; to stop it: queuectl pause --queue mail"


@pytest.mark.parametrize("limit", ["-1", "1001", "two", "1.5", "true", "'2'", "[1]", "{a: 1}"])
def test_a_limit_that_is_none_is_refused(layout: Layout, limit: str) -> None:
    """With the line, and with what is allowed."""
    told = fault_of(layout, f"timeout: 5\nlimit: {limit}\n")

    assert told.startswith(f"{layout.queue_file('mail')}, line 2: limit: must be ")


@pytest.mark.parametrize(
    "rate", ["100", "'100'", "100/", "/1h", "1.5/1h", "-1/1h", "a/1h", "100/1y", "100 per hour"]
)
def test_a_rate_without_a_span_says_how_to_write_it(layout: Layout, rate: str) -> None:
    """`rate: 100` does not say in which time."""
    told = fault_of(layout, f"rate: {rate}\n")

    assert told.endswith("line 1: rate: write it like 100/1h: so many starts in any such span")


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        ("0/1h", "must be 1 to 10000 starts, not 0"),
        ("10001/1h", "must be 1 to 10000 starts, not 10001"),
        ("5/0s", "the span must be longer than 0"),
    ],
)
def test_a_rate_out_of_bounds_is_refused(rate: str, told: str) -> None:
    """The ring of starts has room for 10,000, and a span of nothing has no sense."""
    with pytest.raises(ValueError, match=f"^{told}$"):
        parse_rate(rate)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("100/1h", "100/1h"),
        (" 5 / 10s ", "5/10s"),
        ("1/90s", "1/90s"),
        ("7/24h", "7/1d"),
        ("3/500ms", "3/500ms"),
        ("3/1.5s", "3/1.5s"),
        ("2/3600", "2/1h"),
    ],
)
def test_a_rate_is_shown_as_it_can_be_written(text: str, shown: str) -> None:
    """And what is shown is read as the same rate."""
    rate = parse_rate(text)

    assert str(rate) == shown
    assert parse_rate(shown) == rate


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limti: 2\n", "line 1: unknown key 'limti'; did you mean limit?"),
        ("worker_count: 2\n", "line 1: unknown key 'worker_count'"),
        ("limit: 2\nlimit: 3\n", "line 2: limit stands twice"),
        ("timeout: soon\n", "line 1: timeout: 'soon' is not a duration: write seconds, or 30s, 10m, 2h, 7d"),
        ("priority: 11\n", "line 1: priority: must be 1 to 10, not 11"),
        ("limit: [\n", "not YAML"),
        ("- limit\n", "line 1: a settings file has lines like"),
        (b"limit: 2\n\xff\xfe\n", "line 2: not UTF-8"),
        ("limit: 010\n", "is read in different ways"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(layout: Layout, text: str | bytes, told: str) -> None:
    """A key that is mistyped is no warning: the queue would have no limit."""
    found = fault_of(layout, text)

    assert found.startswith(layout.queue_file("mail"))
    assert told in found


def test_a_list_of_lists_does_not_fill_the_memory(layout: Layout) -> None:
    """Nine lines of YAML hold a billion words when they are written out in a message."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{new}: &{new} [{','.join(['*' + old] * 10)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]

    told = fault_of(layout, "\n".join(lines).replace("i: &i", "retry_on: &i") + "\n")

    assert len(told) < 500
    assert "unknown key 'a'" in told
    told = fault_of(layout, "retry_on: [" + ",".join(["[1]"] * 5) + "]\n")
    assert told.endswith("retry_on: must be a plain value, not a list or a map")
    assert len(fault_of(layout, "timeout: " + "x" * 100_000)) < 500


def test_a_fifo_and_a_link_to_nowhere_hold_nobody_up(layout: Layout) -> None:
    """A worker that opens a FIFO waits for a writer for ever."""
    path = Path(layout.queue_file("mail"))
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="a FIFO, not a file"):
        queue_file.load(layout, "mail")
    path.unlink()
    path.symlink_to("nowhere")
    assert "cannot read" in Queues(layout).faults()["mail"]
    path.unlink()
    path.mkdir()
    assert "a folder, not a file" in Queues(layout).faults()["mail"]


def test_a_change_keeps_comments_and_other_keys(layout: Layout) -> None:
    """As `config set` does; the file is made if there is none."""
    write(layout, "mail", "# of the provider\nrate: 100/1h # really\ntimeout: 5m\n")

    found = queue_file.change(
        layout, "mail", {"limit": "2", "rate": "50/1h", "timeout": None, "retry-on": "111 75"}
    )

    assert found == QueueSettings("mail", 2, Rate(50, 3600), {"retry_on": [111, 75]})
    assert Path(layout.queue_file("mail")).read_text() == (
        "# of the provider\nrate: 50/1h # really\nlimit: 2\nretry_on: [111, 75]\n"
    )
    assert queue_file.change(layout, "new", {"limit": 3, "timeout": "10m"}) == QueueSettings(
        "new", 3, None, {"timeout": 600}
    )
    assert Path(layout.queue_file("new")).read_text() == "limit: 3\ntimeout: 10m\n"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"limit": "0"}, "limit: must be 1 to 1000; to stop it: queuectl pause --queue mail"),
        ({"rate": "100"}, "rate: write it like 100/1h: so many starts in any such span"),
        ({"limits": "1"}, "unknown key 'limits'; did you mean limit?"),
        ({"limit": "3", "priority": "99"}, "priority: must be 1 to 10, not 99"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(
    layout: Layout, changes: dict[str, object], told: str
) -> None:
    """Of several keys none is written if one is wrong."""
    path = write(layout, "mail", "limit: 2\n")

    with pytest.raises(ConfigError) as refused:
        queue_file.change(layout, "mail", changes)

    assert str(refused.value) == told
    assert refused.value.exit_code == 2
    assert path.read_text() == "limit: 2\n"


def test_a_change_mends_a_bad_file_or_is_refused(layout: Layout) -> None:
    """Who changes another key must learn that the file has no effect as it is."""
    path = write(layout, "mail", "limit: two  # of the provider\n")

    with pytest.raises(ConfigError, match="line 1: limit: must be a whole number"):
        queue_file.change(layout, "mail", {"timeout": "5m"})
    assert path.read_text() == "limit: two  # of the provider\n"
    assert queue_file.change(layout, "mail", {"limit": 2, "timeout": "5m"}).limit == 2
    assert path.read_text() == "limit: 2  # of the provider\ntimeout: 5m\n"


def test_files_are_followed(layout: Layout) -> None:
    """New, changed in place, replaced and deleted: each is known at the next look, and told."""
    said: list[str] = []
    queues = Queues(layout, said.append)
    assert (queues.names(), queues.get("mail"), queues.refresh()) == ([], QueueSettings("mail"), False)

    path = write(layout, "mail", "limit: 2\n")
    assert queues.refresh()
    assert queues.get("mail").limit == 2
    assert not queues.refresh()
    with path.open("r+") as file:
        file.write("limit: 3\n")
    assert queues.refresh()
    assert queues.get("mail").limit == 3
    path.unlink()
    assert queues.refresh()
    assert (queues.names(), queues.get("mail")) == ([], QueueSettings("mail"))
    assert said == [
        "queue mail: limit = 2 (was unset)",
        "queue mail: limit = 3 (was 2)",
        "queue mail: it has no file any more, and so no limits",
    ]


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(layout: Layout) -> None:
    """The time of a file does not change between them."""
    path = write(layout, "mail", "limit: 2\n")
    status = path.stat()
    queues = Queues(layout)
    with path.open("r+") as file:
        file.write("limit: 3\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    queues.refresh()

    assert queues.get("mail").limit == 3


def test_a_bad_edit_leaves_the_values_before_in_force(layout: Layout) -> None:
    """And is told once, with file, line and reason, until it is mended."""
    said: list[str] = []
    path = write(layout, "mail", "limit: 2\n")
    queues = Queues(layout, said.append)
    path.write_text("limit: two\n")
    reason = f"{path}, line 1: limit: must be a whole number from 1 to 1000, not 'two'"

    assert queues.refresh()
    assert not queues.refresh()

    assert (queues.get("mail").limit, queues.is_closed("mail")) == (2, False)
    assert queues.faults() == {"mail": reason}
    path.write_text("limit: 2\n")
    assert queues.refresh()
    assert queues.faults() == {}
    assert said == [f"{reason}; the values from before stay in force", "queue mail: its file is valid again"]


def test_a_queue_whose_limit_is_not_known_is_closed(layout: Layout) -> None:
    """A worker that starts with a bad file would run all of its jobs at once."""
    said: list[str] = []
    path = write(layout, "mail", "limit: two\n")
    queues = Queues(layout, said.append)

    assert (queues.is_closed("mail"), queues.is_closed("other"), queues.is_paused("mail")) == (
        True,
        False,
        False,
    )
    assert said[0].endswith("; no job of the queue mail is started until it is valid")
    path.write_text("limit: 2\n")
    queues.refresh()
    assert (queues.is_closed("mail"), queues.get("mail").limit) == (False, 2)


def test_a_file_that_is_just_being_written_is_waited_for(layout: Layout) -> None:
    """An editor empties the file before it writes: the queue would have no limit for a moment."""
    path = write(layout, "mail", "limit: 2\n")
    queues = Queues(layout)
    path.write_text("")

    queues.refresh()
    assert queues.get("mail").limit == 2
    os.utime(path, (LONG_AGO, LONG_AGO))
    queues.refresh()
    assert queues.get("mail").limit is None


def test_a_folder_that_cannot_be_read_now_changes_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the disk that passes must not lift a limit or a pause."""
    write(layout, "mail", "limit: 2\n")
    pause(layout, "sms")
    queues = Queues(layout)

    def refuse(path: str) -> list[str]:
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        write(layout, "other", "limit: 1\n")
        queues.refresh()
        assert (queues.get("mail").limit, queues.is_paused("sms")) == (2, True)
    queues.refresh()
    assert queues.names() == ["mail", "other"]


def test_a_queue_is_paused_while_its_file_is_there(layout: Layout) -> None:
    """Anybody makes or deletes it; its text is the reason, on one line."""
    said: list[str] = []
    queues = Queues(layout, said.append)
    path = pause(layout, "mail", "the provider\n is down\x1b\n")

    assert queues.refresh()
    assert (queues.is_paused("mail"), queues.is_closed("mail"), queues.paused()) == (True, True, ["mail"])
    assert queues.pause_reason("mail") == "the provider is down\\x1b"
    assert (queues.is_paused("sms"), queues.pause_reason("sms")) == (False, None)
    path.unlink()
    assert queues.refresh()
    assert not queues.is_closed("mail")
    assert said == ["queue mail is paused", "queue mail is no longer paused"]


def test_other_files_in_the_folder_are_no_queues(layout: Layout) -> None:
    """Backups of editors, names that no job can have, temporary files."""
    for name in (
        "mail.yaml~",
        ".mail.yaml.swp",
        "a b.yaml",
        ".yaml",
        "x" * 31 + ".yaml",
        "mail.yml",
        "-a.paused",
    ):
        Path(layout.queues, name).write_text("limit: 1\n")

    queues = Queues(layout)

    assert (queues.names(), queues.paused(), queues.faults()) == ([], [], {})
    assert not queues.refresh()


def test_the_stamp_of_an_old_file_stays_the_same(layout: Layout) -> None:
    """Or each file is read again each second."""
    path = write(layout, "mail", "limit: 2\n")
    os.utime(path, (LONG_AGO, LONG_AGO))

    assert stamp.of(str(path)) == stamp.of(str(path))
    assert stamp.of(str(path.with_name("none"))) is None


def test_a_worker_serves_the_queues_that_it_is_bound_to() -> None:
    """Some queues only, all but some, or all."""
    assert [QueueChoice().serves(name) for name in ("mail", "default")] == [True, True]
    only = QueueChoice(only=frozenset({"mail"}))
    assert [only.serves(name) for name in ("mail", "default")] == [True, False]
    without = QueueChoice(without=frozenset({"mail"}))
    assert [without.serves(name) for name in ("mail", "default")] == [False, True]


def test_jobs_get_the_defaults_of_their_queue_then_those_of_the_spool(layout: Layout) -> None:
    """Job > queue > config.yaml > built-in; a queue without a file has none of its own."""
    write(layout, "mail", "timeout: 5m\n")
    defaults = JobDefaults(layout, Settings(timeout=30, priority=7))

    assert (defaults.of("mail").timeout, defaults.of("mail").priority) == (300, 7)
    assert defaults.of("other") is defaults.of(None) is defaults.settings
    write(layout, "default", "priority: 2\n")
    assert defaults.of(None).priority == 7
    assert defaults.refresh(defaults.settings)
    assert (defaults.of(None).priority, defaults.of("default").priority) == (2, 2)


def test_defaults_follow_their_file_and_the_settings(layout: Layout) -> None:
    """While nothing has changed, the same object comes back; a bad edit changes nothing."""
    path = write(layout, "mail", "timeout: 5m\n")
    defaults = JobDefaults(layout, Settings())
    first = defaults.look("mail")
    assert defaults.look("mail") is first

    path.write_text("timeout: 6m\n")
    assert defaults.look("mail").timeout == 360
    path.write_text("timeout: soon\n")
    assert defaults.look("mail").timeout == 360
    assert defaults.refresh(Settings(priority=3))
    assert (defaults.of("mail").priority, defaults.of("mail").timeout) == (3, 360)
    path.unlink()
    assert defaults.refresh(Settings(priority=3))
    assert defaults.of("mail").timeout == Settings().timeout


def test_defaults_that_cannot_be_read_are_an_error(layout: Layout) -> None:
    """A job would be accepted with a time limit that its queue does not have."""
    write(layout, "mail", "timeout: soon\n")
    defaults = JobDefaults(layout, Settings())

    for _ in range(2):
        with pytest.raises(ConfigError, match="timeout: 'soon' is not a duration"):
            defaults.of("mail")
    write(layout, "mail", "timeout: 5m\n")
    assert defaults.of("mail").timeout == 300


def test_an_old_spool_gets_the_folder_in_place(spool_dir: Path) -> None:
    """Folders of earlier versions, and no more."""
    layout = Layout(spool_dir)
    layout.create()
    Path(layout.queues).rmdir()
    Path(layout.permits).rmdir()

    layout.create()

    assert Path(layout.queues).stat().st_mode & 0o777 == 0o700
    assert Path(layout.permits).is_dir()
