"""`python -m queuectl` is the same as `queuectl`. Workers are started by the path of this file."""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and __package__:
    # `python -m` has put the current directory first: a queue.py in it would be imported instead of Python's own.
    # This package has been found already, and finds its other modules by its own path.
    del sys.path[0]
if not __package__:
    # Started by its path. An installed package is in the path already; one in a checkout is not.
    root = __file__.rpartition("queuectl")[0].rstrip("/\\") or "."
    if root not in sys.path:
        sys.path.append(root)

from queuectl.cli import main

if __name__ == "__main__":
    sys.exit(main())
