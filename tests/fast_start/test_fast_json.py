"""orjson is imported whole, or not at all."""

from __future__ import annotations

import subprocess
import sys

INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if "orjson" in sys.modules and name == "uuid":  # orjson's first lines are importing it
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(100))

sys.meta_path.insert(0, Interrupt())
from queuectl.fast_start import fast_json
try:
    fast_json.loads("1")
except KeyboardInterrupt:
    print("interrupted", fast_json.loads("2"))
"""


def test_an_interrupt_in_the_middle_of_the_import_is_no_segmentation_fault() -> None:
    """The import of orjson 3.11 reads a null pointer when a Ctrl+C ends one of the imports in its first lines."""
    done = subprocess.run([sys.executable, "-c", INTERRUPT], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted 2\n", "")
