"""Plays the steps that a failure of the state machine has printed once more: `python tests/replay_states.py LOG`.

The blob that hypothesis prints often does not bring a failure back, as what is drawn depends on what is found.
"""

from __future__ import annotations

import re
import runpy
import sys
from ast import literal_eval
from itertools import dropwhile, takewhile
from pathlib import Path

_STEP = re.compile(r"[\s|E]*\.(first_look|turn)\(([^()]*)\)$")


def _arguments(text: str) -> dict[str, object]:
    return {name: literal_eval(value) for name, value in re.findall(r"(\w+)=('\w+'|\w+)", text)}


def main() -> None:
    """Take the steps of the first failure in the file, and look after each of them; it raises what fails."""
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder))
    module = runpy.run_path(str(folder / "faults" / "test_state_machine.py"))
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    found = dropwhile(lambda step: step is None, map(_STEP.match, lines))
    steps = [(step[1], _arguments(step[2])) for step in takewhile(bool, found) if step]
    if not steps:
        sys.exit(f"{sys.argv[1]} has no failure of the state machine")
    machine = module["Machine"]()
    try:
        for name, arguments in steps:
            getattr(machine, name)(**arguments)
            machine.each_job_lies_in_its_one_place()
            machine.the_commands_tell_the_truth()
    finally:
        machine.teardown()
    print("nothing failed")


if __name__ == "__main__":
    main()
