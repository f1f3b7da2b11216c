"""The settings file as text, YAML or JSON: reads its entries, and changes one without touching the others.

This module does not know which settings exist. A simple YAML file is read without the library yaml: importing it takes
longer than enqueueing a job.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.errors import ConfigError
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT = 1 << 20
_LINE_ENDS = "\r\x85\u2028\u2029"  # the other characters that end a line in YAML
_SIMPLE = re.compile(
    rf" *(?:#[^{_LINE_ENDS}]*)?"
    r"|([a-z_]+): +(?:(0|[1-9][0-9]{0,17})|([0-9]{1,17}\.[0-9]{1,17})"
    r"|((?:[1-9][0-9]{0,8}/)?[1-9][0-9]{0,17}(?:ms|[smhdwKMG])|[a-z_]+=[0-9]{1,9}(?: [a-z_]+=[0-9]{1,9})*"
    r"|(?:/[A-Za-z0-9_.-]+)+|slurm|local))"
    rf" *(?: #[^{_LINE_ENDS}]*)?"
)
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class Entry(NamedTuple):
    """One key of the file, with its value."""

    name: str
    value: object
    line: int
    """From 1; 0 if unknown."""


def key_of(name: str) -> str:
    """Return a key in its standard spelling: max-retries, MAX_RETRIES and max_retries are the same."""
    return name.strip().lower().replace("-", "_")


def place(path: str, line: int) -> str:
    """Return a place in a file as text, for the beginning of a message."""
    return f"{path}, line {line}" if line else path


def read(path: str) -> str:
    """Return the content of the file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        # The owner's symbolic link is allowed: one of another user could lead to a file that only this user may read.
        if os.path.islink(path) and safe_open.has_other_owner(os.lstat(path)):
            raise safe_open.NotReadable("a link of another user")
        # Other special files are not: opening a FIFO would block the worker.
        data, _ = safe_open.read_regular(os.path.realpath(path), _LIMIT)
    except safe_open.NotReadable as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{place(path, line)}: not UTF-8") from None


def entries(path: str, text: str) -> list[Entry]:
    """Return the entries of a settings file in order, with duplicates; a path that ends in .json means JSON, else YAML.

    Raises:
        ConfigError: the text is not YAML or JSON, or not a mapping; with the line if it is known.
    """
    if path.endswith(".json"):
        return _json_entries(path, text)
    simple = _simple_entries(text)
    return _yaml_entries(path, text) if simple is None else simple


def changed(path: str, text: str, name: str, value: object) -> str:
    """Return the text of the file with another value for one key, or without the key if the value is None.

    Raises:
        ConfigError: the file cannot be parsed, or has a form that cannot be changed safely.
    """
    wanted = _values(path, text)
    if value is None:
        wanted.pop(name, None)
    else:
        wanted[name] = value
    candidates = _json_candidates if path.endswith(".json") else _yaml_candidates
    for candidate in candidates(path, text, name, value):
        # An edit is accepted only if the new text, read again, has the wanted values and no other change.
        try:
            if _values(path, candidate) == wanted:
                return candidate
        except ConfigError:
            continue
    raise ConfigError(f"{path} is written in a way that cannot be changed safely: edit it by hand")


def _values(path: str, text: str) -> dict[str, object]:
    return {key_of(entry.name): entry.value for entry in entries(path, text)}


# --- simple YAML ---


def _simple_entries(text: str) -> list[Entry] | None:
    """Read YAML that has only lines like `timeout: 20`, as nearly every settings file; None for all other YAML.

    Rates, resources and paths are among them: 100/1h, gpu=2 memory=64, /shared/queuectl.
    """
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        match = _SIMPLE.fullmatch(line)
        if not match or match[1] in _YAML_WORDS:
            return None
        if match[1]:
            value = int(match[2]) if match[2] else float(match[3]) if match[3] else match[4]
            found.append(Entry(match[1], value, number))
    return found


# --- YAML ---


def _yaml_entries(path: str, text: str) -> list[Entry]:
    import yaml

    loader, pairs, _ = _compose(path, text)
    with _as_config_error(path):
        return [
            Entry(
                str(
                    key.value if isinstance(key, yaml.ScalarNode) else loader.construct_object(key, deep=True)
                ),
                loader.construct_object(value, deep=True),
                key.start_mark.line + 1,
            )
            for key, value in pairs
        ]


