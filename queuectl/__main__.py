"""`python -m queuectl` is the same as `queuectl`."""

from __future__ import annotations

import sys

from queuectl.cli import main

if __name__ == "__main__":
    sys.exit(main())
