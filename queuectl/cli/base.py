"""The base of all commands: options that every level accepts, lazy loading, help pages with examples."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli.lost_output import keep_working

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from click.shell_completion import CompletionItem

    from queuectl.api.spool import Spool


_NEAR = 0.8
"""How alike a mistyped and a suggested name must be. At 0.77 `recover` became `remove`."""


class Session:
    """One call of the command line: which spool it uses, and whether it prints JSON and may use a pager."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.json = False
        self.pager = True
        self._spool: Spool | None = None
        self._was_there = False

    @property
    def spool(self) -> Spool:
        """The spool that --spool, QUEUECTL_SPOOL or the default names."""
        if self._spool is None:
            from queuectl.api.spool import Spool

            self._spool = Spool(self.root)
            self._was_there = self._spool.layout.exists()
        return self._spool

    @property
    def settings_fault(self) -> str | None:
        """What is wrong with the settings, if what was shown may lack jobs because of it."""
        return self._spool.settings_fault if self._spool is not None else None

    def tell_if_new(self) -> None:
        """Say on stderr that the command has made the spool, or that there is none: --spool may be mistyped."""
        if self.root is None or self._spool is None or self._was_there or self.json:
            return
        from queuectl.api import access
        from queuectl.cli import render

        layout = self._spool.layout
        if layout.exists():
            render.note(access.MADE.format(layout.root))
        else:
            render.note(f"note: {access.NONE.format(layout.root)}")


