"""Which boot of the machine this is: what was true of processes and of unsynced files ends with it."""

from __future__ import annotations

import os


def boot_id() -> str:
    """A text that changes with every boot of the machine."""
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        import psutil

        return f"booted-{psutil.boot_time():.0f}"
    try:
        return os.read(fd, 100).decode().strip()
    finally:
        os.close(fd)
