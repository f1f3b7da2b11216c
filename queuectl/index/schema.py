"""The tables of the index. A change here needs a new number, which makes every index be built anew."""

from __future__ import annotations

import sqlite3

from queuectl.job.fields import STATES

SCHEMA = 5

TABLES = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders(
    place TEXT PRIMARY KEY, mtime INTEGER, inode INTEGER, stamped INTEGER, scan TEXT, whole INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL,
    ready_key INTEGER, due INTEGER, arrived INTEGER, priority INTEGER, attempts INTEGER, max_retries INTEGER,
    created_at INTEGER, updated_at INTEGER, run_at INTEGER, next_retry_at INTEGER,
    command TEXT, worker TEXT, exit_code INTEGER, last_error TEXT,
    inode INTEGER, mtime INTEGER, size INTEGER, settings TEXT, ours INTEGER,
    tags TEXT, unique_key TEXT, started_at INTEGER, finished_at INTEGER, duration INTEGER,
    behind INTEGER, expires INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_place ON jobs(place, name);
"""
"""What rows are put into, and found again by."""

_ACTIVE = "coalesce(ready_key, due, behind) IS NOT NULL"
LET_NEXT = f"""UPDATE jobs SET ready_key = behind, behind = NULL
    WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE unique_key = :key AND state = 'processing') AND seq IN (
        SELECT seq FROM jobs WHERE unique_key = :key AND state = 'failed' AND behind IS NOT NULL UNION ALL
        SELECT * FROM (SELECT seq FROM jobs WHERE unique_key = :key AND state = 'pending' AND behind IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM jobs WHERE unique_key = :key AND state = 'failed' AND {_ACTIVE})
            ORDER BY behind, seq LIMIT 1));"""
"""Give those jobs of a key their place in the order that come next, once none of it runs: those that have begun, else
the first of the others."""

_LET_NEXT = LET_NEXT.replace(":key", "OLD.unique_key")
ORDERS = f"""
CREATE INDEX IF NOT EXISTS jobs_ready ON jobs(ready_key, seq) WHERE ready_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs(due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_unique ON jobs(unique_key, state, behind, seq) WHERE unique_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_behind ON jobs(unique_key) WHERE behind IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_expires ON jobs(expires) WHERE expires IS NOT NULL AND place = 'pending';
CREATE INDEX IF NOT EXISTS jobs_state ON jobs(state, seq);
CREATE TABLE IF NOT EXISTS counts(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counts VALUES {", ".join(f"('{state}', 0)" for state in STATES)};
CREATE TRIGGER IF NOT EXISTS jobs_in AFTER INSERT ON jobs BEGIN
    UPDATE counts SET n = n + 1 WHERE state = NEW.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_out AFTER DELETE ON jobs BEGIN
    UPDATE counts SET n = n - 1 WHERE state = OLD.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_over AFTER UPDATE OF state ON jobs WHEN OLD.state != NEW.state BEGIN
    UPDATE counts SET n = n - 1 WHERE state = OLD.state; UPDATE counts SET n = n + 1 WHERE state = NEW.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_next AFTER UPDATE OF state, ready_key, unique_key ON jobs
    WHEN OLD.unique_key IS NOT NULL AND OLD.behind IS NULL AND NEW.behind IS NULL
    AND (NEW.state != 'processing' OR NEW.unique_key IS NOT OLD.unique_key) BEGIN {_LET_NEXT} END;
CREATE TRIGGER IF NOT EXISTS jobs_gone AFTER DELETE ON jobs WHEN OLD.unique_key IS NOT NULL BEGIN {_LET_NEXT} END;
"""


def start_anew(db: sqlite3.Connection) -> None:
    """Make empty tables in place of those that are there, without what would slow down putting a million rows in."""
    for table in ("jobs", "counts", "folders", "meta"):
        db.execute(f"DROP TABLE {table}")
    _run(db, TABLES)


def finish(db: sqlite3.Connection) -> None:
    """Make the rest once the rows are in, and count them."""
    _run(db, ORDERS)
    db.execute("INSERT OR REPLACE INTO counts SELECT state, count(*) FROM jobs GROUP BY state")


def _run(db: sqlite3.Connection, statements: str) -> None:
    """Run statements within the transaction that is open, where executescript would end it."""
    statement = ""
    for line in statements.splitlines():
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


_DAMAGE = ("malformed", "not a database", "disk image", "disk I/O", "no such table", "no such column")


def is_damage(trouble: str | None) -> bool:
    """Whether what SQLite says means that the file is not what it was."""
    return trouble is not None and any(word in trouble for word in _DAMAGE)
