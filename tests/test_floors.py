"""Walls between the rooms: imports go down only, heavy ones wait, one module moves files, rooms stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import queuectl

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(queuectl.__file__).parent
FLOORS = {
    "errors": 0,
    "times": 0,
    "files": 0,
    "lease": 0,
    "inotify": 0,
    "still": 3,
    "wake": 0,
    "boot": 0,
    "mounts": 0,
    "places": 0,
    "plain": 0,
    "libc": 0,
    "second_core": 0,
    "owner": 0,
    "shown": 0,
    "strict_json": 1,
    "ids": 0,
    "fields": 1,
    "job": 1,
    "config": 1,
    "config_file": 1,
    "output": 1,
    "layout": 2,
    "retry": 2,
    "row": 2,
    "editing": 2,
    "rejected": 2,
    "guard": 2,
    "room": 0,
    "run_file": 2,
    "seat": 2,
    "shell_free": 0,
    "spawn": 1,
    "runner": 2,
    "process_tree": 2,
    "attempt": 3,
    "filters": 3,
    "schema": 3,
    "stamps": 3,
    "lookups": 3,
    "stats": 4,
    "packing": 3,
    "metrics": 4,
    "job_schema": 2,
    "prepare": 3,
    "kinds": 3,
    "inserting": 3,
    "lot": 0,
    "index": 3,
    "index_file": 3,
    "new_spool": 3,
    "foreign": 3,
    "storm": 3,
    "alike": 3,
    "reader": 3,
    "claims": 3,
    "pause": 3,
    "halt": 4,
    "amend": 3,
    "move_table": 2,
    "spares": 3,
    "held": 3,
    "hand_moves": 3,
    "entry_moves": 3,
    "moves": 3,
    "templates": 1,
    "whole": 4,
    "batch": 3,
    "admission": 4,
    "intake": 4,
    "recover": 4,
    "chores": 4,
    "expiry": 3,
    "unique": 3,
    "retention": 4,
    "incoming": 3,
    "in_force": 3,
    "orders": 3,
    "lookout": 4,
    "hand": 4,
    "rest": 4,
    "trouble": 4,
    "aside": 3,
    "finding": 4,
    "census": 4,
    "premises": 4,
    "worker": 5,
    "service_units": 1,
    "service": 5,
    "pool": 5,
    "signals": 0,
    "questions": 6,
    "reports": 6,
    "waiting": 6,
    "controls": 6,
    "spool": 6,
    "doctor": 6,
    "cli": 6,
    "__main__": 7,
}
"""Room to floor. `__init__` is the front door: it imports nothing until it is asked."""

ONLY_IN = {
    "watchdog": {"wake"},
    "filelock": {"owner"},
    "psutil": {"boot", "owner", "runner", "process_tree", "pool"},
    "click": {"cli"},
    "rich": {"cli"},
    "yaml": {"config_file", "cli"},
    "prometheus_client": {"metrics"},
}
MOVERS = {"files", "moves", "entry_moves", "spares"}
MOVING = {"rename", "renames", "replace", "link"}
HEAVY = {
    "rich",
    "psutil",
    "yaml",
    "watchdog",
    "filelock",
    "sqlite3",
    "asyncio",
    "importlib.metadata",
    "prometheus_client",
}
LINES_A_MODULE = 440  # "about 400": a wall is built with thought, not to save a few lines
LINES_A_FUNCTION = 60


class Import(NamedTuple):
    """One import statement of a room."""

    room: str
    target: str
    line: int
    typing_only: bool


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_example" not in path.parts)


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_bytes())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "queuectl" if node.level else node.module or ""
            whole = module == "queuectl"
            targets = [f"{module}.{alias.name}" for alias in node.names] if whole else [module]
        else:
            continue
        for target in targets:
            yield Import(room_of(path), target, node.lineno, id(node) in for_types)


ALL_IMPORTS = [found for path in modules() for found in imports(path)]


def room_named(target: str) -> str | None:
    """The room that an import inside the package goes to; None for what lies outside."""
    package, _, rest = target.partition(".")
    return (rest.partition(".")[0] or "__init__") if package == "queuectl" else None


def inner_edges() -> Iterator[tuple[str, str, Import]]:
    for found in ALL_IMPORTS:
        target = room_named(found.target)
        if target in FLOORS and found.room in FLOORS and target != found.room and not found.typing_only:
            yield found.room, target, found


def test_every_room_stands_on_a_floor() -> None:
    """A new module is given its floor here, or it is not let in."""
    assert {room_of(path) for path in modules()} - {"__init__"} <= set(FLOORS)


def test_imports_go_down_only() -> None:
    """No room imports one on a higher floor, at the top or inside a function."""
    upward = [
        f"{room} -> {target} (line {found.line})"
        for room, target, found in inner_edges()
        if FLOORS[target] > FLOORS[room]
    ]

    assert upward == []


def test_imports_make_no_circle() -> None:
    """Rooms on the same floor may use each other, but never in a ring."""
    edges: dict[str, set[str]] = {room: set() for room in FLOORS}
    for room, target, _ in inner_edges():
        edges[room].add(target)

    while loose := [
        room
        for room, targets in edges.items()
        if not targets & set(edges) or not any(room in others for others in edges.values())
    ]:
        edges = {room: targets - set(loose) for room, targets in edges.items() if room not in loose}

    assert edges == {}


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    """What a library does is hidden in the room that has it, so it can be exchanged there."""
    rooms = {found.room for found in ALL_IMPORTS if found.target.partition(".")[0] == library}

    assert rooms <= ONLY_IN[library]


def is_move(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in MOVING for alias in node.names)
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return (node.value.id == "os" and node.attr in MOVING) or (node.value.id, node.attr) == ("shutil", "move")


def test_only_the_mover_and_its_primitives_rename() -> None:
    """A job file has one mover: os.rename, os.replace and os.link stand nowhere else."""
    found = [
        f"{path.name}:{getattr(node, 'lineno', 0)}"
        for path in modules()
        if room_of(path) not in MOVERS
        for node in ast.walk(ast.parse(path.read_bytes()))
        if is_move(node)
    ]

    assert found == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_rooms_and_functions_stay_small(path: Path) -> None:
    """A module that has grown past a few screens wants a wall."""
    source = path.read_bytes()
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LINES_A_FUNCTION
    ]

    assert long == []
    assert source.count(b"\n") <= LINES_A_MODULE


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "needs"),
    [("import queuectl", set()), ("import queuectl.cli", set()), ("from queuectl import Spool", {"sqlite3"})],
)
def test_the_front_doors_load_nothing_heavy(code: str, needs: set[str]) -> None:
    """An import pays for what it uses; the rest waits until it is needed."""
    bare = loaded_after("pass")

    assert loaded_after(code) & HEAVY - bare <= needs


def test_the_front_door_is_sorted_and_every_name_opens() -> None:
    """`__all__` is in order, and each of its names can be had."""
    assert sorted(queuectl.__all__) == queuectl.__all__
    assert [name for name in queuectl.__all__ if getattr(queuectl, name, None) is None] == []
    assert set(queuectl.__all__) <= set(dir(queuectl))
