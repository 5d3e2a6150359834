"""Ranges: settings that `zoorecall tune` searches, where a sweep has a list of values.

`train.learning_rate: {log: [1e-5, 1e-1]}`, `model.d_model: {int: [16, 64]}`,
`train.weight_decay: {float: [0, 0.2]}`, `train.schedule: {choices: [cosine, linear]}`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from .yaml_nodes import Fault, Node, describe, show

Kind = Literal["log", "float", "int", "choices"]
RANGES: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Range:
    """What is searched: between two ends, of `log` evenly in the logarithm, or among choices."""

    kind: Kind
    values: tuple[Any, ...]


def spaced(first: float, last: float, count: int, log: bool) -> list[float]:
    """So many numbers from the first to the last, to 12 significant digits."""
    to, back = (math.log10, lambda x: 10.0**x) if log else (float, float)
    step = (to(last) - to(first)) / max(1, count - 1)
    return [float(f"{back(to(first) + i * step):.12g}") + 0.0 for i in range(count)]


def read_range(kind: Kind, key: str, node: Node) -> tuple[Range, list[Node]]:
    """The range of `{log: [low, high]}`, and a node for each of its values; raises Fault."""
    key = f"{key}.{kind}"
    values = [*node.children.values()] if isinstance(node.value, list) else []
    if kind == "choices":
        texts = {repr(part.value) for part in values}
        if len(texts) < 2 or len(texts) < len(values):
            raise Fault(node, key, "should be a list of two different values or more")
    else:
        values = _ends(kind, key, node, values)
    return Range(kind, tuple(part.value for part in values)), values


def _ends(kind: Kind, key: str, node: Node, parts: list[Node]) -> list[Node]:
    if len(parts) != 2:
        raise Fault(node, key, "should be a list of two ends, [low, high]")
    for end in (part.value for part in parts):
        if kind == "int" and type(end) is not int:
            raise Fault(node, key, f"{describe(end)}, should be an integer")
        if type(end) not in (int, float) or not abs(end) < 1e300:
            raise Fault(node, key, f"{describe(end)}, should be a number")
        if kind == "log" and end <= 0:
            raise Fault(node, key, f"{show(end)} is too small, should be greater than 0")
    low, high = parts
    if not low.value < high.value:
        text = f"{show(low.value)} is not below {show(high.value)}, should be [low, high]"
        raise Fault(node, key, text)
    # a whole number is no setting between two numbers, which pydantic then says
    return parts if kind == "int" else [replace(part, value=float(part.value)) for part in parts]
