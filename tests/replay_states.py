"""Plays what a failure of the state machine has printed once more: `python tests/replay_states.py LOG`.

The blob that hypothesis prints often does not bring a failure back, as the machine's rules draw from what they find. The
printed steps do.
"""

from __future__ import annotations

import re
import runpy
import sys
from ast import literal_eval
from pathlib import Path

_FIRST = re.compile(r"\.first_look\((.*)\)")
_TURN = re.compile(r"\.turn\((.*)\)")


def _arguments(text: str) -> dict[str, object]:
    return {name: literal_eval(value) for name, value in re.findall(r"(\w+)=('\w+'|\w+)", text)}


def main() -> None:
    """Take the steps of the first failure in the file, and look after each of them; it raises what fails."""
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder))
    module = runpy.run_path(str(folder / "faults" / "test_state_machine.py"))
    said = Path(sys.argv[1]).read_text(encoding="utf-8")
    first = _FIRST.search(said)
    if first is None:
        sys.exit(f"{sys.argv[1]} has no failure of the state machine")
    machine = module["Machine"]()
    try:
        machine.first_look(**_arguments(first[1]))
        for turn in _TURN.findall(said):
            machine.turn(**_arguments(turn))
            machine.each_job_lies_in_its_one_place()
            machine.the_commands_tell_the_truth()
    finally:
        machine.teardown()
    print("nothing failed")


if __name__ == "__main__":
    main()
