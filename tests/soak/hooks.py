"""Rules of the soak about jobs: each end has exactly one job that tells of it, whoever is killed and whenever."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from queuectl import Spool
from queuectl.index import ends
from queuectl.job import record as jobs
from queuectl.job.outcome import CANCELLED
from queuectl.rules import hooks

from .world import Violation

if TYPE_CHECKING:
    from pathlib import Path

    from .world import World

RULES = {
    "alarm": "{job: dead}",
    "ended": "{job: done, queue: mail}",
    "well": "{job: recovered}",
    "digest": "{job: dead, within: 8s}",
    "calm": "{job: empty}",
}
"""The rules, and what each of them is about."""

PREFIXES = tuple(f"{rule}." for rule in RULES)
"""How the ids of their jobs begin. Nobody moves, cancels or deletes one: it could tell nothing then."""


def add(world: World) -> None:
    """Write the rules. Each of their jobs writes down of what it tells."""
    (world.outside / "digests").mkdir()
    told = f'echo "$QUEUECTL_ABOUT $QUEUECTL_JOB_ID" >>{world.outside}/told'
    listed = f'[ -z "$QUEUECTL_AFTER" ] || cp "$QUEUECTL_AFTER" {world.outside}/digests/"$QUEUECTL_JOB_ID"'
    command = f"{told}; {listed}; exec sh {world.outside}/job.sh {world.outside} ok 0"
    for rule, when in RULES.items():
        text = json.dumps({"command": command})
        (world.spool / "rules" / f"{rule}.yaml").write_text(f"when: {when}\njob: {text}\n")


def note(world: World) -> None:
    """Note which jobs have ended and which hooks there are, before somebody deletes them."""
    for path in _records(world):
        record = _read(path)
        if path.name.startswith(PREFIXES):
            world.hooks.setdefault(record.get("about", ""), set()).add(path.stem)
        elif path.parent.name in ("done", "dead"):
            _note_end(world, path, record)


def _records(world: World) -> list[Path]:
    # In the order in which a job goes through them, so that one which moves meanwhile is met.
    patterns = ("pending/*.json", "processing/*/*.json", "done/*.json", "dead/*.json")
    return [path for pattern in patterns for path in world.spool.glob(pattern)]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note_end(world: World, path: Path, record: dict[str, Any]) -> None:
    if path.parent.name == "dead":
        is_told = path.name.startswith("rubbish-") or record.get("last_error") not in (None, CANCELLED)
        wanted = {"alarm"} if is_told else set()
    else:
        job = jobs.from_mapping(record) if "command" in record else None
        wanted = {"ended"} if record.get("queue") == "mail" else set()
        wanted |= {"well"} if job is not None and job.has_recovered else set()
    if record or path.name.startswith("rubbish-"):
        world.ended[path.stem] = wanted


def untold(world: World) -> list[str]:
    """Return the ends of which no job tells, or several do, and those that are in no digest, or in several."""
    note(world)
    hooks_of = {about: set(ids) for about, ids in world.hooks.items()}
    told = _told(world)
    for about, job_id in told:
        hooks_of.setdefault(about, set()).add(job_id)
    wrong = []
    for job_id, wanted in world.ended.items():
        if job_id in world.again:
            continue
        found = hooks_of.get(job_id, set())
        begun = {one for about, one in told if about == job_id}
        for rule in ("alarm", "ended", "well"):
            # A worker may have died between the hook and an end that came out otherwise: then that hook is not needed.
            number = sum(one.startswith(f"{rule}.") for one in (found if rule in wanted else begun))
            if number != (rule in wanted):
                wrong.append(f"{job_id}: {number} of {rule}")
    return wrong + _not_in_one_digest(world) + _empty_untold(world)


def _told(world: World) -> list[tuple[str, str]]:
    path = world.outside / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(about, job_id) for about, _, job_id in (line.rpartition(" ") for line in lines)]


def _not_in_one_digest(world: World) -> list[str]:
    lists = [path.read_text() for path in (world.outside / "digests").glob("digest.*")]
    listed = [line.split("\t")[0] for text in lists for line in text.splitlines()]
    there = {path.stem for path in (world.spool / "dead").glob("*.json")} - world.again
    wanted = [job_id for job_id in there if "alarm" in world.ended.get(job_id, ())]
    return [f"{job_id}: in {number} digests" for job_id in wanted if (number := listed.count(job_id)) != 1]


def _empty_untold(world: World) -> list[str]:
    """See that the run which ended last is told, as nothing is left."""
    spool = Spool(world.spool)
    if any(spool.counts()[state] for state in ("pending", "failed", "processing")):
        return []
    with spool._lock:
        last = ends.last_run(spool._index, (), ())
    hook = f"calm.{hooks.occurrence_of('empty', *last)}" if last else ""
    return [] if hook in world.places() else [f"nothing tells that the spool is empty after {last}"]


def check(world: World) -> None:
    """See that each end is told once.

    Raises:
        Violation: one is not.
    """
    if wrong := untold(world):
        raise Violation(f"ends that are not told once: {wrong}")
    told = {job_id for _, job_id in _told(world)}
    for rule in RULES:
        number = sum(job_id.startswith(f"{rule}.") for job_id in told)
        world.counts[f"told by {rule}"] = number
        if not number:
            raise Violation(f"the rule {rule} has told nothing")
