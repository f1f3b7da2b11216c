"""queuectl for tests of a dispatcher: root may be one, and its runners beat often, so that tests need not wait.

    python tests/as_dispatcher.py worker start --engine slurm

Words and exit codes are those of queuectl.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from queuectl.cli import main
from queuectl.engine import check
from queuectl.worker import dispatcher, program

if __name__ == "__main__":
    dispatcher.Dispatcher = partial(dispatcher.Dispatcher, may_be_root=True, beat=0.5)  # type: ignore[assignment,misc]
    check.check = partial(check.check, may_be_root=True)
    program.words = lambda: [sys.executable, os.path.abspath(__file__)]  # what it starts is like it
    sys.exit(main())
