"""The tables of the index. A change here needs a new number, which makes every index be built anew."""

from __future__ import annotations

from queuectl.layout import STATES

# In two parts: where very many rows are put into an empty table, the second is made after them.

SCHEMA = 3

TABLES = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders(
    place TEXT PRIMARY KEY, mtime INTEGER, inode INTEGER, stamped INTEGER, scan TEXT, whole INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL,
    ready_key INTEGER, due INTEGER, arrived INTEGER, priority INTEGER, attempts INTEGER, max_retries INTEGER,
    created_at INTEGER, updated_at INTEGER, run_at INTEGER, next_retry_at INTEGER,
    command TEXT, worker TEXT, exit_code INTEGER, last_error TEXT,
    inode INTEGER, mtime INTEGER, size INTEGER, settings TEXT, ours INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_place ON jobs(place, name);
"""
ORDERS = f"""
CREATE INDEX IF NOT EXISTS jobs_ready ON jobs(ready_key, seq) WHERE ready_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs(due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_state ON jobs(state, seq);
CREATE TABLE IF NOT EXISTS counts(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counts VALUES {", ".join(f"('{state}', 0)" for state in STATES)};
CREATE TRIGGER IF NOT EXISTS jobs_in AFTER INSERT ON jobs BEGIN
    UPDATE counts SET n = n + 1 WHERE state = NEW.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_out AFTER DELETE ON jobs BEGIN
    UPDATE counts SET n = n - 1 WHERE state = OLD.state; END;
CREATE TRIGGER IF NOT EXISTS jobs_over AFTER UPDATE OF state ON jobs WHEN OLD.state != NEW.state BEGIN
    UPDATE counts SET n = n - 1 WHERE state = OLD.state; UPDATE counts SET n = n + 1 WHERE state = NEW.state; END;
"""

COUNT = "INSERT OR REPLACE INTO counts SELECT state, count(*) FROM jobs GROUP BY state"
"""Says what the triggers would have said."""
