"""The dispatcher of a spool as a process of its own, for tests: as `queuectl worker run` starts it, but also for root.

    python tests/as_dispatcher.py SPOOL [--drain] [--wait-retries]

Its runners beat often, so that tests need not wait. It prints what it says.
"""

from __future__ import annotations

import sys
from functools import partial

from queuectl.layout import Layout
from queuectl.worker import dispatcher, pool
from queuectl.worker.program import WorkerOptions

if __name__ == "__main__":
    options = WorkerOptions(
        drain="--drain" in sys.argv, wait_retries="--wait-retries" in sys.argv, engine="slurm"
    )
    dispatcher.Dispatcher = partial(dispatcher.Dispatcher, may_be_root=True, beat=0.5)  # type: ignore[assignment,misc]
    sys.exit(pool.be_one(Layout(sys.argv[1]), "foreground", options))
