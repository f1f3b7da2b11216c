"""Claims over a real NFSv4 server, by clients that race for them: neither needs the kernel, so any machine can try it.

Install `nfs-ganesha nfs-ganesha-vfs libnfs13`; the server runs as root only.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from queuectl.engine.packs import Order, Pack
from queuectl.engine.verdict import Limits

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS, CLAIMS = 4, 100
SERVER = shutil.which("ganesha.nfsd")
LIBRARY = ctypes.util.find_library("nfs")

if sys.platform != "linux" or os.geteuid() != 0:
    pytest.skip("the server runs on Linux as root", allow_module_level=True)
if SERVER is None or LIBRARY is None:
    if os.environ.get("QUEUECTL_MUST_SLURM"):
        pytest.fail("nfs-ganesha or libnfs is missing")
    pytest.skip("nfs-ganesha or libnfs is not installed", allow_module_level=True)

CONFIG = """
NFS_CORE_PARAM {{ NFS_Protocols = 4; NFS_Port = {port}; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {folder}/recovery; }}
EXPORT {{ Export_Id = 1; Path = {folder}/export; Pseudo = /e; Protocols = 4; Transports = TCP; Access_Type = RW;
    Squash = none; SecType = sys; FSAL {{ Name = VFS; }} }}
"""


class Client:
    """One NFS client, with a mount of its own.

    Args:
        name: by which the server tells it from others.
    """

    def __init__(self, port: int, name: str) -> None:
        self._library = library = ctypes.CDLL(str(LIBRARY))
        library.nfs_init_context.restype = library.nfs_parse_url_dir.restype = ctypes.c_void_p
        library.nfs_get_error.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(library.nfs_init_context())
        url = f"nfs://127.0.0.1/e?version=4&nfsport={port}".encode()
        library.nfs_parse_url_dir(self._context, url)
        library.nfs4_set_client_name(self._context, name.encode())
        library.nfs4_set_verifier(self._context, name.encode().ljust(8, b"."))
        assert library.nfs_mount(self._context, b"127.0.0.1", b"/e") == 0, self.error

    @property
    def error(self) -> bytes:
        """What it has said last."""
        told: bytes = self._library.nfs_get_error(self._context)
        return told

    def make(self, path: str) -> None:
        """Make an empty file."""
        file = ctypes.c_void_p()
        made = self._library.nfs_creat(self._context, path.encode(), 0o600, ctypes.byref(file))
        assert made == 0, self.error
        self._library.nfs_close(self._context, file)

    def link(self, one: str, other: str) -> int:
        """Link a file; 0, or minus an error number."""
        answer: int = self._library.nfs_link(self._context, one.encode(), other.encode())
        return answer

    def inode(self, path: str) -> int:
        """The inode of a file."""
        status = (ctypes.c_uint64 * 32)()
        assert self._library.nfs_lstat64(self._context, path.encode(), status) == 0, self.error
        return status[1]

    def close(self) -> None:
        """Unmount."""
        self._library.nfs_destroy_context(self._context)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    for name in ("export", "recovery"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf").write_text(CONFIG.format(port=number, folder=tmp_path))
    words = [str(SERVER), "-F", "-f", "conf", "-L", "log", "-p", "pid"]
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=out) as server,
    ):
        try:
            log = tmp_path / "log"
            wait_until(lambda: log.exists() and "NFS SERVER INITIALIZED" in log.read_text(), 30)
            yield number
        finally:
            server.kill()


def race(port: int, name: str) -> list[int]:
    """Claim what is there, as a runner does it; return what was won, by the inode."""
    client = Client(port, name)
    try:
        by = f"/pack/by.{name}"
        client.make(by)
        mine, won = client.inode(by), []
        for number in range(CLAIMS):
            client.link(by, f"/pack/claim.{number}")
            if client.inode(f"/pack/claim.{number}") == mine:
                won.append(number)
        return won
    finally:
        client.close()


def test_each_claim_is_won_once_by_clients_of_a_real_server(port: int, tmp_path: Path) -> None:
    """And the dispatcher, which sees the folder of the server, knows who has it, and takes back what nobody has."""
    orders = [Order((str(number), "1.1"), "true", "/", {}, 1) for number in range(CLAIMS + 1)]
    pack = Pack.make(str(tmp_path / "export" / "pack"), orders, Limits(10, 600, 5), 0)
    names = [f"n{number}.7.{number}" for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        won = dict(zip(names, pool.map(lambda name: race(port, name), names), strict=True))
    assert Counter(number for mine in won.values() for number in mine) == Counter(range(CLAIMS))
    assert pack.look().claims == {number: name for name, mine in won.items() for number in mine}
    assert [pack.revoke(number) for number in (0, CLAIMS)] == [False, True]
