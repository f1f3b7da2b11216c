"""What limits cost: a queue with one, many queues, and a closed queue with very many jobs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .place import box
from .tables import Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .place import Box
    from .scale import Scale


def queues(scale: Scale, folder: Path) -> None:
    """(q) A drain of `true` by one worker, with queues and without, by turns."""
    jobs, many = scale.drain, scale.files
    kinds: dict[str, Callable[[Box], object]] = {
        "in a queue with a limit": partial(_limited, jobs=jobs),
        "that need a resource": partial(_needy, jobs=jobs),
        **{f"in {lanes} queues": partial(_spread, jobs=jobs, lanes=lanes) for lanes in scale.lanes},
        f"beside {many:,} jobs of a closed queue": partial(_beside, jobs=jobs, many=many),
    }
    rows = []
    for title, prepare in kinds.items():
        with_them, without = [], []
        laps = scale.rounds if "beside" in title else scale.laps
        for _ in range(laps):
            without.append(jobs / _timed(folder, jobs, lambda made: made.hand_over(jobs)))
            with_them.append(jobs / _timed(folder, jobs, prepare))
        cells = [Samples(with_them).cell("/s"), Samples(without).cell("/s"), ratios(with_them, without)]
        rows.append([f"{jobs:,} × `true` {title}", *cells])
    table("(q) queues", ("", "with", "without queues", "rate to without"), rows)


def _timed(folder: Path, jobs: int, prepare: Callable[[Box], object]) -> float:
    with box(folder) as made:
        prepare(made)
        return made.work_off(workers=1, jobs=jobs)


def _limited(made: Box, jobs: int) -> None:
    (made.path / "queues" / "mail.yaml").write_text("limit: 64\n", encoding="utf-8")
    made.hand_over(jobs, queue="mail")


def _needy(made: Box, jobs: int) -> None:
    made.call("config", "set", "resources", "gpu=8")
    made.hand_over(jobs, needs={"gpu": 1})


def _spread(made: Box, jobs: int, lanes: int) -> None:
    for _ in made.spool.enqueue_stream({"command": "true", "queue": f"q{at % lanes}"} for at in range(jobs)):
        pass


def _beside(made: Box, jobs: int, many: int) -> None:
    (made.path / "queues" / "mail.paused").touch()
    made.hand_over(many, queue="mail", priority=10)
    made.hand_over(jobs)
