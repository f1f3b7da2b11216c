"""Jobs that wait for jobs, in the index: which conditions are met, and which jobs are let go by the end of another.

The tables and triggers follow every change of the rows, whoever makes it. So no writer of rows needs to know of them, and no
end of a parent can be missed. Only the conditions of jobs that wait or run are kept.

A trigger costs more than the same in Python: 124 instead of 57 µs for each job of a chain, measured once. A job costs 1,000
µs, and one that nobody waits for pays for a single look. What is done for a new row that matters is behind a view: SQLite
prepares the whole text of a trigger before it looks at its condition, which cost each new row 8 µs of 12.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.job.record import Job

TABLES = """
CREATE TABLE IF NOT EXISTS waits(
    seq INTEGER NOT NULL, parent TEXT NOT NULL, kind TEXT NOT NULL, least INTEGER NOT NULL, dies INTEGER NOT NULL,
    verdict INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS children(seq INTEGER PRIMARY KEY, unmet INTEGER NOT NULL, decided INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches(
    batch TEXT PRIMARY KEY, waiting INTEGER NOT NULL, done INTEGER NOT NULL, dead INTEGER NOT NULL) WITHOUT ROWID;
"""
"""`waits` has the conditions, `children` how many of a job's conditions are not met or decide what becomes of it.

`batches` counts the jobs of each batch that do not themselves wait for it.
"""

NAMES = ("waits", "children", "batches")
"""The tables."""

VIEW = "arrivals"
"""What a new row is told to, if others wait for it, or it has conditions or a batch."""


def _of_job(state: str) -> str:
    """The verdict on a condition by the state of the parent, see `Condition.judge`."""
    return f"""CASE kind WHEN 'after_any' THEN {state} IS 'completed' OR {state} IS 'dead'
        WHEN 'after' THEN ({state} IS 'completed') + 2 * ({state} IS 'dead' AND dies)
        ELSE ({state} IS 'dead') + 2 * ({state} IS 'completed') END"""


def _of_batch(waiting: str, done: str, dead: str) -> str:
    """The same for a batch, see `Condition.judge_batch`."""
    return f"""CASE WHEN kind = 'after' AND {dead} > 0 AND dies THEN 2
        WHEN {waiting} > 0 OR {done} + {dead} < least THEN 0
        WHEN kind = 'after' THEN {dead} = 0 AND {done} >= least
        WHEN kind = 'after_any' OR {dead} > 0 THEN 1
        ELSE 2 * ({done} > 0) END"""


_STATE = "(SELECT state FROM jobs WHERE id = parent)"
_NUMBER = "coalesce((SELECT {0} FROM batches WHERE batch = substr(parent, 7)), 0)"
_VERDICT = f"""CASE WHEN parent GLOB 'batch:*'
    THEN {_of_batch(*(_NUMBER.format(name) for name in ("waiting", "done", "dead")))} ELSE {_of_job(_STATE)} END"""
_OVER = "('completed', 'dead')"
_WAITING = "('pending', 'failed')"

_READ = """SELECT {seq} AS seq, json_extract(value, '$[0]') AS parent, json_extract(value, '$[1]') AS kind,
        json_extract(value, '$[2]') AS least, json_extract(value, '$[3]') AS dies FROM {source}"""
_FILL = f"""INSERT INTO waits(seq, parent, kind, least, dies, verdict) SELECT *, {_VERDICT} FROM ({_READ})"""
_COUNT = """INSERT OR REPLACE INTO children
    SELECT seq, sum(verdict = 0), sum(verdict = 2) FROM waits {where} GROUP BY seq"""

_ENDED = """(SELECT max(coalesce(ended.finished_at, ended.updated_at, 0)) FROM jobs AS ended WHERE ended.id IN (
    SELECT parent FROM waits WHERE waits.seq = {seq}))"""
FREE = "unmet = 0 OR decided > 0"
"""Of a row of `children`: nothing keeps the job any more."""

_LET_GO = f"""UPDATE jobs SET ready_key = NULL, behind = NULL,
    due = max(coalesce(next_retry_at, run_at, 0), arrived, coalesce({_ENDED.format(seq="jobs.seq")}, 0))
    WHERE hold = 0 AND state IN {_WAITING}"""
"""A job gets its place in the order at the next claim, as one that is due. It has waited since its last parent ended."""

_PUT_OFF = f"UPDATE jobs SET ready_key = NULL, due = NULL, behind = NULL WHERE state IN {_WAITING}"


def _judge_again(parent: str, verdict: str) -> str:
    return f"UPDATE waits SET verdict = {verdict} WHERE parent = {parent} AND verdict != {verdict};"


def _counted(row: str) -> dict[str, str]:
    """What a member of a batch adds to each of its numbers."""
    return {
        "waiting": f"({row}.state NOT IN {_OVER})",
        "done": f"({row}.state = 'completed')",
        "dead": f"({row}.state = 'dead')",
    }


def _member(row: str, sign: str) -> str:
    """Count a member of a batch in or out."""
    numbers = ", ".join(f"{name} = {name} {sign} {adds}" for name, adds in _counted(row).items())
    make = f"INSERT OR IGNORE INTO batches SELECT {row}.member, 0, 0, 0 WHERE {row}.member IS NOT NULL;"
    return f"{make if sign == '+' else ''} UPDATE batches SET {numbers} WHERE batch = {row}.member;"


# In one step: between two, the batch would look as if its last job had vanished, and be taken for complete.
_MEMBER_ENDS = f"""UPDATE batches SET {
    ", ".join(f"{name} = {name} + {_counted('NEW')[name]} - {adds}" for name, adds in _counted("OLD").items())
} WHERE batch = NEW.member AND OLD.member IS NEW.member;"""


_NEW_STATE, _IS_PARENT = _of_job("NEW.state"), "EXISTS (SELECT 1 FROM waits WHERE parent = {0}.id)"
_MAKE = f"""
    DELETE FROM waits WHERE seq = NEW.seq;
    DELETE FROM children WHERE seq = NEW.seq;
    {_FILL.format(seq="NEW.seq", source=f"json_each(NEW.conditions) WHERE NEW.state NOT IN {_OVER}")};
    {_COUNT.format(where="WHERE seq = NEW.seq")};
"""
TRIGGERS = f"""
CREATE INDEX IF NOT EXISTS waits_child ON waits(seq);
CREATE INDEX IF NOT EXISTS waits_parent ON waits(parent);
CREATE INDEX IF NOT EXISTS jobs_batch ON jobs(batch, state) WHERE batch IS NOT NULL;

CREATE TRIGGER IF NOT EXISTS child_over AFTER UPDATE OF state, conditions ON jobs
    WHEN OLD.conditions IS NOT NEW.conditions
    OR (NEW.conditions IS NOT NULL AND (OLD.state IN {_OVER}) != (NEW.state IN {_OVER})) BEGIN {_MAKE} END;
CREATE TRIGGER IF NOT EXISTS child_out AFTER DELETE ON jobs WHEN OLD.conditions IS NOT NULL BEGIN
    DELETE FROM waits WHERE seq = OLD.seq; DELETE FROM children WHERE seq = OLD.seq; END;

CREATE VIEW IF NOT EXISTS {VIEW} AS SELECT seq, id, state, conditions, member FROM jobs;
CREATE TRIGGER IF NOT EXISTS related_in AFTER INSERT ON jobs
    WHEN NEW.conditions IS NOT NULL OR NEW.member IS NOT NULL OR {_IS_PARENT.format("NEW")} BEGIN
    INSERT INTO {VIEW} VALUES (NEW.seq, NEW.id, NEW.state, NEW.conditions, NEW.member); END;
CREATE TRIGGER IF NOT EXISTS arrives INSTEAD OF INSERT ON {VIEW} BEGIN
    {_MAKE} {_judge_again("NEW.id", _NEW_STATE)} {_member("NEW", "+")} END;
CREATE TRIGGER IF NOT EXISTS related_over AFTER UPDATE OF state ON jobs
    WHEN OLD.state != NEW.state AND (NEW.member IS NOT NULL OR {_IS_PARENT.format("NEW")}) BEGIN
    {_judge_again("NEW.id", _NEW_STATE)} {_MEMBER_ENDS} END;
CREATE TRIGGER IF NOT EXISTS parent_out AFTER DELETE ON jobs WHEN {_IS_PARENT.format("OLD")} BEGIN
    {_judge_again("OLD.id", _of_job("NULL"))} END;

CREATE TRIGGER IF NOT EXISTS member_moves AFTER UPDATE OF member ON jobs WHEN OLD.member IS NOT NEW.member BEGIN
    {_member("NEW", "+")} {_member("OLD", "-")} END;
CREATE TRIGGER IF NOT EXISTS member_out AFTER DELETE ON jobs WHEN OLD.member IS NOT NULL BEGIN
    {_member("OLD", "-")} END;
CREATE TRIGGER IF NOT EXISTS batch_over AFTER UPDATE ON batches BEGIN
    {_judge_again("'batch:' || NEW.batch", _of_batch("NEW.waiting", "NEW.done", "NEW.dead"))} END;

CREATE TRIGGER IF NOT EXISTS wait_over AFTER UPDATE OF verdict ON waits
    WHEN OLD.verdict != NEW.verdict AND EXISTS (SELECT 1 FROM children WHERE seq = NEW.seq) BEGIN
    UPDATE children SET unmet = unmet + (NEW.verdict = 0) - (OLD.verdict = 0),
        decided = decided + (NEW.verdict = 2) - (OLD.verdict = 2) WHERE seq = NEW.seq; END;
CREATE TRIGGER IF NOT EXISTS child_counted AFTER INSERT ON children BEGIN
    {_PUT_OFF} AND seq = NEW.seq; {_LET_GO} AND seq = NEW.seq AND (NEW.unmet = 0 OR NEW.decided > 0); END;
CREATE TRIGGER IF NOT EXISTS child_free AFTER UPDATE ON children
    WHEN (NEW.unmet = 0 OR NEW.decided > 0) AND NOT (OLD.unmet = 0 OR OLD.decided > 0) BEGIN
    {_LET_GO} AND seq = NEW.seq; END;
CREATE TRIGGER IF NOT EXISTS child_held_up AFTER UPDATE ON children
    WHEN (OLD.unmet = 0 OR OLD.decided > 0) AND NOT (NEW.unmet = 0 OR NEW.decided > 0) BEGIN
    {_PUT_OFF} AND seq = NEW.seq; END;
CREATE TRIGGER IF NOT EXISTS child_placed AFTER UPDATE OF ready_key, due, behind ON jobs
    WHEN NEW.conditions IS NOT NULL AND coalesce(NEW.ready_key, NEW.due, NEW.behind) IS NOT NULL
    AND EXISTS (SELECT 1 FROM children WHERE seq = NEW.seq AND NOT ({FREE})) BEGIN
    {_PUT_OFF} AND seq = NEW.seq; END;
"""

FINISH = f"""
DELETE FROM waits;
DELETE FROM children;
DELETE FROM batches;
INSERT INTO batches SELECT member, sum(state NOT IN {_OVER}), sum(state = 'completed'), sum(state = 'dead') FROM jobs
    WHERE member IS NOT NULL GROUP BY member;
{_FILL.format(seq="jobs.seq", source=f"jobs, json_each(conditions) WHERE conditions IS NOT NULL AND state NOT IN {_OVER}")};
CREATE INDEX IF NOT EXISTS waits_child ON waits(seq);
{_COUNT.format(where="")};
{_PUT_OFF} AND seq IN (SELECT seq FROM children);
{_LET_GO} AND seq IN (SELECT seq FROM children WHERE {FREE});
"""
"""What makes the tables anew from rows that were inserted without the triggers."""


OBSTACLES = """FROM waits JOIN children USING (seq)
    LEFT JOIN jobs AS parents ON parents.id = waits.parent
    LEFT JOIN batches ON waits.parent GLOB 'batch:*' AND batches.batch = substr(waits.parent, 7)"""
"""The conditions of jobs, each with the row of the job that it is about, or of the batch."""


def _stopped(first: str) -> str:
    """Return the SQL for the waiting jobs with a condition that is not met and stops them, and for those that wait for these."""
    return f"""SELECT seq FROM (WITH RECURSIVE
    stopped(seq) AS (
        SELECT waits.seq {OBSTACLES} WHERE verdict = 0 AND decided = 0 AND {first}
        UNION SELECT waits.seq FROM stopped JOIN jobs AS blocked ON blocked.seq = stopped.seq
            JOIN waits ON waits.parent IN (blocked.id, 'batch:' || blocked.member) JOIN children ON children.seq = waits.seq
            WHERE verdict = 0 AND decided = 0)
    SELECT stopped.seq FROM stopped JOIN jobs AS child USING (seq) WHERE child.state IN {_WAITING})"""


IS_STOPPED = """CASE WHEN waits.parent GLOB 'batch:*'
    THEN coalesce(waiting, 0) = 0 ELSE coalesce(parents.state, 'dead') = 'dead' END"""
"""Whether a condition that is not met waits for a job that is dead or nowhere, or for a batch of which no job is left."""

BLOCKED = _stopped(IS_STOPPED)
"""The waiting jobs that start only once somebody does something: a job for which they wait is dead, or is nowhere, or is itself
such a job, or a batch for which they wait has such a job."""

FAILED = _stopped("kind = 'after' AND (parents.state = 'dead' OR batches.dead > 0)")
"""Those of them that wait for a success which a dead job prevents, also while others of its batch still run."""


def text_of(job: Job) -> str:
    """Return the conditions of a job as the index stores them: in JSON."""
    from json import dumps

    from queuectl.job.conditions import of_job

    # To dump the whole list at once takes three times as long.
    entries = (f'[{dumps(one.parent)}, "{one.kind}", {one.least}, {int(one.dies)}]' for one in of_job(job))
    return f"[{', '.join(entries)}]"


def waits_for_batch(job: Job, batch: str) -> bool:
    """Return whether a job waits for this batch."""
    from queuectl.job.conditions import of_job

    return any(one.batch == batch for one in of_job(job))
