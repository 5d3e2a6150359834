"""YAML text to values that know their line, and the one-line fault that points there.

The scalars are those of YAML 1.2's core schema (decimal only): `1e-5` is a number, `on`, `off`,
`yes`, `no` are strings, where PyYAML by itself follows YAML 1.1 and has it the other way round.
"""

import difflib
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

MAX_NODES = 100_000

MAX_KEY = 120
"""Characters of a key that a message shows."""


@dataclass(frozen=True)
class Node:
    """A value and its parts. `line` is that of its key, or in a list its own, counted from 1;
    `source` is the override that gave it, such as `--set train.epochs=5`, if it is not from the
    file."""

    value: Any
    line: int = 1
    source: str = ""
    children: Mapping[Any, "Node"] = field(default_factory=dict)


class Fault(Exception):
    """What is wrong with a node, under which key, and what would be right."""

    def __init__(self, node: Node, key: str, text: str):
        where = _plain(node.source or key)
        if len(where) > MAX_KEY:
            where = f"{where[:MAX_KEY]}..."
        super().__init__(f"{node.line}: {where}: {_plain(text)}")
        self.line = node.line


def _plain(text: str) -> str:
    """The text in one line of characters that can be printed."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class Faults(list[Fault]):
    """The faults found so far: `with faults:` notes a fault of its block and goes on after it."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool:
        if isinstance(error, Fault):
            self.append(error)
        return isinstance(error, Fault)

    def raise_first(self) -> None:
        """Raise the one that stands first in the file, if there is one."""
        if self:
            raise min(self, key=lambda fault: fault.line)


def read_yaml(path: Path) -> Node:
    """The root of a file's document; raises Fault."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Fault(Node(None, line), "file", "is not text in UTF-8") from None
    except FileNotFoundError:
        raise Fault(Node(None), "file", f"is not there, {_near(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Fault(Node(None), "file", f"cannot be read: {reason}") from None
    return parse_yaml(text)


def _near(path: Path) -> str:
    """How to go on where there is no grid: one of nearly the same name, else where grids are."""
    folders = {Path("grids"), path.parent}
    grids = {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
    close = difflib.get_close_matches(path.stem, grids, n=1)
    if close:
        return f"did you mean {str(grids[close[0]])!r}?"
    return "grids come with zoorecall's repository, in its folder grids"


def parse_yaml(text: str, source: str = "") -> Node:
    """The root of the one document of a text; raises Fault."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Node(None, 1, source) if root is None else _node(root, source, itertools.count(1))
    except yaml.MarkedYAMLError as error:
        parts = [part for part in (error.context, error.problem) if part]
        # a bracket or quote that is never closed is found only where the text ends
        opened = re.search("flow|quoted|simple key", error.context or "")
        mark = error.context_mark if opened else error.problem_mark
        line, problem = mark.line + 1 if mark else 1, ", ".join(parts)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character {chr(error.character)!r} is not allowed"
    except RecursionError:
        line, problem = 1, "too deep, or an alias inside its own anchor"
    raise Fault(Node(None, line, source), "syntax", f"this is not YAML: {problem}")


def dump_yaml(value: Any) -> str:
    """The text of a value that holds no dates and the like; `parse_yaml` has it back."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, width=100, default_flow_style=None,
        allow_unicode=True,
    )  # fmt: skip


def make_node(value: Any, line: int) -> Node:
    """The node of a value that does not come from a text."""
    parts = value.items() if isinstance(value, dict) else ()
    return Node(value, line, children={key: make_node(part, line) for key, part in parts})


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own name and kind


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("beyond the largest float")
    return value + 0.0  # of the two zeros the one without a sign


_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {  # pattern, first letters, value
    "null": ("~|null|Null|NULL|", "~nN", lambda text: None),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": ("[-+]?[0-9]+", "-+0123456789", int),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789", _float),
    "str": (".*", "", str),
}
for _kind, (_pattern, _first, _) in _SCALARS.items():
    # PyYAML looks an empty text up under an empty first letter
    _letters = [*_first, ""] if _kind == "null" else [*_first]
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"({_pattern})\Z"), _letters)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would read as something else; writes everything out."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _node(node: yaml.Node, source: str, count: Iterator[int], line: int = 0) -> Node:
    children: dict[Any, Node] = {}
    value: Any
    here = Node(None, line or node.start_mark.line + 1, source)
    if next(count) > MAX_NODES:  # a few aliases of aliases are enough
        raise Fault(here, "file", f"comes to more than {MAX_NODES:,} values, should be shorter")
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.MappingNode) and kind == "map":
        for key_node, part in node.value:
            key = _node(key_node, source, count)
            if not isinstance(key.value, str):
                raise Fault(key, show(key.value), "is no key, keys should be strings")
            if key.value in children:
                first = children[key.value].line
                raise Fault(key, key.value, f"stands here twice, first in line {first}")
            children[key.value] = _node(part, source, count, key.line)
        value = {key: child.value for key, child in children.items()}
    elif isinstance(node, yaml.SequenceNode) and kind == "seq":
        children = {i: _node(part, source, count) for i, part in enumerate(node.value)}
        value = [child.value for child in children.values()]
    elif isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        try:
            value = _SCALARS[kind][2](node.value)
        except ValueError as error:
            raise Fault(here, show(node.value), f"is no {kind}: {error}") from None
    else:
        raise Fault(here, node.tag, "is a tag without a meaning here, should be left out")
    return replace(here, value=value, children=children)


def show(value: Any) -> str:
    """A value in at most some 40 characters, much as YAML writes it."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else reprlib.repr(value)


def describe(value: Any) -> str:
    """What a value is: `'many' is a string`, `is a list`."""
    kinds = {bool: "a truth value", int: "an integer", float: "a number", str: "a string"}
    if type(value) in kinds:
        return f"{show(value)} is {kinds[type(value)]}"
    if value is None:
        return "is empty"
    return "is a list" if isinstance(value, list) else "is a mapping"


def suggest(word: Any, known: Collection[str]) -> str:
    """How to go on after a word that is not known."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {close[0]!r}?" if close else "should be one of " + ", ".join(known)