class Usage(click.UsageError):
    """A usage error with its own hint instead of the help page."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _set_spool(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value and not ctx.resilient_parsing:
        raise click.BadParameter("is empty", ctx, param)
    ctx.ensure_object(Session).root = value


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).json = True


def _set_no_pager(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).pager = False


def _folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def _shared_options(*, json: bool = True, pager: bool = False) -> list[click.Parameter]:
    """--spool, --json and --no-pager. Each level has them, so that they work before and after a command's name.

    Args:
        json, pager: show this option on the help page. A script may give --no-pager to every command.
    """
    return [
        click.Option(
            ["--spool"],
            metavar="DIR",
            expose_value=False,
            callback=_set_spool,
            shell_complete=_folders,
            help="The spool to use. Default: $QUEUECTL_SPOOL, else ~/.queuectl.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            hidden=not json,
            help="Print only JSON.",
        ),
        click.Option(
            ["--no-pager"],
            is_flag=True,
            expose_value=False,
            callback=_set_no_pager,
            hidden=not pager,
            help="On a terminal, do not use a pager.",
        ),
    ]


def _write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """Write the examples line by line: click would join them into a paragraph."""
    if not examples:
        return
    formatter.write_paragraph()
    formatter.write("Examples:\n")
    for line in cleandoc(examples).splitlines():
        formatter.write(f"  {line}\n" if line else "\n")


class _WithContext(click.Command):
    """A command whose usage errors all carry the context, so that the hint can name the help page."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and add the context that click leaves out of some errors."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Option(click.Option):
    """An option under a heading of the help page.

    Args:
        heading: the heading.
    """

    def __init__(self, *args: Any, heading: str, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.heading = heading


class Command(_WithContext):
    """A command with the shared options and a section of examples in its help.

    Args:
        headings: heading -> the names of the options below it; all others are below Options.
        paged: on a terminal, show the output in a pager, except with --follow, --json or --no-pager.
        changes: it changes something, and goes on when nobody reads its output any more.
        no_json: why it refuses --json, and a hint; None: it prints JSON.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        headings: Mapping[str, Sequence[str]] | None = None,
        paged: bool = False,
        changes: bool = False,
        no_json: tuple[str, str | None] | None = None,
        **attrs: Any,
    ) -> None:
        super().__init__(*args, **attrs)
        self.examples = examples
        self._paged, self._changes, self._no_json = paged, changes, no_json
        self.params += _shared_options(json=no_json is None, pager=paged)
        self._headings = {name: heading for heading, names in (headings or {}).items() for name in names}

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with its output in a pager if that is wanted."""
        session = ctx.ensure_object(Session)
        if self._no_json and session.json:
            reason, hint = self._no_json
            raise Usage(reason, hint=hint)
        if self._changes:
            keep_working()
        if not self._paged:
            return super().invoke(ctx)
        from queuectl.cli import render

        direct = not session.pager or ctx.params.get("follow") or session.json
        if direct or not render.is_terminal():
            return super().invoke(ctx)
        from queuectl.cli.pager import paged

        with paged():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings. Nobody reads forty options in one list."""
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
        """Write the examples below the options."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def command(name: str, *, examples: str, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Decorator: make a function a command. Its docstring is the help page."""
    attrs.setdefault("cls", Command)
    make: Callable[[Callable[..., Any]], Command] = click.command(name, examples=examples, **attrs)
    return make


class Group(_WithContext, click.Group):
    """A group that imports the module of a command only when that command is called.

    Args:
        sections: heading -> {command name -> (module of queuectl.cli.commands, one line of help)}. The function in the
            module is named after the command, with `_command` appended.
        hidden_commands: name -> module of commands that work but are not shown in the help.
        other_words: the name of a command in similar tools -> its name here, from `queuectl` on if it is in no or in
            another group.
        needless: the name of such a command that is not needed here -> (why, a hint).
        bare: called when no command is given; None shows the help page as an error.
    """

    def __init__(
        self,
        *,
        sections: Mapping[str, Mapping[str, tuple[str, str]]],
        examples: str,
        hidden_commands: Mapping[str, str] | None = None,
        other_words: Mapping[str, str] | None = None,
        needless: Mapping[str, tuple[str, str]] | None = None,
        bare: Callable[[click.Context], Any] | None = None,
        **attrs: Any,
    ) -> None:
        attrs.setdefault("invoke_without_command", True)
        attrs.setdefault("subcommand_metavar", "COMMAND ...")
        attrs["callback"] = click.pass_context(self._on_its_own)
        super().__init__(**attrs)
        self.sections = sections
        self.examples = examples
        self.params += _shared_options()
        self._modules = {name: module for part in sections.values() for name, (module, _) in part.items()}
        self._modules.update(hidden_commands or {})
        self.other_words = other_words or {}
        self.needless = needless or {}
        self._bare = bare

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """The names of the shown commands, in the order of the help page."""
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
        """Find the command. The error for an unknown name suggests a similar one."""
        name = args[0]
        if name not in self._modules and not ctx.resilient_parsing:
            raise self._unknown(ctx, name)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, name: str) -> Usage:
        right = self.other_words.get(name.lower())
        if right is not None:
            within = "queuectl" if right.startswith("queuectl ") else ctx.command_path
            words = right.removeprefix("queuectl ").split()
            path = " ".join([within, *(word for word in words if word.islower() and word.isalpha())])
            return Usage(f"no command {name!r}; in queuectl it is {right!r}", hint=f"{path} --help")
        if name.lower() in self.needless:
            sentence, hint = self.needless[name.lower()]
            return Usage(f"no command {name!r}: {sentence}", hint=hint)
        from difflib import get_close_matches

        # Not a name with something before it: `unpause` is the opposite of `pause`.
        names = [known for known in self.list_commands(ctx) if not name.lower().endswith(known)]
        near = get_close_matches(name.lower(), names, cutoff=_NEAR)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        return Usage(
            f"no command {name!r}{suggestion}", hint=f"{' '.join([ctx.command_path, *near[:1]])} --help"
        )

    def _on_its_own(self, ctx: click.Context) -> Any:
        """Without a command: call `bare`, or show the help page as a usage error. click calls this in both cases."""
        if ctx.invoked_subcommand is not None:
            return None
        if self._bare is not None:
            return self._bare(ctx)
        click.echo(ctx.get_help(), err=True)
        return 2

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (likewise)
        """Write the commands from `sections`, without importing their modules."""
        for heading, part in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in part.items()], col_max=14)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options: most readers look for a command."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)
