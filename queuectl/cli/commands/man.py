"""`queuectl man`: print the manual page. It is generated from the help pages, so that both always agree."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from queuectl.cli import render
from queuectl.cli.base import command

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = (
    ("~/.queuectl/", "The default spool."),
    ("config.yaml", "The settings."),
    ("pending/", "Waiting jobs, one NAME.json each. Drop files here."),
    ("processing/WORKER/", "Running jobs, in the folder of their worker."),
    ("done/", "Completed jobs, with the result in the file."),
    ("dead/", "Dead jobs, with the reason in the file or in a note next to it."),
    ("logs/", "The full output of every attempt."),
    ("tmp/", "Programs can write a file here, then move it into pending/."),
    ("data/", "Internal files: the index, worker records, locks."),
)
_ENVIRONMENT = (
    ("QUEUECTL_SPOOL", "The spool to use, instead of ~/.queuectl."),
    ("PAGER", "The pager for long output on a terminal. Default: less."),
    ("NO_COLOR", "If set, no colours. CLICOLOR=0 and TERM=dumb do the same."),
    ("VISUAL, EDITOR", "The editor for jobs."),
)
_EXIT = (
    ("0", "Done."),
    ("1", "Refused, or not found; or a file is wrong."),
    ("2", "What was typed is wrong: an option, a name or a value."),
    ("3", "An error of the spool or the disk."),
    ("4", "No space on the disk."),
    ("130", "Interrupted."),
)


@command(
    "man",
    examples="""
    queuectl man | man -l -
    queuectl man > ~/.local/share/man/man1/queuectl.1
    """,
    no_json=("the manual page has no JSON form", None),
)
@click.pass_context
def man_command(ctx: click.Context) -> None:
    """Print the manual page in roff format. It contains all help pages."""
    root = ctx.find_root().command
    if isinstance(root, click.Group):
        click.echo("\n".join(_page(root)))


def _page(root: click.Group) -> Iterator[str]:
    import queuectl

    yield f'.TH QUEUECTL 1 "" "queuectl {queuectl.__version__}" "User Commands"'
    yield from (".SH NAME", "queuectl \\- " + _text((root.help or "").splitlines()[0].rstrip(".")))
    yield from (".SH SYNOPSIS", ".B queuectl", _text("[OPTIONS] COMMAND ..."))
    yield ".SH DESCRIPTION"
    yield from _paragraphs((root.help or "").partition("\n")[2])
    ctx = click.Context(root, info_name="queuectl")
    yield from (".SH OPTIONS", *_options(root, ctx))
    for heading, part in getattr(root, "sections", {}).items():
        yield f".SH {_quoted(heading.upper())}"
        for name in part:
            found = root.get_command(ctx, name)
            if found is not None:
                yield from _command(found, click.Context(found, info_name=name, parent=ctx))
    yield from _list("FILES", _FILES)
    yield from _list("ENVIRONMENT", _ENVIRONMENT)
    yield from _list("EXIT STATUS", _EXIT)
    yield ".SH EXAMPLES"
    yield from _examples(root)


def _command(found: click.Command, ctx: click.Context) -> Iterator[str]:
    words = ctx.command_path.removeprefix("queuectl ")
    yield f".SS {_quoted(' '.join([words, *found.collect_usage_pieces(ctx)]))}"
    yield from _paragraphs(found.help or "")
    yield from _options(found, ctx)
    yield from _examples(found)
    if isinstance(found, click.Group):
        for name in found.list_commands(ctx):
            inner = found.get_command(ctx, name)
            if inner is not None:
                yield from _command(inner, click.Context(inner, info_name=name, parent=ctx))


def _options(found: click.Command, ctx: click.Context) -> Iterator[str]:
    """The options of a command. Options that all commands have are listed once, at the top."""
    everywhere = {"--spool", "--json", "--help"} if ctx.parent is not None else set()
    for param in found.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None and not everywhere.intersection(param.opts):
            yield from (".TP", f".B {_quoted(record[0])}", _text(record[1]))


def _examples(found: click.Command) -> Iterator[str]:
    examples = cleandoc(getattr(found, "examples", ""))
    if examples:
        yield from (".PP", ".nf", ".RS 4", *map(_text, examples.splitlines()), ".RE", ".fi")


def _list(heading: str, rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {_quoted(heading)}"
    for name, words in rows:
        yield from (".TP", f".B {_quoted(name)}", _text(words))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", cleandoc(text)):
        if paragraph.strip():
            yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    r"""Escape text for roff: \ and - are special, and a dot or ' at the start of a line begins a request."""
    text = (
        render.visible(text)
        .replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("`", "\\(ga")
        .replace("^", "\\(ha")
    )
    text = text.replace("~", "\\(ti").replace("'", "\\(aq")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def _quoted(text: str) -> str:
    """Escape text as one argument of a roff request."""
    return '"' + _text(text).replace('"', "\\(dq") + '"'
