"""Packs, as the dispatcher sees them: made, taken back, looked at. `node` lists the files of a pack.

What nodes have written is read as a stranger's: whoever can write there is another machine.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from queuectl.engine import script
from queuectl.engine.node import VERSION
from queuectl.engine.verdict import Claim, Limits
from queuectl.job.redact import one_line
from queuectl.layout import number_in
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DISPATCHER = "dispatcher"
"""The name under which the dispatcher makes claims. A runner's name has dots."""

HOWS = frozenset(
    ("exited", "signalled", "timed_out", "cancelled", "terminated", "fenced", "not_started", "not_begun")
)
"""How an attempt can end, in the words of runners."""

GONE = ".gone."
"""The beginning of the name of a pack that is being deleted."""

_LONGEST_LINE = 4096
_AT_ONCE = 1 << 20
"""Bytes of one line about an attempt, and of the lines of one runner that one look reads."""

_SMALL = 1 << 10
_LARGEST_PLAN = 1 << 28
"""Bytes of a beat, and of pack.json, which has the environments of all its jobs."""

_NOT_A_FILE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt that is handed over.

    Attributes:
        key: the id of the job and the mark of the run, see Job.run_mark: what was sent for an earlier job of the same id
            is not for this one.
        timeout: seconds; 0: no limit.
        others: the list of the jobs for which it has waited, or of which it tells; None: there are none. Its node finds it
            by QUEUECTL_AFTER.
    """

    key: tuple[str, str]
    command: str | list[str]
    cwd: str
    env: dict[str, str]
    timeout: float
    others: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a runner has written about the end of an attempt.

    Attributes:
        number: of the attempt in its pack.
        how: one of HOWS.
        code: as subprocess tells it: the exit code, or minus the number of a signal; None if nothing ran.
        why: why it did not start, in words.
        ran: whether the command was started.
        started, ended: epoch seconds by the node's clock.
        seconds: how long it took.
        out, err: bytes that it printed.
        runner: the name of the runner that has written this.
    """

    number: int
    how: str
    code: int | None
    why: str
    ran: bool
    node: str
    started: float
    ended: float
    seconds: float
    out: int
    err: int
    runner: str


@dataclass(slots=True)
class Look:
    """What one look at a pack has found.

    Attributes:
        claims: who has which attempt: the name of a runner, DISPATCHER, or "" if that cannot be known.
        beats: the beat of each runner that came; None: it has none yet.
        left: the runners that take nothing more.
        records: those that were not there at an earlier look.
    """

    claims: dict[int, str] = field(default_factory=dict)
    beats: dict[str, bytes | None] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)

    def claim(self, number: int) -> Claim:
        """Who has an attempt, for `verdict.judge`."""
        who = self.claims.get(number)
        if who is None:
            return Claim.NOBODY
        return Claim.DISPATCHER if who == DISPATCHER else Claim.RUNNER


def write_script(folder: str) -> str:
    """Write the script for nodes into a folder if it is not there yet, and return its path.

    Raises:
        OSError: the folder cannot be written, or something else has the name.
    """
    path = os.path.join(folder, script.name())
    scratch = os.path.join(folder, files.temporary_name())
    with suppress(safe_open.NotReadable, FileNotFoundError):
        if safe_open.read_regular(path, _AT_ONCE)[0] == script.text():
            return path
    files.write_new(scratch, script.text(), sync=True)
    os.chmod(scratch, 0o700)
    files.rename_over(scratch, path)
    return path


def remove(folder: str) -> None:
    """Delete a folder and the files in it, if it is there.

    Raises:
        OSError: the share refuses.
    """
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


