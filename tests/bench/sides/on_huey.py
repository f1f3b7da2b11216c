"""huey's side: the consumer imports `queue`; as a program it hands over."""

from __future__ import annotations

import os

import huey

from . import tool

FOLDER = os.environ["BENCH_FOLDER"]
if os.environ["BENCH_KIND"] == "file":
    queue = huey.FileHuey("bench", path=f"{FOLDER}/huey")
else:
    queue = huey.SqliteHuey("bench", filename=f"{FOLDER}/huey.db")
job = queue.task()(tool.run)

if __name__ == "__main__":
    tool.hand(job)
