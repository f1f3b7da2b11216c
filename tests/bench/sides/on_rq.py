"""rq's side: as a program it hands over; its workers find the job in `tool`."""

from __future__ import annotations

import os

import redis
import rq

from . import tool

if __name__ == "__main__":
    queue = rq.Queue(connection=redis.Redis.from_url(os.environ["BENCH_URL"]))
    tool.hand(lambda command: queue.enqueue(tool.run, command))
