"""The settings file as text: reading YAML or JSON, and changing one entry so that all else stays as people wrote it.

Knows no settings. A plain YAML file is read without yaml, whose import takes longer than enqueueing a job.
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
_LINE_ENDS = "\r\x85\u2028\u2029"  # what YAML takes for a new line beside \n
_PLAIN = re.compile(
    rf" *(?:#[^{_LINE_ENDS}]*)?"
    r"|([a-z_]+): +(?:(0|[1-9][0-9]{0,17})|([0-9]{1,17}\.[0-9]{1,17})|([1-9][0-9]{0,17}(?:ms|[smhdwKMG])))"
    rf" *(?: #[^{_LINE_ENDS}]*)?"
)
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class Entry(NamedTuple):
    """One key with its value, as the file has them."""

    name: str
    value: object
    line: int
    """Counted from 1; 0 where nobody knows."""


def key_of(name: str) -> str:
    """What counts of a key's spelling: max-retries, MAX_RETRIES and max_retries are the same."""
    return name.strip().lower().replace("-", "_")


def place(path: str, line: int) -> str:
    """A place in a file, for the front of a sentence."""
    return f"{path}, line {line}" if line else path


def read(path: str) -> str:
    """The file's text.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        # A link may lead to it, but opening a FIFO would hold up whoever reads it, workers too.
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
    """The entries of a settings file in their order, twins included; the path's ending tells its language.

    Raises:
        ConfigError: not YAML, not JSON, or no mapping; with the line where it is known.
    """
    if path.endswith(".json"):
        return _json_entries(path, text)
    plain = _plain_entries(text)
    return _yaml_entries(path, text) if plain is None else plain


def changed(path: str, text: str, name: str, value: object) -> str:
    """The same file with another value for one key, or without the key if the value is None.

    Raises:
        ConfigError: the file cannot be parsed, or is written in a way that cannot be changed safely.
    """
    wanted = _meaning(path, text)
    if value is None:
        wanted.pop(name, None)
    else:
        wanted[name] = value
    ways = _json_ways if path.endswith(".json") else _yaml_ways
    for candidate in ways(path, text, name, value):
        # Whatever the edit did, it is believed only after it was read back.
        try:
            if _meaning(path, candidate) == wanted:
                return candidate
        except ConfigError:
            continue
    raise ConfigError(f"{path} is written in a way that cannot be changed safely: edit it by hand")


def _meaning(path: str, text: str) -> dict[str, object]:
    return {key_of(entry.name): entry.value for entry in entries(path, text)}


# --- plain YAML ---


def _plain_entries(text: str) -> list[Entry] | None:
    """Read the YAML that nearly every settings file is made of; None when there is more to it."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        match = _PLAIN.fullmatch(line)
        if not match or match[1] in _YAML_WORDS:
            return None
        if match[1]:
            value = int(match[2]) if match[2] else float(match[3]) if match[3] else match[4]
            found.append(Entry(match[1], value, number))
    return found


# --- YAML ---


def _yaml_entries(path: str, text: str) -> list[Entry]:
    loader, pairs, _ = _compose(path, text)
    with _telling_where(path):
        return [
            Entry(
                str(loader.construct_object(key, deep=True)),
                loader.construct_object(value, deep=True),
                key.start_mark.line + 1,
            )
            for key, value in pairs
        ]


@contextmanager
def _telling_where(path: str) -> Iterator[None]:
    """Turn what yaml raises into a ConfigError that names file and line."""
    import yaml

    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{place(path, mark.line + 1 if mark else 0)}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _compose(path: str, text: str) -> tuple[Any, list[tuple[Any, Any]], Any]:
    """A loader, the mapping's key and value nodes, and its own node (None for an empty document)."""
    import yaml

    with _telling_where(path):
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
            return loader, [], None
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{place(path, root.start_mark.line + 1)}: a settings file has lines like `timeout: 20`"
            )
        return loader, root.value, root


def _yaml_ways(path: str, text: str, name: str, value: object) -> Iterator[str]:
    _, pairs, root = _compose(path, text)
    places = [index for index, (key, _) in enumerate(pairs) if key_of(str(key.value)) == name]
    if value is None:
        for index in reversed(places):
            text = _without(text, root, pairs, index)
        yield text
        return
    for scalar in _scalars(value, root):
        if places:
            yield _replaced(text, pairs[places[-1]][1], scalar)
        elif root is not None and root.flow_style:
            yield _into_braces(text, root, f'"{name}": {scalar}')
        else:
            line = f"{' ' * (root.start_mark.column if root else 0)}{name}: {scalar}"
            yield from _new_line(text, name, line)


def _scalars(value: object, root: Any) -> Iterator[str]:
    """A value as text, the plainest first: a name like `no` or a path with ` #` means something else without quotes.

    Among braces as JSON alone, so that a file which is JSON stays so.
    """
    if root is None or not root.flow_style:
        yield str(value)
    yield json.dumps(value, ensure_ascii=False)


def _replaced(text: str, node: Any, scalar: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:  # `key:` alone, an empty value
        scalar = f" {scalar}"
    elif text[start:end].endswith("\n"):
        scalar += "\n"
    return text[:start] + scalar + text[end:]


def _into_braces(text: str, root: Any, pair: str) -> str:
    if not root.value:
        at = root.start_mark.index + 1
        return text[:at] + pair + text[at:]
    at = root.value[-1][1].end_mark.index
    if "\n" in text[root.start_mark.index : root.end_mark.index]:
        pair = "\n" + " " * root.value[-1][0].start_mark.column + pair
    else:
        pair = f" {pair}"
    return f"{text[:at]},{pair}{text[at:]}"


def _new_line(text: str, name: str, line: str) -> Iterator[str]:
    """Put a line in: below the line that has it commented out, else at the end."""
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    spelled = name.replace("_", "[-_]")
    if found := re.search(rf"^[ \t]*#[ \t]*{spelled}[ \t]*:.*\n", text, re.MULTILINE):
        yield text[: found.end()] + line + end + text[found.end() :]
    yield text + line + end


def _without(text: str, root: Any, pairs: list[tuple[Any, Any]], index: int) -> str:
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
    """A JSON object with its keys in order, twins included."""


def _json_entries(path: str, text: str) -> list[Entry]:
    try:
        pairs = json.loads(text.removeprefix("\ufeff").strip() or "{}", object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place(path, error.lineno)}: not JSON: {error.msg.lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(pairs, _Pairs):
        raise ConfigError(f'{path}: a settings file is an object like {{"timeout": 20}}')
    return [Entry(name, _as_dict(value), 0) for name, value in pairs]


def _as_dict(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _as_dict(inner) for name, inner in value}
    return [_as_dict(inner) for inner in value] if isinstance(value, list) else value


def _json_ways(path: str, text: str, name: str, value: object) -> Iterator[str]:
    record = {entry.name: entry.value for entry in _json_entries(path, text)}
    twins = [key for key in record if key_of(key) == name]
    for twin in twins if value is None else twins[:-1]:
        del record[twin]
    if value is not None:
        record[twins[-1] if twins else name] = value
    yield json.dumps(record, indent=2, ensure_ascii=False) + "\n"
