"""The axes of a grid: which settings vary, over which values.

An axis that is a range (`ranges`) has its two ends, or its choices, as points.

A *point* is settings that go together, an *axis* a list of points: `train.epochs: [5, 50]` has two
points of one setting each, `size: [{task.seq_len: 64, train.batch_size: 512}, ...]`, under a key
that is no setting, has points of several.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_origin

from .ranges import RANGES, Range, read_range, spaced
from .settings import (
    Path,
    Setting,
    configs_at,
    find_settings,
    given_twice,
    parse_path,
    types_at,
    unknown_path,
)
from .yaml_nodes import Fault, Faults, Node, describe, parse_yaml, show, suggest

MAX_RUNS = 1_000_000
SPACES = ("linspace", "logspace")


class Axis(NamedTuple):
    key: str
    points: list[tuple[Setting, ...]]
    searched: Range | None = None

    @property
    def node(self) -> Node:
        """Of its first value."""
        return self.points[0][0].node


def read_axes(node: Node, faults: Faults) -> list[Axis]:
    """The axes of a mapping, those that are faultless."""
    axes: list[Axis] = []
    for key, child in node.children.items():
        with faults:
            axes.append(_read_axis(key, child))
    faults += _given_by_two(axes)
    return axes


def read_point(path: Path, node: Node) -> tuple[Setting, ...]:
    """The settings that a value at a path comes to, each once."""
    point = tuple(find_settings(path, node))
    for fault in given_twice([setting] for setting in point):
        raise fault
    return point


def _given_by_two(axes: Iterable[Axis]) -> Iterator[Fault]:
    return given_twice(itertools.chain.from_iterable(axis.points) for axis in axes)


def _read_axis(key: str, node: Node) -> Axis:
    path, searched = parse_path(key), None
    if isinstance(node.value, list):
        values = list(node.children.values())
    elif _is_space(path, node):
        searched, values = _read_space(key, node)
    else:
        values = [node]
    if not values:
        raise Fault(node, key, "is an empty list, should have a value")
    if types_at(path):
        return Axis(key, [read_point(path, value) for value in values], searched)
    mappings = isinstance(node.value, list) and all(isinstance(v.value, dict) for v in values)
    if "." in key or not mappings:
        hint = "" if "." in key else " (a key of your own takes a list of mappings)"
        raise Fault(node, key, unknown_path(path) + hint)
    return Axis(key, [read_point((), value) for value in values])


def _is_space(path: Path, node: Node) -> bool:
    """Whether it is a mapping where the setting itself takes none."""
    mapping = configs_at(path) or any(get_origin(type_) is dict for type_ in types_at(path))
    return bool(node.children and types_at(path)) and not mapping


def _read_space(key: str, node: Node) -> tuple[Range | None, list[Node]]:
    """The range that a mapping says, or None, and its values."""
    for name, part in node.children.items():
        if name not in (*SPACES, *RANGES):
            raise Fault(part, key, f"unknown key {name!r} here, {suggest(name, SPACES + RANGES)}")
    kind, part = next(iter(node.children.items()))
    if len(node.children) > 1:
        raise Fault([*node.children.values()][1], key, f"is {kind} already, should be one of them")
    if kind in RANGES:
        return read_range(kind, key, part)
    return None, _read_spaced(kind, f"{key}.{kind}", part)


def _read_spaced(kind: str, key: str, part: Node) -> list[Node]:
    """The values of `{logspace: [first, last, count]}`, to 12 significant digits, so that the same
    rate is the same run in every grid; integers where both ends are and the value is one."""
    if not isinstance(part.value, list) or len(part.value) != 3:
        raise Fault(part, key, "should be one list, [first, last, count]")
    first, last, count = part.value
    for end in (first, last):
        if type(end) not in (int, float) or not abs(end) < 1e300:
            raise Fault(part, key, f"{describe(end)}, should be a number")
        if kind == "logspace" and end <= 0:
            raise Fault(part, key, f"{show(end)} is too small, should be greater than 0")
    if type(count) is not int:
        raise Fault(part, key, f"the count {describe(count)}, should be an integer")
    if not 1 <= count <= MAX_RUNS:
        raise Fault(part, key, f"a count of {show(count)} should be from 1 to {MAX_RUNS:,}")
    values = spaced(first, last, count, log=kind == "logspace")
    if type(first) is type(last) is int:
        values = [int(value) if value.is_integer() else value for value in values]
    return [Node(value, part.line, part.source) for value in values]


def read_override(text: str) -> Setting:
    """The setting of `train.epochs=5`, which is not yet known to have that type."""
    key, equals, value = text.partition("=")
    source = f"--set {text}"
    path = parse_path(key.strip())
    if not equals:
        raise Fault(Node(None, source=source), key, "has no value, should be like train.epochs=5")
    if not types_at(path):
        raise Fault(Node(None, source=source), key, unknown_path(path))
    return Setting(path, parse_yaml(value, source))


def override(
    parts: Sequence[list[Axis]], overrides: Sequence[Setting], faults: Faults
) -> list[list[Axis]]:
    """The axes of each part with the overrides: a list gives the axis of its path other values;
    anything else becomes an axis of one value, and what it sets is removed from other axes."""
    parts, lists, ones = list(parts), [], []
    for path, node in overrides:
        with faults:
            key = ".".join(path)
            many = isinstance(node.value, list) or _is_space(path, node)
            if many and any(axis.key == key for part in parts for axis in part):
                lists.append(new := _read_axis(key, node))
                parts = [[new if axis.key == key else axis for axis in part] for part in parts]
            else:
                ones.append(Axis(node.source, [point := read_point(path, node)]))
                parts = [_without(part, [path for path, _ in point]) for part in parts]
    for axes in [*parts, [*lists, *ones]]:
        faults += _given_by_two(axes)
    return [[*part, *ones] for part in parts]


def _without(axes: Sequence[Axis], paths: Sequence[Path]) -> list[Axis]:
    def keep(setting: Setting) -> bool:
        return not any(setting.path[: len(path)] == path for path in paths)

    kept = [
        axis._replace(points=[tuple(filter(keep, point)) for point in axis.points]) for axis in axes
    ]
    return [axis for axis in kept if any(axis.points)]
