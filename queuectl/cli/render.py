r"""Output: plain lines in a pipe, tables on a terminal, JSON for programs.

Job files and the output of jobs may contain bytes that move the cursor of a terminal, change the title of its window or
reverse its text. They are always shown as escapes such as `\x1b`.
"""

from __future__ import annotations

import sys
from functools import cache
from itertools import islice

from queuectl.cli.lost_output import forget, lose_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence
    from typing import Any, Literal, Self, TextIO

    from rich.console import Console

    from queuectl.index.row import Row
    from queuectl.job.record import Job

# C0, DEL, C1; then characters that reorder, hide or break text: soft hyphen, bidi marks, separators, zero-width
# no-break space, lone surrogates, interlinear marks, invisible tags.
_RISKY = (
    "\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_LINE = f"[{_RISKY}]"
_LINES = _LINE.replace("\0-\x1f", "\0-\x09\x0b-\x1f")
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COLUMN_GAP, _LEAST, _DRAWN = 3, 3, 100
NARROWEST = 12
"""The characters that a column which may be cut keeps, as long as the table fits then."""

styled = True
"""Whether text may be bold and coloured; not every pager can show that."""

STATE_STYLES = {"processing": "cyan", "completed": "green", "failed": "yellow", "dead": "red"}


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern when it is first used: loading `re` is a tenth of the time that `status` takes."""
    import re

    return re.compile(text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    named = _NAMES.get(character)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def visible(text: str) -> str:
    """The text on one line, with every control character as an escape."""
    return text if text.isascii() and text.isprintable() else _pattern(_LINE).sub(_escape, text)


def visible_lines(text: str) -> str:
    """The text with its line ends, tabs as spaces, and every other control character as an escape."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(8)
    return _pattern(_LINES).sub(_escape, text)


def clip(text: str, width: int = 1000) -> str:
    """Shorten a very long text by leaving out its middle."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether this stream is a terminal; None means stdout."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _write(text: str) -> None:
    if sys.stdout is not None:  # None if the parent process closed it
        try:
            sys.stdout.write(text)
        except OSError as error:
            lose_output(error)


def line(text: str = "") -> None:
    """Print one line of result."""
    _write(visible(text) + "\n")


def lines(texts: Iterable[str]) -> None:
    """Print many lines of result, a thousand in one write."""
    rest = iter(texts)
    while part := "".join([visible(text) + "\n" for text in islice(rest, 1000)]):
        _write(part)


def lines_of_cells(rows: Iterable[Iterable[str]]) -> None:
    r"""Print many lines of several values separated by tabs. A tab inside a value is written as \t."""
    rest = iter(rows)
    while part := "".join(["\t".join(map(visible, cells)) + "\n" for cells in islice(rest, 1000)]):
        _write(part)


_buffered: list[str] | None = None


def note(text: str) -> None:
    """Print something that is not a result: one line on stderr."""
    if _buffered is not None:
        _buffered.append(text)
    elif sys.stderr is not None:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            lose_output(error)
        try:
            sys.stderr.write(visible(text) + "\n")
            sys.stderr.flush()
        except OSError:  # a note that nobody can read must not stop the work
            forget(sys.stderr)


def buffer_notes() -> None:
    """Keep notes in memory while a pager uses the screen."""
    global _buffered
    _buffered = []


def print_buffered_notes() -> None:
    """Print the notes that were kept in memory."""
    global _buffered
    texts, _buffered = _buffered or [], None
    for text in texts:
        note(text)


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON that is readable and safe on a terminal: risky characters are escapes, the value is the same."""
    import json

    # In another encoding than UTF-8, Python would write escapes that are not valid JSON.
    ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower() not in {"utf-8", "utf8"}
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    return _pattern(_LINES).sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def json_value(value: Any) -> None:
    """Print one JSON value."""
    _write(json_text(value) + "\n")


class JsonArray:
    """A JSON array, printed one element on each line as they come. It is valid JSON even after an error."""

    def __enter__(self) -> Self:
        self._open = "["
        return self

    def add(self, value: Any) -> None:
        """Print one more element."""
        _write(f"{self._open}\n  {json_text(value, indent=None)}")
        self._open = ","

    def __exit__(self, *_: object) -> None:
        _write("[]\n" if self._open == "[" else "\n]\n")


def json_array(values: Iterable[Any]) -> None:
    """Print a JSON array, one element on each line."""
    with JsonArray() as array:
        for value in values:
            array.add(value)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A rich console that prints text unchanged: no markup, no emoji, no automatic colours."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 (called inside an except block; rich would end the process with exit code 1)

    colours: Literal["auto"] | None = "auto" if styled else None
    return Plain(
        stderr=stderr,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        no_color=not _wants_colour(),
        color_system=colours,
    )


def _wants_colour() -> bool:
    """Whether the environment allows colour: see no-color.org and bixense.com/clicolors."""
    import os

    return not os.environ.get("NO_COLOR") and os.environ.get("CLICOLOR") != "0"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut: Sequence[str] = ()
) -> None:
    """Print a table on the terminal, with control characters as escapes.

    Args:
        columns: the headings. The last column is wrapped; the others keep their width, so that ids are complete.
        cut: headings of the columns that are shortened, with … at the end, if the table is too wide. If that is not
            enough, the others are shortened too: a line that the terminal breaks makes all rows unreadable.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[visible_lines(text) for text in row] for row in rows]
    width_of_terminal = console().width
    widths = _fit(
        [columns, *cells], [*(columns.index(name) for name in cut), len(columns) - 1], width_of_terminal
    )
    whole = cells if columns[-1] not in cut else cells[:_DRAWN]
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAVY)
    for name, width in zip(columns, widths, strict=True):
        wrapped = name == columns[-1] and name not in cut
        made.add_column(name, width=width, no_wrap=not wrapped, overflow="fold" if wrapped else "ellipsis")
    for row in whole:
        made.add_row(*(Text(text, style=STATE_STYLES.get(text, "")) for text in row))
    # Only on a terminal of a few characters do lines break: rich would leave out whole columns.
    screen = console(width=max(width_of_terminal, table_width(widths)))
    if len(whole) == len(cells):
        screen.print(made)
        return
    with screen.capture() as drawn:
        screen.print(made)
    *lines, edge = drawn.get().splitlines(keepends=True)
    _write("".join(lines))
    _write_rows(cells[len(whole) :], widths, screen)
    _write(edge)


def _write_rows(rows: Sequence[Sequence[str]], widths: Sequence[int], screen: Console) -> None:
    """Write rows as rich draws them. It takes two seconds for a thousand of them, and this a few milliseconds."""
    from rich.text import Text

    styles = {}
    for state, style in STATE_STYLES.items():
        with screen.capture() as drawn:
            screen.print(Text(state, style=style), end="")
        styles[state] = drawn.get()
    rest = iter(rows)
    while part := [*islice(rest, 1000)]:
        texts = [
            "   ".join(
                _in_width(text, width).replace(text, styles.get(text, text), 1)
                for text, width in zip(row, widths, strict=True)
            )
            for row in part
        ]
        _write("".join(f"  {text}  \n" for text in texts))


def _in_width(text: str, width: int) -> str:
    """The text on one line with so many columns of the terminal, cut with … or filled with blanks."""
    from rich.cells import cell_len, set_cell_size

    text = text.replace("\n", " ")
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def _fit(rows: Sequence[Sequence[str]], shrinking: Sequence[int], available: int) -> list[int]:
    """The widths of a table's columns, in characters.

    Args:
        rows: all cells, including the headings.
        shrinking: the columns that are made narrower if needed; each keeps the width it needs or an equal share.
        available: characters in a line of the terminal.
    """
    from rich.cells import cell_len

    widths = [
        max(cell_len(part) for text in column for part in text.split("\n"))
        for column in zip(*rows, strict=True)
    ]
    flexible = sorted(set(shrinking), key=lambda number: widths[number])
    available -= sum(widths) - sum(widths[number] for number in flexible) + _COLUMN_GAP * len(widths) + 2
    for done, number in enumerate(flexible):
        share = max(NARROWEST, available // (len(flexible) - done))
        widths[number] = min(widths[number], share)
        available -= widths[number]
    if available < 0:
        _squeeze(widths, flexible, sum(widths) + available)
    return widths


def _squeeze(widths: list[int], first: Sequence[int], room: int) -> None:
    """Make columns narrower until they fit into so many characters: these first, then always the widest."""
    for some, least in ((first, NARROWEST // 2), (range(len(widths)), _LEAST)):
        while sum(widths) > room and (widest := max(some, key=widths.__getitem__)) is not None:
            if widths[widest] <= least:
                break
            widths[widest] -= 1


def table_width(widths: Iterable[int]) -> int:
    """The characters that a table with columns of these widths needs."""
    known = list(widths)
    return sum(known) + _COLUMN_GAP * len(known) + 2


def ago(seconds: float) -> str:
    """A length of time in its two largest units: 12s, 3m 4s, 2h 5m, 4d 1h."""
    from queuectl.job import times

    return times.ago(seconds)


def count(number: int, noun: str) -> str:
    """A number and its noun: 1 job, 2 jobs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(seconds: float | None) -> str:
    """A length of time that may be short: 12ms, 3.4s, 3m 4s; a dash if it is not known."""
    from queuectl.job import times

    return "-" if seconds is None else times.span(seconds)


def duration(seconds: float) -> str:
    """A length of time as people type it, and exact: 20s, 90s, 10m, 2h, 1.5s."""
    from queuectl.job import times

    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{times.seconds(seconds)}s"


def priority(row: Row, now: float) -> str:
    """The priority of a job, and what waiting has added: 5 +3.2. `now` is in epoch seconds."""
    if row.priority is None:
        return ""
    gained = (row.waited(round(now * 1e6)) or 0) / 60e6
    return f"{row.priority} +{gained:.1f}" if gained >= 0.05 else str(row.priority)


def tries(row: Row) -> str:
    """The attempts made, with the one under way, and how many are allowed: 1/3."""
    made = attempts(row)
    return str(made) if row.max_retries is None else f"{made}/{max(1, row.max_retries)}"


def attempts(job: Row | Job) -> int:
    """The attempts made, with the one under way."""
    return job.attempts + (job.state == "processing" and job.started_at is not None)


def short_path(path: str) -> str:
    """A path with the home directory written as ~."""
    import os

    home = os.path.expanduser("~")
    return visible("~" + path[len(home) :] if home != "/" and path.startswith(home + os.sep) else path)
