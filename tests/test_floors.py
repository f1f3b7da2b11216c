"""The architecture as a test: a package imports lower floors only, heavy imports wait, one package moves files, modules stay small."""

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
    "fast_start": 0,
    "system": 1,
    "job": 1,
    "layout": 1,
    "config": 2,
    "index": 2,
    "control": 2,
    "engine": 4,
    "executor": 4,
    "storage": 4,
    "intake": 5,
    "rules": 5,
    "worker": 6,
    "api": 6,
    "doctor": 6,
    "notify": 7,
    "web": 7,
    "cli": 8,
    "__main__": 9,
}
"""Package, or module of the top level, to its floor. It may import what stands lower, and nothing beside it."""

ONLY_IN = {
    "watchdog": {"system/watcher"},
    "filelock": {"system/locks"},
    "ctypes": {"system/libc", "system/posix_spawn"},
    "fcntl": {"system/files", "system/locks", "system/safe_open"},
    "psutil": {"system/host", "system/process", "system/process_table", "system/process_tree"},
    "click": {"cli"},
    "h11": {"web/server"},
    "jinja2": {"web"},
    "markupsafe": {"web/plots", "web/rendering"},
    "starlette": {"web"},
    "uvicorn": {"web/server"},
    "orjson": {"fast_start/fast_json"},
    "cronsim": {"rules/occurrences"},
    "rich": {"cli"},
    "yaml": {
        "config/file",
        "config/plain_yaml",
        "config/yaml_documents",
        "rules/rule_file",
        "cli/job_reader",
    },
    "prometheus_client": {"api/metrics"},
    "sqlite3": {
        *("index", "storage", "intake/reconcile", "intake/rebuild", "api"),
        *("worker/health", "worker/maintenance", "worker/settle_batch"),
        *("doctor/doctor", "doctor/index_check", "cli/options"),
    },
}
MOVERS = {"system/files", "storage/claim", "storage/file_pool", "engine/node", "engine/packs"}
"""The only modules that rename, link or replace by calls of os; all others go through them. Those of engine link claims."""
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
    "cronsim",
    "jinja2",
    "starlette",
    "uvicorn",
}
LINES_A_MODULE = 450
LINES_A_FUNCTION = 60


class Import(NamedTuple):
    """One import statement: where it stands, and the module of ours or the library that it names."""

    module: str
    target: str
    line: int
    typing_only: bool

    @property
    def package(self) -> str:
        """The package that imports."""
        return self.module.partition("/")[0]

    @property
    def imported(self) -> str | None:
        """The package of ours that is imported; None for what lies outside."""
        first, _, rest = self.target.partition(".")
        return (rest.partition(".")[0] or "__init__") if first == "queuectl" else None


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_example" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_bytes())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "queuectl"
            targets = [f"queuectl.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        for target in targets:
            yield Import(name_of(path), target, node.lineno, id(node) in for_types)


ALL_IMPORTS = [found for path in modules() for found in imports(path)]


def test_every_package_stands_on_a_floor() -> None:
    """A new package is given its floor here, or it is not let in."""
    assert {name_of(path).partition("/")[0] for path in modules()} - {"__init__"} == set(FLOORS)


def test_imports_go_down_only() -> None:
    """No package imports one that stands as high or higher: at the top, inside a function, or for types."""
    upward = [
        f"{found.module}:{found.line} -> {found.target}"
        for found in ALL_IMPORTS
        if (target := found.imported) in FLOORS
        and found.package in FLOORS
        and target != found.package
        and FLOORS[target] >= FLOORS[found.package]
    ]

    assert upward == []


def ours(target: str) -> str:
    """The module that an import goes to, as name_of has it; a name in the head of a package goes to that head."""
    path = target.split(".")[1:]
    while path and not (PACKAGE.joinpath(*path).with_suffix(".py")).is_file():
        if PACKAGE.joinpath(*path, "__init__.py").is_file():
            return "/".join([*path, "__init__"])
        path.pop()
    return "/".join(path)


def test_modules_make_no_circle() -> None:
    """Within a package modules may use each other, but never in a ring, nor through the head of their package."""
    edges: dict[str, set[str]] = {name_of(path): set() for path in modules()}
    for path in modules():
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("queuectl"):
                for alias in node.names:
                    target = ours(f"{node.module}.{alias.name}")
                    if target and target != name_of(path):
                        edges[name_of(path)].add(target)
    typing = {(found.module, ours(found.target)) for found in ALL_IMPORTS if found.typing_only}
    edges = {name: {one for one in targets if (name, one) not in typing} for name, targets in edges.items()}

    while loose := [
        name
        for name, targets in edges.items()
        if not targets & set(edges) or not any(name in others for others in edges.values())
    ]:
        edges = {name: targets - set(loose) for name, targets in edges.items() if name not in loose}

    assert edges == {}


def test_what_the_commands_share_imports_no_command() -> None:
    """Modules of cli/ stand below cli/commands/; only the root calls a command, `status`, when none is named."""
    found = [
        f"{one.module}:{one.line} -> {one.target}"
        for one in ALL_IMPORTS
        if one.package == "cli"
        and not one.module.startswith("cli/commands/")
        and one.target.startswith("queuectl.cli.commands")
        and (one.module, one.target) != ("cli/root", "queuectl.cli.commands.status")
    ]

    assert found == []


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    """What a library does is hidden in the module that has it, so it can be exchanged there."""
    found = {
        one.module for one in ALL_IMPORTS if one.target.partition(".")[0] == library and not one.typing_only
    }

    assert {name for name in found if not {name, name.partition("/")[0]} & ONLY_IN[library]} == set()


def is_move(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in MOVING for alias in node.names)
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return (node.value.id == "os" and node.attr in MOVING) or (node.value.id, node.attr) == ("shutil", "move")


def test_only_the_mover_and_its_primitives_rename() -> None:
    """A job file has one storage: os.rename, os.replace and os.link stand nowhere else."""
    found = [
        f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        for path in modules()
        if name_of(path) not in MOVERS
        for node in ast.walk(ast.parse(path.read_bytes()))
        if is_move(node)
    ]

    assert found == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
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
