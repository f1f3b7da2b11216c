"""A background job spool made of plain files.

    from queuectl import Spool

    spool = Spool("~/my-spool")
    job = spool.enqueue("echo hello", priority=8)
    spool.counts()

Names are loaded when they are first used, so that `import queuectl` itself costs almost nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.api.dependencies import Waiting
    from queuectl.api.job_fields import JobChanges, JobFields
    from queuectl.api.paging import Page
    from queuectl.api.row import Row
    from queuectl.api.spool import Spool
    from queuectl.api.spool_batch import Batch
    from queuectl.api.stats import Stats
    from queuectl.api.waiting import Ended
    from queuectl.config.settings import Settings
    from queuectl.control.registry import WorkerInfo
    from queuectl.errors import (
        ConfigError,
        DuplicateId,
        IndexBehind,
        InvalidJob,
        JobError,
        JobNotFound,
        KeyTaken,
        MoveError,
        NeverStarts,
        NotSent,
        NotSentNow,
        QueuectlError,
        QueuedUnsafely,
        Shortage,
        SpoolError,
        SpoolFull,
        StartRefused,
        StillNeeded,
        StillUnderWay,
        UnknownField,
        WorkerError,
    )
    from queuectl.index.filter import Filter
    from queuectl.job.record import Job
    from queuectl.job.template import Template
    from queuectl.storage.queue_state import Queue
    from queuectl.storage.retention import Purged
    from queuectl.worker.events import JobEvent
    from queuectl.worker.worker import Worker

    __version__: str

__all__ = [
    "Batch",
    "ConfigError",
    "DuplicateId",
    "Ended",
    "Filter",
    "IndexBehind",
    "InvalidJob",
    "Job",
    "JobChanges",
    "JobError",
    "JobEvent",
    "JobFields",
    "JobNotFound",
    "KeyTaken",
    "MoveError",
    "NeverStarts",
    "NotSent",
    "NotSentNow",
    "Page",
    "Purged",
    "Queue",
    "QueuectlError",
    "QueuedUnsafely",
    "Row",
    "Settings",
    "Shortage",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "StartRefused",
    "Stats",
    "StillNeeded",
    "StillUnderWay",
    "Template",
    "UnknownField",
    "Waiting",
    "Worker",
    "WorkerError",
    "WorkerInfo",
    "__version__",
]

_MODULES = {
    "Batch": "api.spool_batch",
    "Ended": "api.waiting",
    "Filter": "index.filter",
    "Job": "job.record",
    "JobChanges": "api.job_fields",
    "JobEvent": "worker.events",
    "JobFields": "api.job_fields",
    "Page": "api.paging",
    "Purged": "storage.retention",
    "Queue": "storage.queue_state",
    "Row": "api.row",
    "Settings": "config.settings",
    "Spool": "api.spool",
    "Stats": "api.stats",
    "Template": "job.template",
    "Waiting": "api.dependencies",
    "Worker": "worker.worker",
    "WorkerInfo": "control.registry",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module; names that are not in _MODULES are errors."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("queuectl")
    else:
        from importlib import import_module

        value = getattr(import_module(f"queuectl.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
