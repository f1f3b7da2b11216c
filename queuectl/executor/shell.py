"""Commands that need no shell: plain words, the first of them a program. Running these without one halves their cost.

`make` does the same. The rule errs towards the shell: whatever a shell could read in another way goes to the shell,
and so does a program that cannot be found or started, for the shell to say so in its own words.
"""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SHELL = "/bin/sh"

_PLAIN = re.compile(
    r"[ \t]*[A-Za-z0-9_./+-]+(?:[ \t]+[A-Za-z0-9_./+:@%,-][A-Za-z0-9_./+:@%,=-]*)*[ \t]*", re.ASCII
)

_SHELLS = ("dash", "bash")
"""Shells whose reading of plain words was compared with ours; others have more built in than we know of."""

_DONE_BY_SHELLS = """
    . : alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare dirs
    disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help
    history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set
    shift shopt source suspend test then time times trap true type typeset ulimit umask unalias unset until wait while
"""
_BUILT_IN = frozenset(_DONE_BY_SHELLS.split())
"""What dash and bash do themselves, and words of their grammar: theirs differ from the programs of those names."""

PROGRAMS = {"true": "/bin/true", "false": "/bin/false"}
"""Except for these, alone: shell and program do nothing, and end with the same exit code. What else on PATH is called
so no shell would run.
"""

_CHANGES_BASH = ("BASH_FUNC_", "BASHOPTS", "SHELLOPTS")
"""Beginnings of variables by which the environment changes what bash makes of a word."""


def plain_words(command: str, environment: Mapping[str, str]) -> list[str] | None:
    """Split a command as the shell would, if that is beyond doubt; None when it takes a shell."""
    if not _PLAIN.fullmatch(command):
        return None
    words = command.split()
    if _shell() not in _SHELLS or (words[0] in _BUILT_IN and (words[0] not in PROGRAMS or len(words) > 1)):
        return None
    if _shell() == "bash" and any(name.startswith(_CHANGES_BASH) for name in environment):
        return None
    return words


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """The file that a shell would run under this name; None when there is any doubt.

    A relative path is one from the current folder.
    """
    if "/" in name:
        return name
    for folder in environment.get("PATH", "").split(":"):
        if not folder.startswith("/"):
            return None
        path = f"{folder}/{name}"
        if os.access(path, os.F_OK):
            try:
                fits = stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
            except OSError:
                return None
            return path if fits else None
    return None


@lru_cache(maxsize=1)
def _shell() -> str:
    """The real name of the system's shell."""
    return os.path.basename(os.path.realpath(SHELL))
