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
    from queuectl.api.spool import Spool
    from queuectl.config.settings import Settings
    from queuectl.errors import (
        ConfigError,
        DuplicateId,
        InvalidJob,
        JobError,
        JobNotFound,
        KeyTaken,
        MoveError,
        QueuectlError,
        SpoolError,
        SpoolFull,
        StillUnderWay,
        WorkerError,
    )
    from queuectl.index.filter import Filter
    from queuectl.job.record import Job
    from queuectl.job.template import Template
    from queuectl.worker.worker import Worker

    __version__: str

__all__ = [
    "ConfigError",
    "DuplicateId",
    "Filter",
    "InvalidJob",
    "Job",
    "JobError",
    "JobNotFound",
    "KeyTaken",
    "MoveError",
    "QueuectlError",
    "Settings",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "StillUnderWay",
    "Template",
    "Worker",
    "WorkerError",
    "__version__",
]

_MODULES = {
    "Filter": "index.filter",
    "Job": "job.record",
    "Settings": "config.settings",
    "Spool": "api.spool",
    "Template": "job.template",
    "Worker": "worker.worker",
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
