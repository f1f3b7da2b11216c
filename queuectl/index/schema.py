"""The tables of the index. A change here needs a new number, so that every existing index is rebuilt: layout.INDEX_SCHEMA."""

from __future__ import annotations

import sqlite3

from queuectl.job.fields import STATES

_TABLES = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders(
    place TEXT PRIMARY KEY, mtime INTEGER, inode INTEGER, stamped INTEGER, scan TEXT, whole INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL,
    ready_key INTEGER, due INTEGER, arrived INTEGER, priority INTEGER, attempts INTEGER, max_retries INTEGER,
    created_at INTEGER, updated_at INTEGER, run_at INTEGER, next_retry_at INTEGER,
    command TEXT, worker TEXT, exit_code INTEGER, last_error TEXT,
    inode INTEGER, mtime INTEGER, size INTEGER DEFAULT 0, settings TEXT, ours INTEGER,
    tags TEXT, unique_key TEXT, started_at INTEGER, finished_at INTEGER, duration INTEGER,
    behind INTEGER, expires INTEGER, lane TEXT,
    hold INTEGER NOT NULL DEFAULT 0, conditions TEXT, batch TEXT, member TEXT,
    about TEXT, recovered INTEGER);
"""
UNIQUE = """
CREATE UNIQUE INDEX IF NOT EXISTS jobs_id ON jobs(id);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_place ON jobs(place, name);
"""
"""What keeps two rows from having one id or one file."""

_ACTIVE = "coalesce(ready_key, due, behind) IS NOT NULL"
RELEASE_NEXT = f"""UPDATE jobs SET ready_key = behind, behind = NULL
    WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE unique_key = :key AND state = 'processing') AND seq IN (
        SELECT seq FROM jobs WHERE unique_key = :key AND state = 'failed' AND behind IS NOT NULL UNION ALL
        SELECT * FROM (SELECT seq FROM jobs WHERE unique_key = :key AND state = 'pending' AND behind IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM jobs WHERE unique_key = :key AND state = 'failed' AND {_ACTIVE})
            ORDER BY behind, seq LIMIT 1));"""
"""Put the next jobs of a unique key back into the order once none of this key is running: those that wait for another
attempt, or else the first of the others."""

_RELEASE_NEXT = RELEASE_NEXT.replace(":key", "OLD.unique_key")
_INDEXES = f"""
CREATE INDEX IF NOT EXISTS jobs_ready ON jobs(lane, ready_key, seq) WHERE ready_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs(due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_unique ON jobs(unique_key, state, behind, seq) WHERE unique_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_behind ON jobs(unique_key) WHERE behind IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_expires ON jobs(expires) WHERE expires IS NOT NULL AND place = 'pending';
CREATE INDEX IF NOT EXISTS jobs_state ON jobs(state, seq);
CREATE TABLE IF NOT EXISTS counts(state TEXT PRIMARY KEY, n INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counts VALUES {", ".join(f"('{state}', 0, 0)" for state in STATES)};
CREATE TRIGGER IF NOT EXISTS jobs_in AFTER INSERT ON jobs BEGIN
    UPDATE counts SET n = n + 1, bytes = bytes + NEW.size WHERE state = NEW.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_out AFTER DELETE ON jobs BEGIN
    UPDATE counts SET n = n - 1, bytes = bytes - OLD.size WHERE state = OLD.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_over AFTER UPDATE OF state, size ON jobs
    WHEN OLD.state != NEW.state OR OLD.size != NEW.size BEGIN
    UPDATE counts SET n = n - 1, bytes = bytes - OLD.size WHERE state = OLD.state;
    UPDATE counts SET n = n + 1, bytes = bytes + NEW.size WHERE state = NEW.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_next AFTER UPDATE OF state, ready_key, unique_key ON jobs
    WHEN OLD.unique_key IS NOT NULL AND OLD.behind IS NULL AND NEW.behind IS NULL
    AND (NEW.state != 'processing' OR NEW.unique_key IS NOT OLD.unique_key) BEGIN {_RELEASE_NEXT} END;
CREATE TRIGGER IF NOT EXISTS jobs_gone AFTER DELETE ON jobs WHEN OLD.unique_key IS NOT NULL BEGIN {_RELEASE_NEXT} END;
"""
"""The SQL indexes, the counts by state, and the triggers that keep both the counts and the unique keys right."""


def tables() -> str:
    """Return the statements that make all tables."""
    from queuectl.index import dependencies

    return _TABLES + dependencies.TABLES


def indexes() -> str:
    """Return the statements that make all SQL indexes and triggers."""
    from queuectl.index import dependencies

    return _INDEXES + dependencies.TRIGGERS


def drop(db: sqlite3.Connection) -> None:
    """Drop all tables, also those of another version, and with them their SQL indexes and triggers."""
    from queuectl.index import dependencies

    for table in (
        "jobs",
        "counts",
        "ends",
        "lane_states",
        "batch_states",
        "folders",
        "meta",
        *dependencies.NAMES,
    ):
        db.execute(f"DROP TABLE IF EXISTS {table}")
    db.execute(f"DROP VIEW IF EXISTS {dependencies.VIEW}")


def start_anew(db: sqlite3.Connection) -> None:
    """Replace the tables by empty ones, without the SQL indexes and triggers that slow down a million inserts.

    Even two rows with one id are possible until `make_unique`.
    """
    drop(db)
    run(db, tables())


def make_unique(db: sqlite3.Connection) -> None:
    """Allow each id and each file one row from now on; of several the first stays.

    Ids are random. Sorting a million of them at once takes a tenth of the time of putting each in its place.
    """
    try:
        run(db, UNIQUE)
    except sqlite3.IntegrityError:
        for key in ("id", "place, name"):
            db.execute(f"DELETE FROM jobs WHERE seq NOT IN (SELECT min(seq) FROM jobs GROUP BY {key})")
        run(db, UNIQUE)


def finish(db: sqlite3.Connection) -> None:
    """Create the SQL indexes and triggers once the rows are inserted, and count the rows."""
    from queuectl.index import dependencies

    run(db, dependencies.FINISH)
    run(db, indexes())
    db.execute("INSERT OR REPLACE INTO counts SELECT state, count(*), sum(size) FROM jobs GROUP BY state")


def run(db: sqlite3.Connection, statements: str) -> None:
    """Run statements within the open transaction. `executescript` would end it."""
    statement = ""
    for line in statements.splitlines():
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


_DAMAGE = ("malformed", "not a database", "disk image", "disk I/O", "no such table", "no such column")


def is_damage(message: str | None) -> bool:
    """Return whether this error message of SQLite means that the file is damaged."""
    return message is not None and any(word in message for word in _DAMAGE)
