"""What the index is asked: single jobs, lists, counts, and which job comes next."""

from __future__ import annotations

from queuectl.layout import STATES
from queuectl.row import Row
from queuectl.stamps import Stamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

COLUMNS = tuple(Row.__match_args__)
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"


class Lookups(Stamps):
    """The part of the index that answers."""

    def _one(self, query: str, *values: Any) -> Any:
        return self.db.execute(query, values).fetchone()[0]

    def _rows(self, tail: str, values: Iterable[Any] = ()) -> list[Row]:
        return [Row(*found) for found in self.db.execute(f"{_SELECT} {tail}", tuple(values))]

    def get(self, job_id: str) -> Row | None:
        """The row of one job."""
        found = self._rows("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def at(self, place: str, names: list[str]) -> dict[str, Row]:
        """The rows of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        return {
            row.name: row for row in self._rows(f"WHERE place = ? AND name IN ({marks})", (place, *names))
        }

    def inodes_at(self, place: str, names: list[str]) -> dict[str, int]:
        """The inodes that are known of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        query = f"SELECT name, inode FROM jobs WHERE place = ? AND name IN ({marks})"
        return dict(self.db.execute(query, (place, *names)).fetchall())

    def all_at(self, place: str, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, name) of a folder's rows in the order of their names, a page at a time."""
        query = "SELECT id, name FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return self.db.execute(query, (place, after, limit)).fetchall()

    def count_at(self, place: str) -> int:
        """How many rows a folder has."""
        return int(self._one("SELECT count(*) FROM jobs WHERE place = ?", place))

    def claim_places(self) -> list[str]:
        """The workers' folders that have rows. The range keeps SQLite from walking through a million others."""
        query = "SELECT DISTINCT place FROM jobs WHERE place > 'processing/' AND place < 'processing0'"
        return [place for (place,) in self.db.execute(query)]

    def counts(self) -> dict[str, int]:
        """Jobs by state, in the order of STATES."""
        found = dict(self.db.execute("SELECT state, n FROM counts").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def list(self, state: str | None, limit: int | None, after: int = -1) -> list[Row]:
        """Rows in the order of arrival, of one state or all; after is the last number already seen."""
        where = "WHERE seq > ?" if state is None else "WHERE state = ? AND seq > ?"
        values: tuple[Any, ...] = (after,) if state is None else (state, after)
        return self._rows(f"{where} ORDER BY seq LIMIT ?", (*values, -1 if limit is None else limit))

    def next_seq(self) -> int:
        """A number behind all others, for a job that goes to the end of the line."""
        return int(self._one("SELECT coalesce(max(seq), 0) + 1 FROM jobs"))

    def outlook(self) -> tuple[bool, int | None]:
        """Whether a job can run now, and the moment of the next scheduled one or retry."""
        ready = "EXISTS (SELECT 1 FROM jobs WHERE ready_key IS NOT NULL)"
        due = "(SELECT min(due) FROM jobs WHERE due IS NOT NULL)"
        found = self.db.execute(f"SELECT {ready}, {due}").fetchone()
        return bool(found[0]), found[1]

    def suggest(self) -> Row | None:
        """The waiting job that is first in order."""
        return next(iter(self._rows("WHERE ready_key IS NOT NULL ORDER BY ready_key, seq LIMIT 1")), None)
