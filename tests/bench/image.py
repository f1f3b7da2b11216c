"""A disk with a journal to measure on: ext4 in a file, mounted for as long as the measurements last. Needs root."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
from typing import TYPE_CHECKING

from .place import folder_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = ("-q", "-F", "-O", "has_journal", "-i", "4096", "-m", "0")
"""A file of a job needs a block, so as many inodes as there are blocks."""


@contextlib.contextmanager
def mounted(folder: Path, gigabytes: float) -> Iterator[Path]:
    """Make the image in this folder, mount it; afterwards it is unmounted and gone.

    Raises:
        PermissionError: only root can mount.
        subprocess.CalledProcessError: it cannot be made or mounted.
    """
    if os.geteuid() != 0:
        raise PermissionError("--image needs root, to mount it")
    root = folder_in(folder)
    image, at = root / "ext4.image", root / "mounted"
    with open(image, "wb") as file:
        file.truncate(int(gigabytes * 2**30))
    subprocess.run(["mkfs.ext4", *OPTIONS, str(image)], check=True)
    at.mkdir()
    # Else the kernel fills the tables of inodes in the background, beside what is measured.
    subprocess.run(["mount", "-o", "loop,noinit_itable", str(image), str(at)], check=True)
    try:
        inside = at / "bench"
        inside.mkdir(mode=0o700)
        yield inside
    finally:
        gc.collect()  # a Spool lets go of its index only then, and a disk in use is not unmounted
        subprocess.run(["umount", str(at)], check=True)
        image.unlink()
