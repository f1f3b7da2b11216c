"""The map of the code, `queuectl/README.md`, agrees with the code."""

from __future__ import annotations

import ast
import re

from documents import TOP, rows, section_of

PACKAGE = TOP / "queuectl"
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_every_file_that_the_map_names_exists() -> None:
    """Each module, page or test that the map names is there."""
    named = set(re.findall(r"`([\w/]+\.(?:py|md|yaml|toml))`", MAP))

    assert len(named) > 30
    assert [
        name for name in sorted(named) if not ((PACKAGE / name).is_file() or (TOP / name).is_file())
    ] == []


def test_every_folder_that_the_map_names_exists() -> None:
    """Each folder that the map names is there, apart from the folders of a spool."""
    of_a_spool = {
        "pending/",
        "processing/",
        "processing/w/",
        "done/",
        "dead/",
        "tmp/",
        "queues/",
        "data/aside/",
    }
    named = set(re.findall(r"`([\w/]+/)`", MAP)) - of_a_spool

    assert [name for name in sorted(named) if not ((PACKAGE / name).is_dir() or (TOP / name).is_dir())] == []


def test_every_package_is_on_the_map_with_its_purpose() -> None:
    """Each package is listed with the first sentence of its docstring."""
    shown = {cells[1].strip("`/"): cells[2] for cells in rows(section_of(MAP, "Packages and floors"))}
    purposes = {
        name: ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8")))
        for name in PACKAGES
    }

    assert PACKAGES
    wrong = [
        name
        for name, purpose in purposes.items()
        if not (purpose or "").startswith(shown.get(name, "-").replace("`", ""))
    ]
    assert wrong == []


def test_floors_of_the_map_are_those_that_are_checked() -> None:
    """The floors on the map are those of `tests/test_floors.py`."""
    text = (TOP / "tests" / "test_floors.py").read_text(encoding="utf-8")
    checked = ast.literal_eval(re.search(r"^FLOORS = (\{.*?^\})", text, flags=re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    cells = rows(section_of(MAP, "Packages and floors"))
    shown = {cell[1].strip("`/").removesuffix(".py"): int(cell[0]) for cell in cells}

    assert {name: floor for name, floor in shown.items() if name != "guide"} == {
        name: floor for name, floor in checked.items() if not name.startswith("_")
    }


def test_every_move_is_on_the_map() -> None:
    """The table of moves has each move of `storage/transitions.py`."""
    from queuectl.storage.transitions import MOVES

    named = {cells[0] for cells in rows(section_of(MAP, "Moves"))}

    assert set(MOVES) <= named
