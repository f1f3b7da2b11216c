"""`queuectl completion`: print the script with which a shell completes commands, options and ids."""

from __future__ import annotations

import click

from queuectl.cli.base import Usage, command

SHELLS = ("bash", "zsh", "fish")

BASH = r"""
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} word part start= found
    word=${line##*[[:space:]]} part=${word}
    # For bash a : or = ends a word. It replaces only what follows the last one, like night in --after batch:night.
    if [[ $part == --*=* ]]; then part=${part#*=}; fi
    if [[ $part == *:* && $COMP_WORDBREAKS == *:* ]]; then start=${part%%"${part##*:}"}; fi
    while IFS= read -r found; do
        case $found in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,*) found=${found#plain,} found=${found%%%%$'\t'*}; COMPREPLY+=("${found#"$start"}") ;;
        esac
    done < <(env %(complete_var)s=fish_complete COMP_WORDS="$line" COMP_CWORD="$word" "$1")
    # What ends like priority= or batch: is to be continued.
    if [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[:=] ]]; then compopt -o nospace; fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
"""The script for bash. That of click takes the words as bash divides them: it would complete `night` as a word of its own.

The answer is asked for as fish asks, with the incomplete word as it is.
"""

_ZSH_OFFER = "        compadd -U -V unsorted -a completions\n"
_ZSH_OPEN = """        compadd -U -S '' -V unsorted -- ${(M)completions:#*[:=]}
        compadd -U -V unsorted -- ${completions:#*[:=]}
"""
"""No space behind what ends like batch: and is to be continued. Fish leaves it out by itself."""


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
    if shell == "bash":
        found = type("Bash", (found,), {"source_template": BASH.lstrip()})
    script = found(ctx.find_root().command, {}, "queuectl", COMPLETE_VAR).source()
    click.echo(script.replace(_ZSH_OFFER, _ZSH_OPEN), nl=False)
