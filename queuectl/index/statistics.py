"""What the index keeps of a large spool for statistics, once somebody has asked for them.

It is made when it is first needed, as it costs time at the end of each job, and goes with the next rebuild: an SQL index
of the jobs that have ended, one of a sample of them, the sums of each quarter of an hour, and how many jobs of each lane
and of each batch are in which state.
"""

from __future__ import annotations

QUARTER = 900
"""Seconds of the smallest step in time of statistics. In every time zone, a day begins on such a step."""

ENDED_AT = "coalesce(finished_at, updated_at, arrived)"
"""In SQL: when a job last ended an attempt or was given up."""

HAS_ENDED = "state != 'pending' AND state != 'processing'"
"""In SQL: whether it has; for `IN` with three words SQLite would fill a table at each change of a row. The indexes jobs_ended and jobs_sampled hold these jobs, in the order of ENDED_AT."""

SAMPLED = 1 << 16
"""Of 2**20 jobs so many are in the index jobs_sampled."""

# Multiplying spreads consecutive numbers: without it, a sample of jobs that alternate would miss one kind.
SAMPLE_PLACE = f"((seq * 2654435761) >> 12) & {(1 << 20) - 1}"
"""In SQL: a number below 2**20 that is spread evenly over the jobs."""

IS_SAMPLED = f"{HAS_ENDED} AND {SAMPLE_PLACE} < {SAMPLED}"
_SAMPLE_HOLDS = "state, finished_at, attempts, started_at, created_at, arrived, run_at, duration"
"""What statistics read, so that they need not look the rows up one by one."""

# In the texts below @ stands before each column, for which the triggers need NEW. or OLD.
_WAITED = "CASE WHEN @attempts < 2 THEN @started_at - max(coalesce(@created_at, @arrived), coalesce(@run_at, 0)) END"
_IS_COUNTED = "(@state = 'completed' OR @state = 'dead') AND @finished_at IS NOT NULL"
_QUARTER = f"@finished_at / {QUARTER}000000"
_SUMS = {
    "completed": "@state = 'completed'",
    "dead": "@state = 'dead'",
    "attempts": "@attempts",
    "retried": "@attempts > 1",
    "ran": "coalesce(@duration, 0)",
}
_EXTREMES = {
    "longest_wait": ("max", _WAITED),
    "longest_run": ("max", "@duration"),
    "first_start": ("min", "coalesce(@started_at, @finished_at)"),
    "last_end": ("max", "@finished_at"),
}


def _of(row: str, expression: str) -> str:
    """Return an expression with the columns of a row of a trigger, "NEW." or "OLD."; "" for a query."""
    return expression.replace("@", row)


WAITED, IS_COUNTED, QUARTER_OF = _of("", _WAITED), _of("", _IS_COUNTED), _of("", _QUARTER)
"""In SQL: from when an ended job could first run to its start, NULL if it needed several attempts; whether statistics
count it, as it has run to an end; in which quarter of an hour it ended."""

ENDS = (*_SUMS, *_EXTREMES)
"""The columns of the table `ends`, which has the numbers of the jobs that ended in each quarter of an hour."""

COUNT_ENDS = _of(
    "",
    ", ".join(
        [f"sum({value})" for value in _SUMS.values()]
        + [f"{pick}({value})" for pick, value in _EXTREMES.values()]
    ),
)
"""In SQL: the same, counted from jobs."""

_VALUES = ", ".join([_QUARTER, *_SUMS.values(), *(value for _, value in _EXTREMES.values())])
_ADD_UP = [f"{name} = {name} + excluded.{name}" for name in _SUMS] + [
    f"{name} = {pick}(ifnull({name}, excluded.{name}), ifnull(excluded.{name}, {name}))"
    for name, (pick, _) in _EXTREMES.items()
]
_SUBTRACT = ", ".join(f"{name} = {name} - ({value})" for name, value in _SUMS.items())
_IS_EXTREME = " OR ".join(f"({value}) IS {name}" for name, (_, value) in _EXTREMES.items())
_COUNT_IN = _of(
    "NEW.",
    f"INSERT INTO ends VALUES ({_VALUES}, 0) ON CONFLICT(quarter) DO UPDATE SET {', '.join(_ADD_UP)};",
)
# When the job with the longest time of a quarter goes, the next longest is unknown until somebody asks.
_COUNT_OUT = _of(
    "OLD.",
    f"""UPDATE ends SET {_SUBTRACT}, unsure = unsure OR {_IS_EXTREME} WHERE quarter = {_QUARTER};
    DELETE FROM ends WHERE quarter = {_QUARTER} AND completed + dead < 1;""",
)

