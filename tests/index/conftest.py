"""What the tests of the index share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queuectl.index.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def index() -> Iterator[Index]:
    """An index in memory."""
    made = Index(":memory:", "/nonexistent", "boot")
    made.open()
    yield made
    made.close()
