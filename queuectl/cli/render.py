r"""How things look: plain lines in a pipe, tables on a terminal, JSON for programs, and nothing that bites.

Whatever stands in a job file or comes from a job's output may hold bytes that move a terminal's cursor, retitle its
window or turn its text around. They are shown as escapes such as `\x1b`, everywhere.
"""

from __future__ import annotations

import re
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

# C0, DEL, C1; then what reorders, hides or breaks lines: soft hyphen, bidi marks, separators, zero-width no-break
# space, lone surrogates, interlinear marks, invisible tags.
_RISKY = (
    "\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_LINE = re.compile(f"[{_RISKY}]")
_LINES = re.compile(f"[{_RISKY}]".replace("\0-\x1f", "\0-\x09\x0b-\x1f"))
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BETWEEN, _NARROWEST = 3, 12
styled = True
"""Whether what is drawn may be bold and coloured: not every pager lets that through."""

STATE_STYLES = {"processing": "cyan", "completed": "green", "failed": "yellow", "dead": "red"}


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    named = _NAMES.get(character)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def visible(text: str) -> str:
    """The text on one line, with every control character written out."""
    return _LINE.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The text with its line ends kept, tabs as blanks, and every other control character written out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(8)
    return _LINES.sub(_escape, text)


def clip(text: str, width: int = 1000) -> str:
    """Cut a text that somebody made absurdly long, in its middle."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person looks at this stream; None means stdout."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _write(text: str) -> None:
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.write(text)


def line(text: str = "") -> None:
    """Print one line of result."""
    _write(visible(text) + "\n")


def lines(texts: Iterable[str]) -> None:
    """Print many lines of result, a thousand in one go."""
    rest = iter(texts)
    while part := "".join([visible(text) + "\n" for text in islice(rest, 1000)]):
        _write(part)


def lines_of_cells(rows: Iterable[Iterable[str]]) -> None:
    """Print many lines of several values, with tabs between them; a tab in a value is written out."""
    rest = iter(rows)
    while part := "".join(["\t".join(map(visible, cells)) + "\n" for cells in islice(rest, 1000)]):
        _write(part)


_held: list[str] | None = None


def note(text: str) -> None:
    """Tell the person something that is no result: on stderr, one line."""
    if _held is not None:
        _held.append(text)
    elif sys.stderr is not None:
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()


def hold_notes() -> None:
    """Keep notes back while a pager has the screen."""
    global _held
    _held = []


def let_notes_go() -> None:
    """Tell what was kept back."""
    global _held
    texts, _held = _held or [], None
    for text in texts:
        note(text)


def json_text(value: Any, indent: int | None = 2) -> str:
    """Write JSON that is readable and safe to show: risky characters stand as escapes, the value is the same."""
    import json

    # JSON is UTF-8; what another encoding cannot say would come out as an escape that JSON does not know.
    plain = (getattr(sys.stdout, "encoding", None) or "utf-8").lower() not in {"utf-8", "utf8"}
    text = json.dumps(value, ensure_ascii=plain, indent=indent)
    return _LINES.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def json_value(value: Any) -> None:
    """Print one JSON value."""
    _write(json_text(value) + "\n")


class JsonArray:
    """A JSON array printed as its parts come, one a line: complete also when the work stops half way."""

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
    """Print a JSON array, one element a line."""
    with JsonArray() as array:
        for value in values:
            array.add(value)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A rich console that takes text as text: no markup, no emoji, no guessed colours."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 (called where it was caught; it would end the process with exit code 1)

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
    """Whether nothing in the environment speaks against colour: see no-color.org and bixense.com/clicolors."""
    import os

    return not os.environ.get("NO_COLOR") and os.environ.get("CLICOLOR") != "0"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut: Sequence[str] = ()
) -> None:
    """Print a table on the terminal. Its text is made harmless here.

    Args:
        columns: the headings. The last column is wrapped, the others keep their width: an id must stay whole.
        cut: headings of columns that give way, and end in … where there is no room.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[visible_lines(text) for text in row] for row in rows]
    room = console().width
    widths = _fit([columns, *cells], [*(columns.index(name) for name in cut), len(columns) - 1], room)
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAVY)
    for name, width in zip(columns, widths, strict=True):
        wrapped = name == columns[-1] and name not in cut
        made.add_column(name, width=width, no_wrap=not wrapped, overflow="fold" if wrapped else "ellipsis")
    for row in cells:
        made.add_row(*(Text(text, style=STATE_STYLES.get(text, "")) for text in row))
    # Where even the narrowest table has no room, the terminal breaks its lines: rich would leave out whole columns.
    console(width=max(room, sum(widths) + _BETWEEN * len(widths) + 2)).print(made)


def _fit(rows: Sequence[Sequence[str]], giving: Sequence[int], room: int) -> list[int]:
    """The widths of a table's columns.

    Args:
        rows: all cells, the headings too.
        giving: the columns that give way when there is no room; each keeps what it needs or its fair share.
        room: characters in a line of the terminal.
    """
    from rich.cells import cell_len

    widths = [
        max(cell_len(part) for text in column for part in text.split("\n"))
        for column in zip(*rows, strict=True)
    ]
    flexible = sorted(set(giving), key=lambda number: widths[number])
    room -= sum(widths) - sum(widths[number] for number in flexible) + _BETWEEN * len(widths) + 2
    for done, number in enumerate(flexible):
        share = max(_NARROWEST, room // (len(flexible) - done))
        widths[number] = min(widths[number], share)
        room -= widths[number]
    return widths


def ago(seconds: float) -> str:
    """A length of time in the two units that matter: 12s, 3m 4s, 2h 5m, 4d 1h."""
    whole = max(0, int(seconds))
    for size, unit, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{unit} {rest}{below}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def count(number: int, noun: str) -> str:
    """A number and its noun: 1 job, 2 jobs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
