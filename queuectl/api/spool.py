"""The class Spool, which is the Python API."""

from __future__ import annotations

from queuectl.api.spool_batch import BatchPart
from queuectl.api.spool_change import ChangePart
from queuectl.api.spool_enqueue import EnqueuePart
from queuectl.api.spool_pause import PausePart
from queuectl.api.spool_queue import QueuePart
from queuectl.api.spool_read import ReadPart
from queuectl.api.spool_remove import RemovePart
from queuectl.api.spool_report import ReportPart
from queuectl.api.spool_result import ResultPart
from queuectl.api.spool_rule import RulePart


class Spool(
    EnqueuePart,
    ReadPart,
    ResultPart,
    ChangePart,
    RemovePart,
    PausePart,
    QueuePart,
    BatchPart,
    RulePart,
    ReportPart,
):
    """A spool of jobs in a folder, which is created when it is first written to.

    Each part has the methods for one purpose, and no part knows another. All of them stand on `SpoolBase`.

    Threads may share an object: they take turns, but nobody waits for a thread that waits for jobs. A forked process may
    go on using it. `close`, or `with`, closes its files.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.
    """
