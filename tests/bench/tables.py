"""Measured values, and tables of them in Markdown."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = {
    "s": (1.0, "s"),
    "ms": (1e3, "ms"),
    "us": (1e6, "µs"),
    "%": (1.0, "%"),
    "/s": (1.0, "/s"),
    "MB": (1e-6, "MB"),
}
HEADS = ("median", "least", "most")


class Samples:
    """Measured values of one kind, in seconds unless said otherwise."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = sorted(values)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def at_99(self) -> float:
        """What 99 of 100 do not exceed."""
        return self.values[min(len(self.values) - 1, len(self.values) * 99 // 100)]

    def shown(self, unit: str = "ms") -> list[str]:
        """Median, least, most: cells of a table."""
        return [number(value, unit) for value in (self.median, self.values[0], self.values[-1])]

    def cell(self, unit: str = "ms") -> str:
        """The same in one cell."""
        median, least, most = self.shown(unit)
        bare = [text.partition(" ")[0].removesuffix("/s") for text in (least, most)]
        return f"{median} ({bare[0]} to {bare[1]})" if len(self.values) > 1 else median


def number(value: float, unit: str) -> str:
    """A value with three or four digits that mean something, and its unit."""
    factor, name = UNITS[unit]
    value *= factor
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{'' if name.startswith('/') else ' '}{name}"


def ratio(one: Samples, other: Samples) -> str:
    """How many times the other the one is, by their medians."""
    return f"{one.median / other.median:.2f}" if other.median else "-"


def in_turn(ones: Sequence[float], others: Sequence[float]) -> Samples:
    """Each measured value over the one measured beside it: what comes and goes on the machine falls out."""
    return Samples([one / other for one, other in zip(ones, others, strict=True)])


def ratios(one: Sequence[float], other: Sequence[float]) -> str:
    """The same as a cell: median, least and most."""
    shown = in_turn(one, other)
    median, least, most = (f"{value:.2f}" for value in (shown.median, shown.values[0], shown.values[-1]))
    return f"{median} ({least} to {most})" if len(shown.values) > 1 else median


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, with its columns aligned for the terminal."""
    every = [list(heads), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in every) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    marks = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n### {title}\n", line(every[0]), "| " + " | ".join(marks) + " |", sep="\n")
    for row in every[1:]:
        print(line(row))
    sys.stdout.flush()
