"""What rules about files and jobs cost: a folder with very many files, jobs made of files, and a hook for each job."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil

from queuectl.rules import folder_look, rule_file, seen_files
from queuectl.rules.file_trigger import FileTrigger

from .idle import used
from .place import Box, box, folder_in, timed, wait_for
from .tables import Samples, number, table

if TYPE_CHECKING:
    from pathlib import Path

    from .scale import Scale

_ENDED = 1e9
"""Epoch seconds of the files here: they are old, so nobody waits until they are complete."""


def files_and_hooks(scale: Scale, folder: Path) -> None:
    """(y) Rules that watch folders, and rules about jobs."""
    table(
        "(y) rules about files and jobs",
        ("", "measured", "at most"),
        [*_watched(scale, folder), *_jobs_of_files(scale, folder), _hooks(scale, folder)],
    )


def _write(made: Box, text: str) -> str:
    scratch = made.path / "tmp" / ".rule"
    scratch.write_text(text, encoding="utf-8")
    os.rename(scratch, made.path / "rules" / "watch.yaml")
    return text


def _fill(folder: Path, count: int) -> None:
    folder.mkdir()
    for number_of in range(count):
        path = folder / f"file-{number_of}.pdf"
        path.write_bytes(b"x")
        os.utime(path, (_ENDED, _ENDED))


def _watched(scale: Scale, folder: Path) -> list[list[str]]:
    """A folder of very many files that were taken already: the first look, and what a worker costs that follows it."""
    with box(folder) as made:
        files = made.root / "files"
        _fill(files, scale.watched)
        text = f"when: {{file: {files}, settle: 0s}}\njob: {{command: 'true {{}}'}}\n"
        trigger = rule_file.parse("watch", text.encode(), "rules/watch.yaml").trigger
        assert isinstance(trigger, FileTrigger)
        found = (folder_look.find(trigger, name) for name in os.listdir(files))
        seen = seen_files.SeenFiles(made.spool.layout.rule_seen("watch"))
        seen.add([seen_files.line(one) for one in found if one is not None])
        (bare,) = made.start(1)
        time.sleep(min(2.0, scale.idle))
        memory, before = psutil.Process(bare).memory_info().rss, used([bare])
        _write(made, text)
        (files / "new.pdf").write_bytes(b"x")
        wait_for(lambda: len(made.done()) == 1, pause=0.05)
        look = used([bare]) - before
        time.sleep(min(10.0, scale.idle))
        began, before = time.monotonic(), used([bare])
        time.sleep(6 * scale.idle)
        share = 100 * (used([bare]) - before) / (time.monotonic() - began)
        more = psutil.Process(bare).memory_info().rss - memory
    many = f"{scale.watched:,} files"
    return [
        [f"{many} in a folder, processor time until a new one has run", number(look, "s"), "0.5 s"],
        [f"{many}, an idle worker, in % of a core", number(share, "%"), "1 %"],
        [f"{many}, memory of the worker more", number(more, "MB"), "25 MB"],
    ]


def _jobs_of_files(scale: Scale, folder: Path) -> list[list[str]]:
    """From files to jobs in pending/, by a rule and by one command."""
    count, by_rule, by_command = scale.verbs, [], []
    for _ in range(scale.rounds):
        with box(folder) as made:
            files = made.root / "files"
            _fill(files, count)
            made.spool.pause("nothing is to run")
            made.start(1)
            began = time.perf_counter()
            _write(
                made,
                f"when: {{file: {files}, settle: 0s, at_most: {count}}}\njob: {{command: [cat, '{{}}'], timeout: 60}}\n",
            )
            wait_for(lambda: len(os.listdir(made.path / "pending")) >= count, pause=0.05)
            by_rule.append((time.perf_counter() - began) / count)
        other = folder_in(folder)
        with box(other) as made:
            words = made.command("enqueue", "--timeout", "60", "--each", f"{files}/*.pdf", "--", "cat", "{}")
            by_command.append(timed(words, made.environment) / count)
    one, another = Samples(by_rule), Samples(by_command)
    return [
        [f"{count:,} files, from a file to its job", one.cell("us"), f"enqueue --each: {another.cell('us')}"]
    ]


def _hooks(scale: Scale, folder: Path) -> list[str]:
    """A rule that tells of each job that has ended well, compared with the same number of jobs without a rule."""
    shares = []
    for _ in range(scale.rounds):
        rates = []
        for rule in ("", "when: {job: done}\njob: {command: 'true'}\n"):
            with box(folder) as made:
                if rule:
                    _write(made, rule)
                many = scale.drain if rule else 2 * scale.drain
                made.spool.enqueue_many([{"command": "true"}] * many)
                time.sleep(min(2.0, scale.idle))
                taken = made.call("worker", "start", "--foreground", "--drain")
                rates.append(len(made.done()) / taken)
        shares.append(rates[1] / rates[0])
    return [
        "a rule about each job that is done: the rate of all jobs, compared with as many without a rule",
        Samples(shares).cell("/s").replace("/s", ""),
        "0.7 at least",
    ]