@contextmanager
def _as_config_error(path: str) -> Iterator[None]:
    """Turn the exceptions of yaml into a ConfigError with file and line."""
    import yaml

    from queuectl.config import plain_yaml

    try:
        yield
    except plain_yaml.Unclear as error:
        raise ConfigError(f"{place(path, error.line)}: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{place(path, mark.line + 1 if mark else 0)}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _compose(path: str, text: str) -> tuple[Any, list[tuple[Any, Any]], Any]:
    """Return a loader, the pairs of key and value nodes, and the node of the mapping (None for an empty document)."""
    import yaml

    from queuectl.config import plain_yaml

    with _as_config_error(path):
        loader = plain_yaml.loader(yaml.SafeLoader)(text)
        root = loader.get_single_node()
        if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
            return loader, [], None
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{place(path, root.start_mark.line + 1)}: a settings file has lines like `timeout: 20`"
            )
        return loader, root.value, root


def _yaml_candidates(path: str, text: str, name: str, value: object) -> Iterator[str]:
    _, pairs, root = _compose(path, text)
    places = [index for index, (key, _) in enumerate(pairs) if key_of(str(key.value)) == name]
    if value is None:
        for index in reversed(places):
            text = _removed(text, root, pairs, index)
        yield text
        return
    for scalar in _scalars(value, root):
        if places:
            yield _replaced(text, pairs[places[-1]][1], scalar)
        elif root is not None and root.flow_style:
            yield _added_in_braces(text, root, f'"{name}": {scalar}')
        else:
            line = f"{' ' * (root.start_mark.column if root else 0)}{name}: {scalar}"
            yield from _added_line(text, name, line)


def _scalars(value: object, root: Any) -> Iterator[str]:
    """Yield a value as YAML text: first without quotes, then as JSON, as `no` or a path with ` #` needs quotes.

    Within braces only as JSON, so that a file which is valid JSON remains so.
    """
    if root is None or not root.flow_style:
        yield str(value)
    yield json.dumps(value, ensure_ascii=False)


def _replaced(text: str, node: Any, scalar: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:  # `key:` without a value
        scalar = f" {scalar}"
    elif text[start:end].endswith("\n"):
        scalar += "\n"
    return text[:start] + scalar + text[end:]


def _added_in_braces(text: str, root: Any, pair: str) -> str:
    if not root.value:
        at = root.start_mark.index + 1
        return text[:at] + pair + text[at:]
    at = root.value[-1][1].end_mark.index
    if "\n" in text[root.start_mark.index : root.end_mark.index]:
        pair = "\n" + " " * root.value[-1][0].start_mark.column + pair
    else:
        pair = f" {pair}"
    return f"{text[:at]},{pair}{text[at:]}"


def _added_line(text: str, name: str, line: str) -> Iterator[str]:
    """Yield the text with a new line: after a line where the same key is commented out, else at the end."""
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    spelled = name.replace("_", "[-_]")
    if found := re.search(rf"^[ \t]*#[ \t]*{spelled}[ \t]*:.*\n", text, re.MULTILINE):
        yield text[: found.end()] + line + end + text[found.end() :]
    yield text + line + end


def _removed(text: str, root: Any, pairs: list[tuple[Any, Any]], index: int) -> str:
    key, value = pairs[index]
    start, end = key.start_mark.index, value.end_mark.index
    if root.flow_style:
        if index + 1 < len(pairs):
            end = pairs[index + 1][0].start_mark.index
        elif index:
            start = pairs[index - 1][1].end_mark.index
    else:
        start = text.rfind("\n", 0, start) + 1
        if not text[start:end].endswith("\n"):
            end = text.find("\n", end) + 1 or len(text)
    return text[:start] + text[end:]


# --- JSON ---


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, including duplicates."""


def _json_entries(path: str, text: str) -> list[Entry]:
    try:
        pairs = json.loads(text.removeprefix("\ufeff").strip() or "{}", object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place(path, error.lineno)}: not JSON: {error.msg.lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(pairs, _Pairs):
        raise ConfigError(f'{path}: a settings file is an object like {{"timeout": 20}}')
    return [Entry(name, _plain_value(value), 0) for name, value in pairs]


def _plain_value(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain_value(inner) for name, inner in value}
    return [_plain_value(inner) for inner in value] if isinstance(value, list) else value


def _json_candidates(path: str, text: str, name: str, value: object) -> Iterator[str]:
    record = {entry.name: entry.value for entry in _json_entries(path, text)}
    spellings = [key for key in record if key_of(key) == name]
    for spelling in spellings if value is None else spellings[:-1]:
        del record[spelling]
    if value is not None:
        record[spellings[-1] if spellings else name] = value
    yield json.dumps(record, indent=2, ensure_ascii=False) + "\n"
