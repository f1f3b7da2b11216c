"""What every command stands on: options accepted at every level, lazy loading, help pages with examples."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from click.shell_completion import CompletionItem

    from queuectl.api.spool import Spool


class Session:
    """One call of the command line: which spool is meant, and whether a program reads the output."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.json = False
        self._spool: Spool | None = None

    @property
    def spool(self) -> Spool:
        """The spool that --spool, QUEUECTL_SPOOL or the default names."""
        if self._spool is None:
            from queuectl.api.spool import Spool

            self._spool = Spool(self.root)
        return self._spool


class Usage(click.UsageError):
    """A call that makes no sense, with a hint of its own instead of the help page."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _take_spool(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value and not ctx.resilient_parsing:
        raise click.BadParameter("names no folder", ctx, param)
    ctx.ensure_object(Session).root = value


def _take_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).json = True


def _folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def _shared_options() -> list[click.Parameter]:
    """--spool and --json: each level has its own, so that they may stand before and after a command's name."""
    return [
        click.Option(
            ["--spool"],
            metavar="DIR",
            expose_value=False,
            callback=_take_spool,
            shell_complete=_folders,
            help="The spool to use. Default: $QUEUECTL_SPOOL, else ~/.queuectl.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_take_json,
            help="Print JSON and nothing else.",
        ),
    ]


def _write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """Write them line by line: click would fill them up into a paragraph."""
    if not examples:
        return
    formatter.write_paragraph()
    formatter.write("Examples:\n")
    for line in cleandoc(examples).splitlines():
        formatter.write(f"  {line}\n" if line else "\n")


class _Placed(click.Command):
    """A command whose usage errors all know where they happened, so that the hint can name the help page."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and complete what click leaves out of some of its errors."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Option(click.Option):
    """An option with a place of its own on the help page.

    Args:
        heading: what it stands under.
    """

    def __init__(self, *args: Any, heading: str, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.heading = heading


class Command(_Placed):
    """A command with the shared options and a section of examples in its help.

    Args:
        headings: heading -> the names of the options that stand under it; others stand under Options.
        paged: on a terminal its output goes through a pager, unless it follows something or --no-pager is given.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        headings: Mapping[str, Sequence[str]] | None = None,
        paged: bool = False,
        **attrs: Any,
    ) -> None:
        super().__init__(*args, **attrs)
        self.examples = examples
        self._paged = paged
        if paged:
            text = "On a terminal: no pager, however long it is."
            self.params.append(click.Option(["--no-pager"], is_flag=True, help=text))
        self.params += _shared_options()
        self._headings = {name: heading for heading, names in (headings or {}).items() for name in names}

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, through a pager if that is wanted."""
        if not self._paged:
            return super().invoke(ctx)
        direct = (
            ctx.params.pop("no_pager", False) or ctx.params.get("follow") or ctx.ensure_object(Session).json
        )
        from queuectl.cli import render

        if direct or not render.is_terminal():
            return super().invoke(ctx)
        from queuectl.cli.pager import paged

        with paged():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings: forty in one list are read by nobody."""
        found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self._headings.values()}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                own = param.heading if isinstance(param, Option) else None
                found.setdefault(own or self._headings.get(param.name or "", "Options"), []).append(record)
        for heading in sorted(found, key="Options".__eq__):
            with formatter.section(heading):
                formatter.write_dl(found[heading])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples under the options."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def command(name: str, *, examples: str, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command; its docstring is the help page."""
    attrs.setdefault("cls", Command)
    make: Callable[[Callable[..., Any]], Command] = click.command(name, examples=examples, **attrs)
    return make


class Group(_Placed, click.Group):
    """A group that imports the module of a command only when that command is asked for.

    Args:
        sections: heading -> {command name -> (module of queuectl.cli.commands, one line of help)}. In its module the command
            is called as on the command line, with `_command` behind it.
        hidden_commands: commands that work and are not shown, by name -> module.
        other_words: what people coming from elsewhere call a command -> the words that are right here.
        bare: called when no command is named; None shows the help page as an error.
    """

    def __init__(
        self,
        *,
        sections: Mapping[str, Mapping[str, tuple[str, str]]],
        examples: str,
        hidden_commands: Mapping[str, str] | None = None,
        other_words: Mapping[str, str] | None = None,
        bare: Callable[[click.Context], Any] | None = None,
        **attrs: Any,
    ) -> None:
        attrs.setdefault("invoke_without_command", True)
        attrs.setdefault("subcommand_metavar", "COMMAND ...")
        super().__init__(**attrs)
        self.sections = sections
        self.examples = examples
        self.params += _shared_options()
        self._modules = {name: module for part in sections.values() for name, (module, _) in part.items()}
        self._modules.update(hidden_commands or {})
        self.other_words = other_words or {}
        self._bare = bare

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """The names to show, in the order of the help page."""
        return [name for part in self.sections.values() for name in part]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (likewise)
        """Import the command's module and return the command, or None for an unknown name."""
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        found: click.Command = getattr(
            import_module(f"queuectl.cli.commands.{module}"), f"{cmd_name}_command"
        )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest names."""
        name = args[0]
        if name not in self._modules and not ctx.resilient_parsing:
            raise self._unknown(ctx, name)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, name: str) -> Usage:
        right = self.other_words.get(name.lower())
        if right is not None:
            words = right.split()
            path = " ".join([ctx.command_path, *(word for word in words if not word.startswith("-"))])
            return Usage(f"no command {name!r}; here it is {right!r}", hint=f"{path} --help")
        from difflib import get_close_matches

        near = get_close_matches(name, self.list_commands(ctx))
        nearest = f"; the nearest is {near[0]!r}" if near else ""
        return Usage(
            f"no command {name!r}{nearest}", hint=f"{' '.join([ctx.command_path, *near[:1]])} --help"
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; without one, what the group does then, else its help page as a usage error."""
        if ctx._protected_args:
            return super().invoke(ctx)
        if self._bare is not None:
            return self._bare(ctx)
        click.echo(ctx.get_help(), err=True)
        return 2

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (likewise)
        """Write the commands from the table, without importing any."""
        for heading, part in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in part.items()], col_max=14)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options: they are what the reader came for."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples under the options."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)
