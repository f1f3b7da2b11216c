"""What a run is told of other jobs: of those for which it has waited, or of which its rule tells.

For a run on a cluster the list of them lies in the folder of the pack, as a node does not see the spool. A spool without
such jobs loads nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import SpoolError
from queuectl.storage import dependencies

if TYPE_CHECKING:
    from queuectl.job.record import Job
    from queuectl.rules.job_rules import JobRules
    from queuectl.storage.transitions import Claim, Storage
    from queuectl.worker.job_run import WorkerContext


def why_not_needed(storage: Storage, rules: JobRules | None, job: Job) -> str | None:
    """Return why a hook has nothing to tell any more; None: it has, or the job is none.

    Raises:
        sqlite3.Error: the index refused.
    """
    if job.about is None or rules is None:
        return None
    from queuectl.rules import hook_facts

    return hook_facts.why_not_needed(storage, rules, job)


def variables_here(context: WorkerContext, job: Job, list_file: str) -> dict[str, str]:
    """Return the variables of a hook that a worker is about to start.

    Args:
        list_file: where the list of the jobs of a period is written.

    Raises:
        SpoolError: they cannot be found out now.
    """
    from queuectl.rules import hook_facts

    facts = None
    with context.barrier:  # a damaged index is made anew, and the job starts then
        facts = hook_facts.variables(context.storage, context.rules, job, list_file)
    if facts is None:
        raise SpoolError("it cannot be found out of what it tells")
    return facts


def find_for_cluster(
    storage: Storage, rules: JobRules | None, claim: Claim, name: str
) -> tuple[dict[str, str], bytes | None]:
    """Return the variables of a claimed job, and its list of other jobs, if it has one.

    Args:
        name: the dispatcher's.

    Raises:
        SpoolError, sqlite3.Error: they cannot be found out now.
    """
    job, path, found = claim.job, storage.layout.worker_file(name, "after"), dict[str, str]()
    if claim.row.conditions is not None:
        found |= dependencies.describe(storage, job, path)
    if job.about is not None and rules is not None:
        from queuectl.rules import hook_facts

        found |= hook_facts.variables(storage, rules, job, path)
    if found.pop("QUEUECTL_AFTER", None) is None:
        return found, None
    try:
        with open(path, "rb") as file:
            return found, file.read()
    except OSError as error:
        raise SpoolError.from_os("read", path, error) from None
