"""The README and the pages of the guide, split into fenced blocks, sections and tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[1]
GUIDE = TOP / "queuectl" / "guide"
PAGES = {
    "README": (TOP / "README.md").read_text(encoding="utf-8"),
    "tests/README": (TOP / "tests" / "README.md").read_text(encoding="utf-8"),
    **{path.stem: path.read_text(encoding="utf-8") for path in sorted(GUIDE.glob("*.md"))},
}
"""Name -> Markdown. The README, the README of the tests, then each page of the guide by its topic."""

_FENCED = re.compile(r"^```(.*)\n((?s:.*?))^```$", flags=re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its page, the words after the fence, the text, the line on which it begins."""

    page: str
    info: str
    text: str
    line: int


BLOCKS = [
    Block(page, found[1], found[2], text.count("\n", 0, found.start()) + 1)
    for page, text in PAGES.items()
    for found in _FENCED.finditer(text)
]


def blocks(info: str) -> list[Block]:
    """The blocks with these words after the fence, of all pages."""
    return [block for block in BLOCKS if block.info == info]


def name_of(block: Block) -> str:
    """A name for a test of this block."""
    return f"{block.page}-line-{block.line}"


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", PAGES[page])


def section(heading: str, page: str = "README") -> str:
    """The text under a heading of the second level of a page."""
    return section_of(PAGES[page], heading)


def section_of(text: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, headings left out."""
    lines = re.findall(r"^\| .* \|$|^\| .*\|$", text, flags=re.MULTILINE)
    heads = set(re.findall(r"^(\|.*\|)\n\|[-|]+\|$", text, flags=re.MULTILINE))
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line not in heads
    ]
