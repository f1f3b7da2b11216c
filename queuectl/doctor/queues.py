"""Examines the queues: files that cannot be read, pauses, full queues, queues that nobody serves, needs that cannot be met."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queuectl.config.queues import Queues
from queuectl.doctor.finding import Finding
from queuectl.errors import ConfigError
from queuectl.job.fields import is_queue
from queuectl.layout import QUEUE_FILE, QUEUE_PAUSED, QUEUES
from queuectl.storage import queue_state
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case

_CURE = "queuectl guide queues"


def examine(case: Case) -> Iterator[Finding]:
    """Examine the files of the queues, which needs no index."""
    try:
        queues = Queues(case.layout)
    except ConfigError as error:
        yield Finding("queue file", QUEUES, str(error), "correct it")
        return
    for name, fault in queues.faults().items():
        fact = f"{fault}; a worker that starts now begins no job of this queue"
        yield Finding("queue file", f"{QUEUES}/{name}{QUEUE_FILE}", fact, "correct the file, or delete it")
    yield from _other_files(case)


def _other_files(case: Case) -> Iterator[Finding]:
    for name in sorted(os.listdir(case.layout.queues)):
        stem, ending = os.path.splitext(name)
        if (ending in (QUEUE_FILE, QUEUE_PAUSED) and is_queue(stem)) or name.startswith("."):
            continue
        if ending in (QUEUE_FILE, QUEUE_PAUSED, ".yml", ".json"):
            shown = files.printable_name(name)
            fact = f"{QUEUES}/{shown} is ignored: the file of a queue is called NAME{QUEUE_FILE}"
            yield Finding("queue file", f"{QUEUES}/{shown}", fact, _CURE)


def compare(case: Case) -> Iterator[Finding]:
    """Examine what keeps the jobs of queues from running, by the index, which agrees with the folders."""
    try:
        view = queue_state.QueueView(case.layout, case.index, case.settings)
    except ConfigError:
        return  # `examine` has told of it
    for queue in view.all():
        for fact in queue_state.troubles(view, queue):
            yield Finding("queue", queue.name, fact, _CURE, harmless=True)
    for fact in queue_state.shortage_notes(view):
        yield Finding("needs", "resources", fact, "queuectl config get resources", harmless=True)
