"""`queuectl completion`: print the script with which a shell completes commands, options and ids."""

from __future__ import annotations

import click

from queuectl.cli.base import Usage, command

SHELLS = ("bash", "zsh", "fish")


@command(
    "completion",
    examples="""
    eval "$(queuectl completion bash)"                                   in ~/.bashrc
    eval "$(queuectl completion zsh)"                                    in ~/.zshrc, after compinit
    queuectl completion fish > ~/.config/fish/completions/queuectl.fish
    """,
    no_json=("the script has no JSON form", None),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script with which your shell completes commands, options, settings and job ids."""
    from click.shell_completion import get_completion_class

    from queuectl.cli import COMPLETE_VAR

    found = get_completion_class(shell)
    if found is None:
        raise Usage(f"there is no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "queuectl", COMPLETE_VAR).source(), nl=False)
