"""The output of jobs: the end of it on a page, parts as it grows, the whole as a file."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from queuectl.api import output_part
from queuectl.errors import QueuectlError
from queuectl.job.fields import is_id
from queuectl.job.redact import one_line
from queuectl.layout import COMPRESSED
from queuectl.web import text
from queuectl.web.call import job_id_of
from queuectl.web.query import BadQuery, once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.output_part import Part
    from queuectl.api.spool import Spool
    from queuectl.web.call import Call

MOST = 64 << 10
"""Bytes of one answer."""

_BLOCK = 1 << 16
_PART = 1 << 18
"""Bytes of a download that are read at once. Each browser that reads slowly holds 1 MB of memory: with 1 MiB it was 2.7."""
_MOST_DIGITS = 15


def run_of(given: str | None) -> int | None:
    """Read the number of a run; None: the last one.

    Raises:
        BadQuery: it is none.
    """
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 9 and int(given) > 0):
        raise BadQuery("run is a number from 1 on")
    return int(given)


def last_part(spool: Spool, job_id: str, run: int | None, stream: str) -> Part:
    """Return the last 64 KiB of an output, from the beginning of a line."""
    return spool.output_part(job_id, run=run, stream=stream, start=-1, most=MOST)


def shown(part: Part) -> dict[str, Any]:
    """Return a part of an output as a page has it, and as the answer to the page's script."""
    data, after = part.data, part.next
    if not part.is_over and (back := text.half_escape(data)) and back < len(data):
        data, after = data[:-back], after - back
    return {
        "text": text.plain_output(data.decode("utf-8", "replace")),
        "from": part.start,
        "next": after,
        "size": part.size,
        "run": part.run,
        "cut": part.was_cut,
        "end": part.is_over and part.next >= part.size,
    }


def log(call: Call) -> Response:
    """The part of an output after a place, for the page's script."""
    job_id = job_id_of(call)
    given = once(call.pairs, ("run", "stream", "from"))
    stream = _stream(given.get("stream", "out"))
    start = given.get("from", "-1")
    if start != "-1" and not (start.isascii() and start.isdecimal() and len(start) <= _MOST_DIGITS):
        raise BadQuery("from is a place in bytes, or -1")
    with call.site.spool() as spool:
        part = spool.output_part(
            job_id, run=run_of(given.get("run")), stream=stream, start=int(start), most=MOST
        )
    return JSONResponse(shown(part))


def _stream(given: str) -> str:
    if given not in output_part.STREAMS:
        raise BadQuery("stream is out or err")
    return given


def log_file(call: Call) -> Response:
    """The whole output of a run, as a file to save."""
    job_id = job_id_of(call)
    given = once(call.pairs, ("run", "stream"))
    stream, run = _stream(given.get("stream", "out")), run_of(given.get("run"))
    with call.site.spool() as spool:
        part = spool.output_part(job_id, run=run, stream=stream, most=1)
        path = spool.output(job_id, run=part.run, stream=stream)
    headers = {}
    if is_id(job_id):
        headers["Content-Disposition"] = f'attachment; filename="{job_id}.{part.run}.{stream}.txt"'
    if path is not None and path.endswith(COMPRESSED):
        blocks = _unpacked(path)
    else:
        blocks = _blocks(call, job_id, part.run, stream, part.size)
    return StreamingResponse(blocks, media_type="text/plain; charset=utf-8", headers=headers)


def _blocks(call: Call, job_id: str, run: int, stream: str, size: int) -> Iterator[bytes]:
    """Yield an output up to this size. Before each part it is asked anew whose output it is."""
    at = 0
    while at < size:
        try:
            with call.site.spool() as spool:
                part = spool.output_part(job_id, run=run, stream=stream, start=at, most=min(_PART, size - at))
        except QueuectlError:
            return  # the job was deleted while its output was sent
        if not part.data or part.was_cut:
            return
        yield part.data
        at = part.next


def _unpacked(path: str) -> Iterator[bytes]:
    try:
        fd = output_part.open_regular(path)
    except FileNotFoundError:
        return
    try:
        with os.fdopen(fd, "rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            while block := file.read(_BLOCK):
                yield block
    except (EOFError, OSError, zlib.error) as error:  # the answer has begun: only its text can still tell it
        yield f"\n[queuectl: the rest of this file is damaged: {one_line(str(error))}]\n".encode()