MAKE_ENDED = f"CREATE INDEX IF NOT EXISTS jobs_ended ON jobs({ENDED_AT}) WHERE {HAS_ENDED};"
"""The statement that makes the index of the jobs that have ended, in the order of ENDED_AT."""

MAKE = f"""{MAKE_ENDED}
CREATE INDEX IF NOT EXISTS jobs_sampled ON jobs({ENDED_AT}, {_SAMPLE_HOLDS}) WHERE {IS_SAMPLED};
CREATE TABLE IF NOT EXISTS ends(quarter INTEGER PRIMARY KEY, {", ".join(ENDS)}, unsure INTEGER NOT NULL);
DELETE FROM ends;
INSERT INTO ends SELECT {QUARTER_OF}, {COUNT_ENDS}, 0 FROM jobs NOT INDEXED WHERE {IS_COUNTED} GROUP BY 1;
CREATE TRIGGER IF NOT EXISTS ends_in AFTER INSERT ON jobs WHEN {_of("NEW.", _IS_COUNTED)} BEGIN {_COUNT_IN} END;
CREATE TRIGGER IF NOT EXISTS ends_out AFTER DELETE ON jobs WHEN {_of("OLD.", _IS_COUNTED)} BEGIN {_COUNT_OUT} END;
CREATE TRIGGER IF NOT EXISTS ends_undone AFTER UPDATE OF state ON jobs WHEN {_of("OLD.", _IS_COUNTED)}
    BEGIN {_COUNT_OUT} END;
CREATE TRIGGER IF NOT EXISTS ends_done AFTER UPDATE OF state ON jobs WHEN {_of("NEW.", _IS_COUNTED)}
    BEGIN {_COUNT_IN} END;
"""
"""The statements that make all of it; the trigger `ends_done` comes last."""

COUNT_ABOVE = 10_000
"""Of fewer jobs than this those of a lane or of a batch are counted when somebody asks: 5 ms."""


def _count_each(name: str, value: str, column: str, condition: str) -> str:
    """Return the statements that make a table of how many jobs with each value of a column are in which state.

    Args:
        value, condition: what is counted, and of which jobs, with @ before each column.
    """
    row = "SET n = n {sign} 1 WHERE name = {value} AND state = {row}state"
    steps = {}
    for way, sign in (("NEW.", "+"), ("OLD.", "-")):
        changed = row.format(sign=sign, value=_of(way, value), row=way)
        steps[way] = f"UPDATE {name} {changed};"
    # No ON CONFLICT here: within a trigger that of the statement counts which has caused it.
    steps["NEW."] = (
        f"INSERT OR IGNORE INTO {name} VALUES ({_of('NEW.', value)}, NEW.state, 0); {steps['NEW.']}"
    )
    steps["OLD."] += f" DELETE FROM {name} WHERE name = {_of('OLD.', value)} AND n < 1;"
    moved = f"(OLD.state != NEW.state OR OLD.{column} IS NOT NEW.{column})"
    new, old = _of("NEW.", condition), _of("OLD.", condition)
    return f"""
CREATE TABLE IF NOT EXISTS {name}(name TEXT, state TEXT, n INTEGER NOT NULL, PRIMARY KEY(name, state)) WITHOUT ROWID;
DELETE FROM {name};
INSERT INTO {name} SELECT {_of("", value)}, state, count(*) FROM jobs NOT INDEXED WHERE {_of("", condition)} GROUP BY 1, 2;
CREATE TRIGGER IF NOT EXISTS {name}_in AFTER INSERT ON jobs WHEN {new} BEGIN {steps["NEW."]} END;
CREATE TRIGGER IF NOT EXISTS {name}_out AFTER DELETE ON jobs WHEN {old} BEGIN {steps["OLD."]} END;
CREATE TRIGGER IF NOT EXISTS {name}_undone AFTER UPDATE OF state, {column} ON jobs WHEN {old} AND {moved}
    BEGIN {steps["OLD."]} END;
CREATE TRIGGER IF NOT EXISTS {name}_done AFTER UPDATE OF state, {column} ON jobs WHEN {new} AND {moved}
    BEGIN {steps["NEW."]} END;
"""


COUNT_LANES = _count_each("lane_states", "coalesce(@lane, '')", "lane", "@state != 'completed'")
"""The statements that count the jobs of each lane by state, but for completed ones; the trigger `lane_states_done` comes last."""

COUNT_BATCHES = _count_each("batch_states", "@batch", "batch", "@batch IS NOT NULL")
"""The same of each batch, with completed ones; the trigger `batch_states_done` comes last."""
