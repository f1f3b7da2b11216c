"""The jobs that wait for a job, those that wait for these, and so on.

Of jobs that wait or run the index keeps the conditions in a table. Those of a dead job are in its own row. To find the dead
jobs that name another one, the rows of all dead jobs are read once: 0.15 s of processor time for 300,000. The command that
asks pays for it, and no job does.
"""

from __future__ import annotations

from contextlib import suppress
from graphlib import CycleError, TopologicalSorter

from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import BATCH, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from queuectl.index.index import Index
    from queuectl.index.row import Row

_AT_ONCE = 500
"""Names asked for in one statement; SQLite limits the number of its parameters."""

_OF_DEAD = """SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), jobs.id FROM jobs, json_each(conditions)
    WHERE state = 'dead' AND conditions IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Descent:
    """Which jobs count as descendants of others.

    Attributes:
        waiting_only: only jobs that wait, and only through conditions that are not met.
        dead: dead jobs as well.
        accepts: says of each job whether it counts; those behind one that does not are not looked for.
    """

    waiting_only: bool = False
    dead: bool = False
    accepts: Callable[[Row], bool] = lambda _: True

    def find(self, index: Index, ids: Sequence[str]) -> list[Row]:
        """Return these jobs and their descendants, each once: those for which another one waits come before that one.

        Jobs that wait for each other in a ring come last.
        """
        of_dead = conditions_of_dead(index) if self.dead else {}
        order: TopologicalSorter[str] = TopologicalSorter()
        found = index.rows_of([*ids])
        batches: set[str] = set()
        new = [*found.values()]
        while new:
            names = [row.id for row in new]
            for row in new:
                order.add(row.id)
                if row.member is not None:
                    batch = BATCH + row.member
                    order.add(batch, row.id)
                    if batch not in batches:
                        batches.add(batch)
                        names.append(batch)
            pairs = [
                *self._waiting_for(index, names),
                *((name, child) for name in names for _, child in of_dead.get(name, ())),
            ]
            unknown = index.rows_of([*dict.fromkeys(child for _, child in pairs if child not in found)])
            accepted = {child: row for child, row in unknown.items() if self.accepts(row)}
            new = [*accepted.values()]
            found |= accepted
            for name, child in pairs:
                if child in found:
                    order.add(child, name)
        return [found[name] for name in _in_order(order, found) if name in found]

    def _waiting_for(self, index: Index, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield which of these are named by which jobs that wait or run."""
        only = f"AND verdict != 1 AND state IN {WAITING}" if self.waiting_only else ""
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            # CROSS JOIN: else SQLite begins with all jobs that wait, for each part again.
            query = (
                f"SELECT parent, id FROM waits CROSS JOIN jobs USING (seq) WHERE parent IN ({marks}) {only}"
            )
            yield from index.db.execute(query, part)


def conditions_of_dead(index: Index) -> dict[str, list[tuple[str, str]]]:
    """Return which dead jobs name which jobs and batches: the kind of the condition, and the id, by what is named."""
    found: dict[str, list[tuple[str, str]]] = {}
    for parent, kind, child in index.db.execute(_OF_DEAD):
        found.setdefault(parent, []).append((kind, child))
    return found


def _in_order(order: TopologicalSorter[str], rows: dict[str, Row]) -> Iterator[str]:
    """Yield names in the order of what waits for what, and at once those that may come together by their arrival."""
    left = dict.fromkeys(rows)
    with suppress(CycleError):
        order.prepare()
    while order.is_active():
        ready = order.get_ready()
        for name in sorted(ready, key=lambda name: (rows[name].seq or 0) if name in rows else 0):
            left.pop(name, None)
            yield name
        order.done(*ready)
    yield from left
