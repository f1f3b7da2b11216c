"""celery's side: the worker imports `app`; as a program it hands over."""

from __future__ import annotations

import os

import celery

from . import tool

FOLDER = os.environ["BENCH_FOLDER"]
if os.environ["BENCH_KIND"] == "file":
    app = celery.Celery("bench", broker="filesystem://", backend=f"file://{FOLDER}/results")
    folder = f"{FOLDER}/messages"
    app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "processed_folder": f"{FOLDER}/processed",
        "store_processed": True,
        "control_folder": f"{FOLDER}/control",
    }
else:
    app = celery.Celery("bench", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"])
job = app.task(name="run")(tool.run)

if __name__ == "__main__":
    tool.hand(job.delay)
