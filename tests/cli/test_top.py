"""`queuectl top` shows the current state, its keys work, and the terminal is restored."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faults
import pytest
from rich.text import Text
from terminal import on_terminal

from queuectl import Spool
from queuectl.cli import keyboard, top_screen

from support import drain, drop_bytes, finished, processes_of, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., subprocess.CompletedProcess[str]]

PROMPT = "shell> "


class Screen:
    """A terminal of 80 columns and 24 lines with a shell."""

    def __init__(self, socket: str) -> None:
        self._tmux = ["tmux", "-S", socket]
        shell = f"PS1={shlex.quote(PROMPT)} exec bash --norc --noprofile"
        self._call("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-s", "t", shell)
        self.waits_for(re.escape(PROMPT.strip()))

    def _call(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True, timeout=20)
        return done.stdout

    def press(self, *names: str) -> None:
        """Type keys, named as tmux does."""
        self._call("send-keys", "-t", "t", *names)

    def types(self, command: str) -> None:
        """Type a line for the shell."""
        self.press("-l", command)
        self.press("Enter")

    def text(self) -> str:
        """What stands there."""
        return self._call("capture-pane", "-p", "-t", "t")

    def waits_for(self, pattern: str) -> str:
        """Look until it is there; returns the screen."""

        def seen() -> str:
            text = self.text()
            return text if re.search(pattern, text, flags=re.MULTILINE) else ""

        return wait_until(seen, timeout=20, message=lambda: f"{pattern!r} in:\n{self.text()}")

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self._call("resize-window", "-t", "t", "-x", str(width), "-y", str(height))

    def waits_for_size(self, width: int, height: int) -> None:
        """Look until so many lines are full, the longest of them just as wide."""

        def lines() -> list[str]:
            return self.text().rstrip("\n").splitlines()

        wait_until(
            lambda: (max(map(len, lines()), default=0), len(lines())) == (width, height),
            message=lambda: f"{width}x{height}:\n{self.text()}",
        )

    def pane_pid(self) -> int:
        """The process of the shell."""
        return int(self._call("display-message", "-p", "-t", "t", "#{pane_pid}"))

    def close(self) -> None:
        """End the shell, and what runs in it, and wait until all of it is gone."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False, timeout=20)
        wait_until(lambda: not processes_of(Path(os.environ["QUEUECTL_SPOOL"])), message="an empty spool")


