"""The words that start queuectl as another process, wherever the caller stands."""

from __future__ import annotations

import os
import sys


def words() -> list[str]:
    """Return the program and its first arguments; the words of a command line of queuectl follow.

    `python -m queuectl` would put the current directory first in the search path, and import a `queue.py` or `json.py`
    that lies there. With -P, nothing is imported from the current directory. The file __main__.py finds its package by
    itself, so that a checkout that is not installed works too.
    """
    if getattr(sys, "frozen", False):  # one file that holds Python and all modules
        return [sys.executable]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-P", os.path.join(package, "__main__.py")]
