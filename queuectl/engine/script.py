"""The script that nodes start: one file, made of the modules `guard` and `node`, with a name that tells its content."""

from __future__ import annotations

import hashlib
import inspect
from functools import cache

from queuectl.engine import guard, node

_FIRST = "#!/usr/bin/python3 -IS\n"
"""The system's Python, alone. A pyenv or conda in front of it would cost 100 ms for each runner, and may be missing."""


@cache
def text() -> bytes:
    """Return the script. It needs Python 3.6 and its standard library."""
    parts = [inspect.getsource(module) for module in (guard, node)]
    lines = "\n".join(parts).splitlines(keepends=True)
    return (_FIRST + "".join(line for line in lines if not line.startswith("from queuectl"))).encode()


def name() -> str:
    """Return the name of its file. Another content has another name: an upgrade changes no file of a running job."""
    return f"node-{hashlib.sha256(text()).hexdigest()[:8]}.py"
