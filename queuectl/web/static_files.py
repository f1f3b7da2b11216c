"""The files that the pages load: a table of names, read once. No folder is served."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import NamedTuple

FOLDER = os.path.join(os.path.dirname(__file__), "static")
TYPES = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "idiomorph.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "LICENSE.idiomorph": "text/plain; charset=utf-8",
}
"""All of them, each with its type."""


class Static(NamedTuple):
    """One file: its name in an address, which changes with its content, its type, and its bytes."""

    name: str
    type: str
    data: bytes


@cache
def all_files() -> dict[str, Static]:
    """Return the files by their own names."""
    found = {}
    for name, kind in TYPES.items():
        with open(os.path.join(FOLDER, name), "rb") as file:
            data = file.read()
        mark = hashlib.sha256(data).hexdigest()[:12]
        found[name] = Static(f"{mark}.{name}", kind, data)
    return found


@cache
def by_address() -> dict[str, Static]:
    """Return the files by their names in an address."""
    return {one.name: one for one in all_files().values()}
