"""A Redis server of one's own, on loopback, for as long as a lap lasts."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

from .place import wait_for

if TYPE_CHECKING:
    from pathlib import Path


class Redis:
    """A server with its data in a folder; as it is set up by default, it writes a snapshot now and then."""

    def __init__(self, root: Path, *, synced: bool) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        words = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(root)]
        if synced:
            words += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self._answers, timeout=20, pause=0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
