"""The mutants: what is taken out, and who has to notice."""

from __future__ import annotations

from .on_batches import BATCHES
from .on_bulk_verbs import MANY
from .on_content import INTAKE, MIRROR
from .on_control import CONTROL
from .on_dependencies import DEPENDENCIES
from .on_disk import CLOBBER, ORDERS, SYNCS
from .on_engine import ENGINE
from .on_file_rules import FILE_RULES
from .on_idle import IDLE
from .on_job_rules import JOB_RULES
from .on_leftovers import LATE
from .on_limits import LIMITS
from .on_notify import NOTIFY
from .on_permissions import TRUST
from .on_policy import KEPT, KEYS, RETRIES, TIMES
from .on_prefetch import PREFETCH
from .on_processes import ENDS, IDENTITY, LOCKS
from .on_python import PYTHON
from .on_queues import QUEUES
from .on_reports import LETTERS, SEEING
from .on_rules import RULES
from .on_shell import BULK, SERVICE
from .on_slots import SLOTS
from .on_web import WEB
from .on_workers import WORKERS

MUTANTS = (
    *SYNCS,
    *ORDERS,
    *CLOBBER,
    *LOCKS,
    *IDENTITY,
    *ENDS,
    *MIRROR,
    *INTAKE,
    *TRUST,
    *RETRIES,
    *TIMES,
    *KEYS,
    *KEPT,
    *LETTERS,
    *SEEING,
    *BULK,
    *SERVICE,
    *CONTROL,
    *IDLE,
    *PREFETCH,
    *LATE,
    *MANY,
    *PYTHON,
    *WEB,
    *WORKERS,
    *SLOTS,
    *LIMITS,
    *BATCHES,
    *DEPENDENCIES,
    *QUEUES,
    *NOTIFY,
    *FILE_RULES,
    *JOB_RULES,
    *RULES,
    *ENGINE,
)
