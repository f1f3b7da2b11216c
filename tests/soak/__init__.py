"""A soak: producers, workers and a killer on one spool for as long as one likes; `python -m tests.soak --help`."""

from __future__ import annotations

import sys
from pathlib import Path

# What the tests share lies one folder up, where pytest finds it by its settings.
sys.path.insert(0, str(Path(__file__).parent.parent))
