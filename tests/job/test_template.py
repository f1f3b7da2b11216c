"""A file's name is data: whatever it holds, in no template may the shell run it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queuectl.job.template import PLACEHOLDERS, Template

if TYPE_CHECKING:
    from pathlib import Path

EVIL = [
    "$(:>p)",
    "`:>p`",
    "';:>p;'",
    '";:>p;"',
    "a\n:>p\n",
    "\\\n:>p",
    "x;:>p",
    "&:>p&",
    "|:>p",
    ">p",
    ") :>p; (",
    "'\"`:>p`",
]
"""Names each of which makes a file called p in a shell that reads it as a program."""

PIECES = [
    "'",
    '"',
    "\\",
    "$",
    "{",
    "}",
    "(",
    ")",
    "#",
    "<",
    "`",
    " ",
    "\n",
    "a",
    ";",
    "=",
    "{}",
    "{}",
    "{name}",
    "${",
    "$(",
    "<<a\n",
    "''",
]
SHELLS = [path for path in map(shutil.which, ("dash", "bash")) if path]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("ffmpeg -i {} {stem}.mp3", "ffmpeg -i 'in/my song.wav' 'my song'.mp3"),
        ("echo {n} {dir} {name} {ext}", "echo 7 in 'my song.wav' wav"),
        ("echo ${HOME} {{} {{n} } {a,b} {1} { :; } {n}", "echo ${HOME} {} {n} } {a,b} {1} { :; } 7"),
        ("echo ${stem} a#b {stem}", "echo ${stem} a#b 'my song'"),
        ("awk '{ print $1 }' {} # and more", "awk '{ print $1 }' 'in/my song.wav' # and more"),
        ('x=$(cat {}); echo "$x" > {stem}', "x=$(cat 'in/my song.wav'); echo \"$x\" > 'my song'"),
    ],
)  # fmt: skip
def test_placeholders_of_a_shell_text_are_quoted_parts_of_the_value(template: str, text: str) -> None:
    """Each placeholder becomes its part of the value, as one word; all other braces stay what they are."""
    assert Template(template).job("in/my song.wav", 7)["command"] == text


def test_placeholders_of_a_list_are_the_bare_parts() -> None:
    """Without a shell nothing is quoted, and a part may hold several."""
    made = Template(["cp", "{}", "{dir}/{n}-{stem}.{ext}", "{{}"]).job("in/my song.wav", 7)

    assert made["command"] == ["cp", "in/my song.wav", "in/7-my song.wav", "{}"]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a.tar.gz", {"stem": "a.tar", "name": "a.tar.gz", "dir": ".", "ext": "gz"}),
        ("/x/.bashrc", {"stem": ".bashrc", "name": ".bashrc", "dir": "/x", "ext": ""}),
        ("x/", {"stem": "", "name": "", "dir": "x", "ext": ""}),
        ("a line of words", {"stem": "a line of words", "name": "a line of words", "dir": ".", "ext": ""}),
    ],
)
def test_parts_of_odd_values(value: str, parts: dict[str, str]) -> None:
    """What has no folder or no extension has them empty or as a dot, and never fails."""
    for name, wanted in parts.items():
        assert Template(["x", f"{{{name}}}"]).job(value)["command"] == ["x", wanted]


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("echo hello", "no placeholder"),
        ("echo {{}", "no placeholder"),
        ("echo {stm}", "{stem}"),
        ("echo {file}", "no placeholder is called {file}"),
        ("echo '{}'", "in quotes"),
        ('echo "$x {stem}"', "in quotes"),
        ("echo `cat {}`", "behind a backquote"),
        ("cat <<END\n{}\nEND", "behind <<"),
        ("echo \\{}", "behind a backslash"),
        ("ls # {}", "in a comment"),
        ("echo ${x:-{}}", "in ${…}"),
        ("echo $((1 + {n}))", "behind (("),
        ("echo $'a' {}", "behind $'"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe_is_refused(template: str, word: str) -> None:
    """A misspelt placeholder, a command that would be the same for all, a place where quoting would not hold."""
    with pytest.raises(ValueError, match=word.replace("$", r"\$").replace("(", r"\(").replace("{", r"\{")):
        Template(template)


def test_fields_and_the_id_come_along() -> None:
    """Further fields are those of each job, and the id may be numbered."""
    template = Template(["x", "{}"], id="job-{n}", priority=2)

    assert list(template.jobs(["a", "b"])) == [
        {"command": ["x", "a"], "id": "job-1", "priority": 2},
        {"command": ["x", "b"], "id": "job-2", "priority": 2},
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shell", SHELLS, ids=os.path.basename)
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example(value="-n")
@settings(max_examples=60)
def test_shell_hands_on_exactly_the_value(shell: str, value: str) -> None:
    """Whatever characters a value holds, the command gets it as one argument, unchanged."""
    command = Template("printf '<%s>' {} {}x").job(value)["command"]
    done = subprocess.run([shell, "-c", command], capture_output=True, check=True, timeout=60)

    assert done.stdout == f"<{value}><{value}x>".encode()


@pytest.mark.timeout(300)  # hundreds of shells are started, one after another
@pytest.mark.parametrize("shell", SHELLS, ids=os.path.basename)
@settings(max_examples=250)
@given(
    template=st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join),
    value=st.sampled_from(EVIL),
)
@example(template='"$(a \'"\')" {}', value="$(:>p)")
@example(template='"$(a \'"\' "{}")"', value="$(:>p)")
@example(template='# "\n{}', value="';:>p;'")
@example(template="a#' {} '", value="';:>p;'")
@example(template='"\\"{}"', value="$(:>p)")
@example(template="${a#'}' {} '", value="';:>p;'")
@example(template="\\\\{}", value="';:>p;'")
@example(template="<<a\n{}\na\n", value="$(:>p)")
@example(template="#\\\n{}", value="a\n:>p\n")
@example(template="\"$(a '\"')\" ' {} '", value="$(:>p)")
@example(template="${a#'}'}' {} '", value="$(:>p)")
@example(template="a\\\n#'\n{} '", value="';:>p;'")
@example(template="a\\\n#'\n{} '", value="$(:>p)")
@example(template="a\\ #'\n{} '", value="$(:>p)")
@example(template="a\\ \\\n#'\n{} '", value="$(:>p)")
@example(template="(\\\n(a#'\n{} '", value="$(:>p)")
@example(template="$\\\n'\\'{} '", value="$(:>p)")
@example(template="<\\\n<a\n{}\na\n", value="$(:>p)")
@example(template="\"$\\\n(a '\"')\" ' {} '", value="$(:>p)")
def test_no_template_lets_the_shell_run_a_value(
    shell: str, template: str, value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However the quotes of a template stand, it is refused or the value stays data."""
    try:
        command = Template(template).job(value)["command"]
    except ValueError:
        return
    folder: Path = tmp_path_factory.getbasetemp() / os.path.basename(shell)
    folder.mkdir(exist_ok=True)
    (folder / "p").unlink(missing_ok=True)  # of another example, which failed by itself
    subprocess.run(
        [shell, "-c", command], cwd=folder, env={"PATH": "/nowhere"}, capture_output=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert not (folder / "p").exists(), command


def test_help_names_every_placeholder() -> None:
    """What the program knows a reader can find."""
    from queuectl.cli.commands.enqueue import enqueue_command

    page = enqueue_command.get_help(
        enqueue_command.make_context("x", ["--each", "x", "{}"], resilient_parsing=True)
    )
    assert [name for name in PLACEHOLDERS if f"{{{name}}}" not in page] == []