class Pack:
    """One pack.

    Args:
        folder: its path, the same on all nodes.

    Attributes:
        keys: the keys of its attempts, in order.
        limits: the times that its runners keep.
        sent_as: what is needed to send it again, as JSON.
    """

    def __init__(
        self,
        folder: str,
        keys: Sequence[tuple[str, str]],
        limits: Limits,
        sent_as: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.keys, self.limits, self.sent_as = folder, tuple(keys), limits, sent_as or {}
        self._read: dict[str, int] = {}
        self._at_work: tuple[str, ...] = ()
        self._recorded: set[int] = set()

    @classmethod
    def make(
        cls,
        folder: str,
        orders: Sequence[Order],
        limits: Limits,
        log_limit: int,
        sent_as: Mapping[str, Any] | None = None,
    ) -> Pack:
        """Make a pack that can be sent. Its bytes and names are on the disk when this returns.

        Raises:
            FileExistsError: the folder is there already.
            OSError: the share refuses.
        """
        lists = {f"{number}.after": one.others for number, one in enumerate(orders) if one.others is not None}
        plan = {
            "v": VERSION,
            **asdict(limits),
            "log_limit": log_limit,
            "sent_as": sent_as or {},
            "jobs": [_job(one, os.path.join(folder, f"{number}.after")) for number, one in enumerate(orders)],
        }
        os.mkdir(folder, 0o700)
        for name, text in lists.items():
            files.write_new(os.path.join(folder, name), text, sync=True)
        files.write_new(os.path.join(folder, f"by.{DISPATCHER}"), b"{}", sync=False)
        # It appears whole. Of a part of a plan nobody knows which jobs it has, and they would stay claimed for ever.
        scratch, path = os.path.join(folder, files.temporary_name()), os.path.join(folder, "pack.json")
        files.write_new(scratch, json.dumps(plan).encode(), sync=True)
        files.rename_over(scratch, path)
        files.sync_folder(folder)
        files.sync_folder(os.path.dirname(folder))
        return cls(folder, [one.key for one in orders], limits, sent_as)

    @classmethod
    def found(cls, folder: str) -> Pack | None:
        """Return a pack that an earlier dispatcher has made; None if it had not made it whole: nobody was sent there.

        Raises:
            OSError: the share refuses.
            ValueError: it is of another version, or damaged: it must be left alone.
        """
        try:
            data = safe_open.read_regular(os.path.join(folder, "pack.json"), _LARGEST_PLAN)[0]
        except FileNotFoundError:
            if any(name.startswith(("beat.", "claim.", "exits.")) for name in os.listdir(folder)):
                raise ValueError(f"pack.json of {folder} is gone, and nodes have been at work") from None
            return None
        except safe_open.NotReadable as error:
            raise ValueError(f"pack.json of {folder} is {error}") from None
        try:
            plan = json.loads(data)
            version, sent_as = plan["v"], dict(plan["sent_as"])
            keys = [(str(job["key"][0]), str(job["key"][1])) for job in plan["jobs"]]
            limits = Limits(*(float(plan[name]) for name in ("beat", "fence", "grace")))
        except (ValueError, TypeError, LookupError):
            raise ValueError(f"pack.json of {folder} is damaged") from None
        if version != VERSION:
            raise ValueError(
                f"pack.json of {folder} has version {version}, and this queuectl knows {VERSION}"
            )
        return cls(folder, keys, limits, sent_as)

    def path(self, name: str) -> str:
        """Return the path of one of its files."""
        return f"{self.folder}{os.sep}{name}"

    # -- orders ----------------------------------------------------------------------------------------------------

    def revoke(self, number: int) -> bool:
        """Take the claim of an attempt. True: we have it, so no runner has begun it, and none ever will.

        The answer of link() proves nothing: sent again over NFS, it fails although it has succeeded.

        Raises:
            OSError: the share refuses.
        """
        by, claim = self.path(f"by.{DISPATCHER}"), self.path(f"claim.{number}")
        refusal: OSError | None = None
        try:
            self._link(by, claim)
        except OSError as error:
            refusal = error
        try:
            return os.path.samestat(os.lstat(claim), os.lstat(by))
        except FileNotFoundError:
            raise refusal or FileNotFoundError(claim) from None

    @staticmethod
    def _link(by: str, claim: str) -> None:
        try:
            os.link(by, claim, follow_symlinks=False)
        except FileNotFoundError:
            # Somebody has deleted our note: nothing of this pack could be taken back, and a pause would never be heeded.
            # Claims with the old note are nobody's then, and count as begun until the fence is over.
            files.write_new(by, b"{}", sync=True)
            os.link(by, claim, follow_symlinks=False)

    def says_out_of_memory(self) -> bool:
        """Whether the engine's own log of the pack has words about memory at its end."""
        with suppress(OSError, safe_open.NotReadable):
            data = safe_open.read_regular(self.path("slurm.log"), _AT_ONCE)[0][-_SMALL * 16 :].lower()
            return any(word in data for word in (b"oom_kill", b"oom-kill", b"out of memory"))
        return False

    def is_revoked(self, number: int) -> bool:
        """Whether we have the claim of an attempt. Raises OSError: the share refuses."""
        with suppress(FileNotFoundError):
            claim, by = os.lstat(self.path(f"claim.{number}")), os.lstat(self.path(f"by.{DISPATCHER}"))
            return os.path.samestat(claim, by)
        return False

    def cancel(self, number: int | None = None) -> None:
        """Ask the runners to end an attempt, or all of them. They look for it at each beat, and when they get USR1.

        Raises:
            OSError: the share refuses.
        """
        name = "cancel" if number is None else f"cancel.{number}"
        with suppress(FileExistsError):
            files.write_new(self.path(name), b"", sync=False)

    def delete(self) -> None:
        """Delete it. Its outcomes must be on the disk of the spool: they cannot be collected again.

        Raises:
            OSError: the share refuses.
        """
        # First it loses its name, at once and as a whole. A runner that came late could make a claim anew that is already
        # deleted, and run its attempt a second time.
        with suppress(FileNotFoundError):
            os.rename(self.folder, self.gone)
        remove(self.gone)

    @property
    def gone(self) -> str:
        """The path that it has while it is being deleted."""
        above, name = os.path.split(self.folder)
        return os.path.join(above, f"{GONE}{name}")

    # -- look ------------------------------------------------------------------------------------------------------

    def glance(self) -> tuple[int, ...]:
        """Return what is another value when a runner has come, begun, ended or left something: a tenth of the cost of a look.

        An NFS client answers a stat from its memory, for up to a minute. It asks the server when a file is opened.

        Raises:
            OSError: the share refuses, or the folder is gone.
        """
        found = []
        for path in (self.folder, *(self.path(f"exits.{runner}") for runner in self._at_work)):
            try:
                fd = os.open(path, safe_open.SAFE_READ)
            except FileNotFoundError:
                if path is self.folder:
                    raise
                continue
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
            found.append(status.st_mtime_ns if path is self.folder else status.st_size)
        return tuple(found)

    def look(self) -> Look:
        """Read what the runners have written since the last look.

        Raises:
            OSError: the share refuses, or the folder is gone.
        """
        found, owners, claims = Look(), dict[int, str](), dict[int, int]()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                kind, _, rest = entry.name.partition(".")
                if kind == "claim" and (number := number_in(entry.name, "claim.", "")) is not None:
                    claims[number] = entry.inode()
                elif kind == "by" and rest:
                    owners[entry.inode()] = rest
                elif kind == "left":
                    found.left.add(rest)
        found.claims = {number: owners.get(inode, "") for number, inode in claims.items()}
        for runner in owners.values():
            if runner != DISPATCHER:
                found.beats[runner] = self._beat(runner)
                found.records += self._records(runner, found)
        self._at_work = tuple(found.beats.keys() - found.left)
        return found

    def _beat(self, runner: str) -> bytes | None:
        with suppress(FileNotFoundError, safe_open.NotReadable):
            return safe_open.read_regular(self.path(f"beat.{runner}"), _SMALL)[0]
        return None

    def _records(self, runner: str, found: Look) -> Iterator[Record]:
        """Yield the new records of a runner. A line without its end is read again by the next look."""
        begin = self._read.get(runner, 0)
        data = _read_from(self.path(f"exits.{runner}"), begin)
        end = data.rfind(b"\n") + 1
        if not end and len(data) > _LONGEST_LINE:
            end = len(data)  # no line at all
        self._read[runner] = begin + end
        for line in data[:end].splitlines():
            record = parse(line, self.keys, runner) if len(line) <= _LONGEST_LINE else None
            if (
                record is not None
                and record.number not in self._recorded
                and self._has(runner, record, found)
            ):
                self._recorded.add(record.number)
                yield record

    def _has(self, runner: str, record: Record, found: Look) -> bool:
        """Whether the runner has the claim of what it says to have run. It may have made it after the look at the names."""
        if found.claims.get(record.number) == runner:
            return True
        with suppress(FileNotFoundError):
            claim, by = os.lstat(self.path(f"claim.{record.number}")), os.lstat(self.path(f"by.{runner}"))
            return os.path.samestat(claim, by)
        return False


def _job(order: Order, list_file: str) -> dict[str, Any]:
    """What pack.json says of an attempt. The list of other jobs is a file beside it: ten thousand are too long for a variable."""
    job = asdict(order)
    if job.pop("others") is not None:
        job["env"]["QUEUECTL_AFTER"] = list_file
    return job


def _read_from(path: str, begin: int) -> bytes:
    """Read a part of a file that another machine writes; nothing if it is not there, or not a file of ours.

    Raises:
        OSError: the share does not answer. That must not look like an attempt without a record.
    """
    try:
        fd = os.open(path, safe_open.SAFE_READ)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            return b""
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or safe_open.has_other_owner(status):
            return b""
        os.lseek(fd, begin, os.SEEK_SET)
        return os.read(fd, _AT_ONCE)
    finally:
        os.close(fd)


def parse(line: bytes, keys: Sequence[tuple[str, str]], runner: str = "") -> Record | None:
    """Read a line about an attempt; None if it is about none of these keys, or damaged."""
    try:
        given = json.loads(line)
        number, key, how, code = given["n"], given["key"], given["how"], given["code"]
        if type(number) is not int or not 0 <= number < len(keys) or tuple(key) != keys[number]:
            return None
        if how not in HOWS or not (code is None or (type(code) is int and -128 <= code <= 255)):
            return None
        return Record(
            number, how, code, one_line(str(given["why"])), given["ran"] is True, one_line(str(given["node"])),
            _amount(given["started"]), _amount(given["ended"]), _amount(given["seconds"]),
            int(_amount(given["out"])), int(_amount(given["err"])), one_line(runner),
        )  # fmt: skip
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _amount(value: Any) -> float:
    """Return a number that is not negative. Recorded in a job, any other would end whoever reads it."""
    amount = float(value)
    return min(max(0.0, amount), 1e12) if math.isfinite(amount) else 0.0
