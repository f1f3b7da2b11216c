"""The sides of libraries that only keep: persist-queue and dirq."""

from __future__ import annotations

import os

from . import tool

FOLDER = os.environ["BENCH_FOLDER"]

if __name__ == "__main__":
    kind = os.environ["BENCH_KIND"]
    if kind == "dirq":
        from dirq.QueueSimple import QueueSimple

        tool.hand(QueueSimple(f"{FOLDER}/dirq").add)
    elif kind == "sqlite":
        from persistqueue import SQLiteAckQueue

        tool.hand(SQLiteAckQueue(f"{FOLDER}/persist").put)
    else:
        from persistqueue import Queue

        tool.hand(Queue(f"{FOLDER}/persist", tempdir=FOLDER).put)