@pytest.fixture
def screen(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """A terminal with queuectl on its path."""
    if not shutil.which("tmux"):
        faults.must_not_skip("tmux is not installed")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("TMUX", raising=False)
    # A socket's path has a hundred characters at the most.
    folder = tempfile.mkdtemp(prefix="q-")
    opened = Screen(f"{folder}/s")
    yield opened
    opened.close()
    shutil.rmtree(folder)


@pytest.fixture
def mixed(spool_dir: Path, cli: Cli) -> Path:
    """A spool with a dead job, two completed jobs, three waiting jobs, and a scheduled one."""
    spool = Spool(spool_dir)
    spool.enqueue('echo "half way"; echo "no disk" >&2; exit 3', id="bad", max_retries=1)
    spool.enqueue("echo fine", id="good")
    drain(spool_dir)
    spool.enqueue("echo urgent", id="urgent", priority=9)
    spool.enqueue("echo normal", id="normal")
    spool.enqueue("echo \x1b[31mred\x07", id="evil", priority=2)
    spool.enqueue("echo later", id="later", delay="1h")
    return spool_dir


def test_screen_shows_the_spool(screen: Screen, mixed: Path) -> None:
    """80 by 24 shows counts, workers, the next jobs with both parts of the priority, and the jobs that ended last."""
    screen.types("queuectl top")
    text = screen.waits_for(r"^Next \(4 waiting\)")

    assert re.search(r"^pending 4  processing 0  completed 1  failed 0  dead 1$", text, flags=re.MULTILINE)
    assert " none: queuectl worker start" in text
    after = text.partition("Next (")[2]
    assert [line.split()[0] for line in after.splitlines()[1:5]] == ["urgent", "normal", "evil", "later"]
    assert re.search(r"^ urgent  9( \+0\.\d)? +=? 9\.\d +\d+s  echo urgent$", after, flags=re.MULTILINE)
    assert re.search(r"^ later   5 +in 59m \d+s  echo later$", after, flags=re.MULTILINE)
    assert "echo \\x1b[31mred\\x07" in after
    assert re.search(r"^ bad   dead +\d+ms +\d+s ago  Exit code 3: echo", after, flags=re.MULTILINE)
    assert text.rstrip("\n").splitlines()[-1].startswith("↑↓ select")
    assert len(text.rstrip("\n").splitlines()) == 24


def test_it_is_live(
    screen: Screen, mixed: Path, cli: Cli, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """Workers start, jobs run and end, and the screen follows without a key."""
    screen.types("queuectl top --interval 0.2")
    screen.waits_for("none: queuectl worker start")
    gate = tmp_path / "gate"
    cli(
        "enqueue",
        "--id",
        "runs",
        "--priority",
        "10",
        f"while [ ! -e '{gate}' ]; do sleep 0.05; done",
        expect=0,
    )
    workers(1)

    screen.waits_for(r"^Workers \(1\)")
    screen.waits_for(r"^ worker-0  runs +\d+s  while")
    gate.touch()
    screen.waits_for(r"^ normal +completed")
    screen.waits_for(r"^ worker-0  idle")


def test_log_is_followed(screen: Screen, mixed: Path) -> None:
    """L shows the end of the selected job's log, e the other stream, q goes back."""
    screen.types("queuectl top")
    screen.waits_for(r"^ bad ")
    screen.press("End", "l")
    screen.waits_for(r"^bad - dead - output$")
    screen.waits_for(r"^half way$")
    screen.press("e")
    screen.waits_for(r"^no disk$")
    screen.press("q")
    screen.waits_for(r"^Next \(4")


def test_running_jobs_log_grows(
    screen: Screen, cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """The output of a running job is shown while it runs."""
    one, two = tmp_path / "one", tmp_path / "two"
    wait = "while [ ! -e '{0}' ]; do sleep 0.05; done"
    cli(
        "enqueue",
        "--id",
        "runs",
        f"echo first; {wait.format(one)}; echo second; {wait.format(two)}",
        expect=0,
    )
    workers(1)
    screen.types("queuectl top --interval 0.2")
    screen.waits_for(r"^ worker-0  runs ")
    screen.press("Enter")
    screen.waits_for(r"^first$")
    one.touch()
    screen.waits_for(r"^second$")
    two.touch()
    screen.waits_for(r"^runs - completed - output")


def test_cancel_asks_first(screen: Screen, mixed: Path) -> None:
    """Any key but y does not cancel the job."""
    screen.types("queuectl top")
    screen.waits_for(r"^ normal ")
    screen.press("Down", "c")
    screen.waits_for(r"^Cancel normal\? y/n")
    screen.press("n")
    screen.waits_for(r"^↑↓ select")
    assert where_is(mixed, "normal") == ["pending"]

    screen.press("c", "y")
    screen.waits_for(r"^normal: cancelled")
    screen.waits_for(r"^ normal +dead ")
    assert where_is(mixed, "normal") == ["dead"]


def test_retry_and_what_cannot_be(screen: Screen, mixed: Path) -> None:
    """A dead job is retried; for a waiting one the last line shows the error."""
    screen.types("queuectl top")
    screen.waits_for(r"^ good ")
    screen.press("r")
    screen.waits_for(r"^job 'urgent' is pending and cannot be retried")
    screen.press("G", "r")
    screen.waits_for(r"^requeued job bad")
    screen.waits_for(r"^Next \(5 waiting\)")
    assert where_is(mixed, "bad") == ["pending"]


def test_hold_and_pause(screen: Screen, mixed: Path) -> None:
    """H and p toggle, and report it."""
    screen.types("queuectl top")
    screen.waits_for(r"^ urgent ")
    screen.press("h")
    screen.waits_for(r"^ urgent  9 +held  echo urgent")
    screen.press("h")
    screen.waits_for(r"^ urgent  9.* = 9")
    screen.press("p")
    screen.waits_for(r"^PAUSED for \d+s")
    assert (mixed / "paused").exists()
    screen.press("p")
    screen.waits_for(r"^resumed: workers start jobs again")
    assert not (mixed / "paused").exists()


def test_help_page(screen: Screen, mixed: Path) -> None:
    """? explains the keys and the priority; any key goes back."""
    screen.types("queuectl top")
    screen.waits_for(r"^Next")
    screen.press("?")
    assert "plus 3.2 for 3.2 minutes" in screen.waits_for(r"^Press any key to go back")
    screen.press("x")
    screen.waits_for(r"^Next")


def test_new_size_is_taken_at_once(screen: Screen, mixed: Path) -> None:
    """The window becomes wider, smaller, too small, and large again."""
    screen.types("COLUMNS=80 LINES=24 queuectl top --interval 1h")
    screen.waits_for(r"^Next")
    screen.resize(120, 30)
    screen.waits_for_size(120, 30)
    screen.resize(50, 12)
    screen.waits_for_size(50, 12)
    screen.resize(30, 8)
    screen.waits_for(r"^top needs 40x10 or more")
    screen.resize(80, 24)
    screen.waits_for(r"^Last")


LEAVING: dict[str, Callable[[Screen], object]] = {
    "q": lambda screen: screen.press("q"),
    "Ctrl+C": lambda screen: screen.press("C-c"),
    "QUIT": lambda screen: subprocess.run(["kill", "-QUIT", str(child_of(screen.pane_pid()))], check=True),
    "XCPU": lambda screen: subprocess.run(["kill", "-XCPU", str(child_of(screen.pane_pid()))], check=True),
    "TERM": lambda screen: subprocess.run(["kill", "-TERM", str(child_of(screen.pane_pid()))], check=True),
}


def child_of(pid: int) -> int:
    import psutil

    [child] = psutil.Process(pid).children()
    return child.pid


@pytest.mark.parametrize("way", LEAVING)
def test_terminal_is_left_as_it_was(screen: Screen, mixed: Path, way: str) -> None:
    """The terminal settings, the shell's text and the cursor are restored, and nothing is printed."""
    screen.types("stty -g > before; echo here before; queuectl top; echo code $?; stty -g > after")
    screen.waits_for(r"^Next")
    screen.press("C-z")  # does nothing here

    LEAVING[way](screen)

    text = screen.waits_for(r"^code 0")
    assert "here before" in text
    assert "Next (" not in text
    assert text.split("here before\n")[1].startswith("code 0\n")
    wait_until(lambda: Path("after").exists() and Path("after").read_text())
    assert Path("before").read_text() == Path("after").read_text()


def test_terminal_is_left_as_it_was_after_an_error(screen: Screen, mixed: Path) -> None:
    """A bug in drawing ends with a traceback on a restored screen."""
    script = mixed.parent / "broken.py"
    script.write_text(
        "import sys\nfrom queuectl.cli import main\nfrom queuectl.cli import top_screen\n"
        "def broken(*_): raise ZeroDivisionError('here it is')\n"
        "top_screen.draw_help = broken\nsys.exit(main(['top']))\n"
    )
    screen.types(f"stty -g > before; {sys.executable} {script}; echo code $?; stty -g > after")
    screen.waits_for(r"^Next")
    screen.press("?")

    text = screen.waits_for(r"^code 70")
    assert "ZeroDivisionError: here it is" in text
    wait_until(lambda: Path("after").exists() and Path("after").read_text())
    assert Path("before").read_text() == Path("after").read_text()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the shell writes."""
    monkeypatch.chdir(tmp_path)


def test_one_look_in_a_pipe(cli: Cli, mixed: Path) -> None:
    """In a pipe it prints the screen once and exits."""
    lines = cli("top", expect=0).stdout.splitlines()

    assert lines[0].startswith("queuectl top  ")
    assert any(re.match(r" urgent  9", line) for line in lines)
    assert any(re.match(r" bad   dead", line) for line in lines)


def test_one_look_at_an_empty_spool(cli: Cli, spool_dir: Path) -> None:
    """An empty spool shows all parts, also on a dumb terminal."""
    text = cli("top", expect=0, env={"COLUMNS": "20"}).stdout

    assert [line.strip() for line in text.splitlines()[2:]][1::2] == [
        "none: queuectl worker start",
        "nothing waits",
        "nothing has ended",
    ]


def test_dumb_terminal_gets_one_look(spool_dir: Path) -> None:
    """On a dumb terminal it prints the screen once."""
    seen = on_terminal("top", env={"TERM": "dumb"})

    assert seen.code == 0
    assert "nothing waits" in seen.text


def test_one_look_as_json(cli: Cli, mixed: Path) -> None:
    """--json has the same content, in order."""
    told = json.loads(cli("top", "--json", expect=0).stdout)

    assert [job["id"] for job in told["next"]] == ["urgent", "normal", "evil", "later"]
    assert told["next"][0]["effective_priority"] >= 9
    assert {job["id"] for job in told["last"]} == {"good", "bad"}
    assert (told["jobs"]["pending"], told["paused"], told["workers"]) == (4, None, [])


def test_python_door_has_both_ends(mixed: Path) -> None:
    """The next jobs in the order in which they run, and the jobs that ended last."""
    spool = Spool(mixed)

    assert [row.id for row in spool.next_up(2)] == ["urgent", "normal"]
    assert [row.id for row in spool.next_up(9)] == ["urgent", "normal", "evil", "later"]
    assert [row.id for row in spool.last_ended(9)] == ["good", "bad"]


def test_lines_are_shared_fairly() -> None:
    """Each part gets the lines it wants or an equal share; unused lines go to the others."""
    assert top_screen.shares(18, [1, 200, 200]) == [1, 8, 9]
    assert top_screen.shares(18, [10, 2, 200]) == [8, 2, 8]
    assert top_screen.shares(100, [1, 2, 3]) == [1, 2, 3]
    assert top_screen.shares(-3, [1, 2, 3]) == [0, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (200, 60), (41, 11)])
@pytest.mark.parametrize("chosen", [0, 150, 299, 500])
def test_screen_is_exactly_as_large_as_the_window(width: int, height: int, chosen: int) -> None:
    """No line is too long, no line too many, and the selected job is visible, for any ids."""
    from queuectl.index.row import Row

    rows = [
        Row(
            f"job-{n}-" + "x" * (n % 60),
            "pending",
            "pending",
            "n",
            ready_key=n,
            priority=5,
            command="echo ü\x1b[2J " * n,
        )
        for n in range(300)
    ]
    snapshot = top_screen.Snapshot(
        "/s", time.time(), {"pending": 10**9, "dead": 0}, [], rows[:100], rows[100:200], rows[200:]
    )

    lines = top_screen.draw(snapshot, chosen, width, height, Text(top_screen.KEYS))

    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    assert all(line.plain.isprintable() for line in lines)
    assert sum("reverse" in str(line.spans) for line in lines) == (chosen < 300)


def test_keys_are_cut_out_of_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several keys at once, a key in two pieces, the escape key, and unknown keys."""
    ours, theirs = os.openpty()
    try:
        with os.fdopen(os.dup(theirs)) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with keyboard.Keys() as reader:
                os.write(ours, b"a\x1b[A\x1bOB\x1b[15~\xc3\x1b[5~q")
                assert [reader.read(5) for _ in range(7)] == [
                    "a",
                    "up",
                    "down",
                    "\x1b[15~",
                    "Ã",
                    "page up",
                    "q",
                ]
                os.write(ours, b"\x1b")
                assert reader.read(5) == "escape"
                assert reader.read(0.01) is None
    finally:
        os.close(ours)
        os.close(theirs)


def test_jobs_that_end_while_nobody_looks_are_no_cost_each_second(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a spool of a million jobs the slow queries use at most a fiftieth of the time."""
    from queuectl.api import listing
    from queuectl.cli.commands.top import _SnapshotReader

    spool = Spool(mixed)
    reader = _SnapshotReader(spool)
    reader.read()
    looks: list[int] = []
    real = listing.last_ended

    def counted(spool: Spool, limit: int) -> Any:
        looks.append(limit)
        return real(spool, limit)

    monkeypatch.setattr(listing, "last_ended", counted)
    reader._slow_queries_at = time.monotonic() + 1000
    drop_bytes(mixed, "new.json", b'{"command": "true"}', "done")
    assert reader.read().counts["completed"] == 2
    assert looks == []
    reader.expect_change()
    assert next(row.id for row in reader.read().last) == "new"
    assert len(looks) == 1
    assert finished(mixed, "new")


def test_it_shows_what_keeps_jobs_waiting(spool_dir: Path, cli: Cli) -> None:
    """Jobs behind others were in no list of top, and nobody saw that they could never start."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="extract", max_retries=1)
    drain(spool_dir)
    spool.set_queue("mail", limit=1)
    spool.enqueue("true", id="post", queue="mail")
    spool.pause("a test", queue="mail")
    spool.enqueue("true", id="first", hold=True)
    spool.enqueue("true", id="second", after="first")
    spool.enqueue("true", id="load", after="extract")
    text = cli("top", expect=0).stdout
    assert "1 job is blocked by dead or missing jobs: queuectl list --blocked" in text.splitlines()
    after = text.partition("Next (4 waiting)")[2].partition("Last")[0]
    assert [" ".join(line.split()) for line in after.splitlines()[2:]] == [
        "load 5 blocked true after extract (dead)",
        "second 5 other jobs true after first",
        "first 5 held true",
    ]
    assert after.splitlines()[1].endswith("true  mail is paused")
    told = json.loads(cli("top", "--json", expect=0).stdout)
    assert told["blocked"] == 1
    assert [(one["id"], one["waits_for"], one["blocked"]) for one in told["next"]] == [
        ("post", None, False),
        ("load", "extract (dead)", True),
        ("second", "first", False),
        ("first", None, False),
    ]


def test_rules_are_shown_with_what_keeps_them_from_their_moment(spool_dir: Path, cli: Cli) -> None:
    """A file that cannot be used comes first, then what is due next; a spool without rules has no such part."""
    assert "Rules" not in cli("top", expect=0).stdout
    cli("rule", "add", "yearly", "--cron", "0 0 1 1 *", "--", "true", expect=0)
    cli("rule", "add", "often", "--every", "1h", "--", "true", expect=0)
    cli("rule", "add", "resting", "--every", "1m", "--", "true", expect=0)
    cli("rule", "pause", "resting", "--reason", "holidays", expect=0)
    (spool_dir / "rules" / "broken.json").write_text('{"when": {"every": "0"}, "job": {"command": "true"}}')

    [heading, *lines] = cli("top", expect=0).stdout.partition("Rules ")[2].splitlines()
    told = json.loads(cli("top", "--json", expect=0).stdout)["rules"]

    assert heading.startswith("(4)")
    assert [line.split()[0] for line in lines] == ["broken", "often", "yearly", "resting"]
    assert "it is still being written" in lines[0] or "when.every" in lines[0]
    assert re.search(r"often +in [1-6]?\d[ms].*  every hour", lines[1])
    assert "holidays" in lines[3]
    assert [(one["name"], one["next"] is None, one["paused"]) for one in told] == [
        ("broken", True, False), ("often", False, False), ("yearly", False, False), ("resting", False, True)
    ]  # fmt: skip
