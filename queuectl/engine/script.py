"""The script for nodes: made of the modules `guard` and `node`, so that a node needs nothing of queuectl."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from queuectl.errors import SpoolError

_MODULES = ("guard.py", "node.py")
_FIRST = "#!/usr/bin/python3 -IS\n"
"""The system's Python, alone. A pyenv or conda in front of it would cost 100 ms for each runner, and may be missing."""


@cache
def text() -> bytes:
    """Return the script. It needs Python 3.6 and its standard library.

    Raises:
        SpoolError: this program was built without the files of its modules.
    """
    lines = "\n".join(map(_source, _MODULES)).splitlines(keepends=True)
    return (_FIRST + "".join(line for line in lines if not line.startswith("from queuectl"))).encode()


def _source(name: str) -> str:
    # `inspect` finds no source in an executable of PyInstaller, where the modules are not loaded from their files.
    try:
        return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    except OSError:
        fact = f"this program has no file queuectl/engine/{name}, which nodes of a cluster run"
        raise SpoolError(fact, hint="queuectl guide service") from None


def name() -> str:
    """Return the name of its file. Another content has another name: an upgrade changes no file of a running job."""
    return f"node-{hashlib.sha256(text()).hexdigest()[:8]}.py"
