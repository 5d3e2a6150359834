"""What pydantic finds wrong with a run, as one sentence at the line of the grid that set it."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .settings import (
    Path,
    Setting,
    choice_name,
    chosen,
    configs_at,
    configs_in,
    items_in,
    unknown_key,
    walk,
)
from .yaml_nodes import Fault, Node, describe, show, suggest

Layers = Sequence[Sequence[Setting]]
"""Settings that a run is made of, each layer laid over those before it."""

SHOULD = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "tuple": "a list",
    "list": "a list",
    "model": "a mapping",
    "dict": "a mapping",
}
BOUNDS = {
    "greater_than": ("small", "greater than", "gt"),
    "greater_than_equal": ("small", "at least", "ge"),
    "less_than": ("large", "less than", "lt"),
    "less_than_equal": ("large", "at most", "le"),
}


def explain(error: ValidationError, layers: Layers) -> list[Fault]:
    """The faults of a run."""
    nodes = _laid_nodes(layers)
    return [_fault(detail, nodes) for detail in _details(error)]


def explain_alone(error: ValidationError, settings: Sequence[Setting]) -> list[Fault]:
    """The faults that settings have whatever they are laid over and whatever is laid over them."""
    nodes = _laid_nodes([settings])
    own = []
    for detail in _details(error):
        path, _ = _place(detail["loc"])
        together = detail["type"] == "value_error"
        # another choice may well have a key that is set by itself
        elsewhere = detail["type"] == "extra_forbidden" and path in [top for top, _ in settings]
        if _holder(path, nodes) and not together and not elsewhere:
            own.append(_fault(detail, nodes))
    return own


def in_words(error: ValidationError) -> str:
    """The first fault of a run that no file set: its key, and what is wrong."""
    path, text = _found(_details(error)[0], {})
    return f"{'.'.join(path)}: {text}"


def _details(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, but for lists that are too short only as one of their items is wrong."""
    found = error.errors(include_url=False)

    def has_wrong_item(loc: tuple[int | str, ...]) -> bool:
        return any(len(d["loc"]) > len(loc) and d["loc"][: len(loc)] == loc for d in found)

    return [d for d in found if d["type"] != "too_short" or not has_wrong_item(d["loc"])]


def _laid_nodes(layers: Layers) -> dict[Path, tuple[int, Node]]:
    """By path, the node that gave a run its value there, and the layer which that was in."""
    nodes: dict[Path, tuple[int, Node]] = {}
    for rank, settings in enumerate(layers):
        for top, node in sorted(settings, key=lambda setting: len(setting.path)):
            for hidden in [path for path in nodes if path[: len(top)] == top]:
                del nodes[hidden]
            nodes |= {path: (rank, part) for path, part in walk(top, node)}
    return nodes


def _fault(detail: ErrorDetails, nodes: dict[Path, tuple[int, Node]]) -> Fault:
    path, text = _found(detail, nodes)
    return Fault(_holder(path, nodes) or Node(None), ".".join(path) or "base", text)


def _found(detail: ErrorDetails, nodes: dict[Path, tuple[int, Node]]) -> tuple[Path, str]:
    """Where a run is wrong, and what is."""
    path, owners = _place(detail["loc"])
    if detail["type"] == "value_error":
        text = str(detail["ctx"]["error"])
        path = _culprit(path, text, nodes)
    else:
        text = _sentence(detail, path, owners)
    if path[-1:] == ("name",):  # also where a name alone stands for the choice
        path = path[:-1]
    return path, text


def _holder(path: Path, nodes: dict[Path, tuple[int, Node]]) -> Node | None:
    """The node of a path, of a choice that of its name, or else the nearest around it."""
    holders = [(*path, "name"), *(path[:i] for i in range(len(path), 0, -1))]
    return next((nodes[holder][1] for holder in holders if holder in nodes), None)


def _place(loc: Sequence[str | int]) -> tuple[Path, list[type[BaseModel]]]:
    """The path that pydantic's location comes to, and the configs in which its last key is one.

    After a choice a location also has the name of what was chosen, after a list indices.
    """
    path: Path = ()
    configs, owners = configs_at(()), []
    for part in loc:
        if isinstance(part, int):
            continue  # a place in a list
        if len(configs) > 1:
            configs = chosen(configs, part)
        elif configs:
            path, owners = (*path, str(part)), configs
            configs = configs_in(configs[0], path[-1]) or items_in(configs[0], path[-1])
    return path, owners


def _culprit(path: Path, text: str, nodes: dict[Path, tuple[int, Node]]) -> Path:
    """Which setting under a path a sentence is about: the first that it names, of the last layer
    that has one (an override, else an axis, else the base), as the grid varies things there."""
    under = [other for other in nodes if other[: len(path)] == path]
    named = []
    for other in under:
        layer, node = nodes[other]
        word = node.value if other[-1] == "name" else other[-1]
        found = re.search(rf"(?<![\w.]){re.escape(str(word))}(?![\w.])", text)
        if found:
            named.append(((not node.source, -layer, found.start()), other))
    if named:
        return min(named)[1]
    return under[-1] if under else path


def _sentence(detail: ErrorDetails, path: Path, owners: Sequence[type[BaseModel]]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(path, owners)
    if kind.startswith("union_tag") or kind == "model_attributes_type":
        return _unknown_choice(path, value)
    if kind == "string_pattern_mismatch" and path[-1] == "name":
        return _unknown_choice(path[:-1], {"name": value})
    if kind == "literal_error":
        return f"{show(value)} is not one of its values, should be {context['expected']}"
    if kind in BOUNDS:
        what, bound, key = BOUNDS[kind]
        return f"{show(value)} is too {what}, should be {bound} {context[key]:.12g}"
    if kind == "too_long":
        return f"has {context['actual_length']} items, should have {context['max_length']}"
    if kind == "too_short":
        return f"has {context['actual_length']} of at least {context['min_length']} items"
    if kind == "missing":
        return "has too few items" if isinstance(value, list) else "is missing"
    wanted = SHOULD.get(kind.partition("_")[0])
    return f"{describe(value)}, should be {wanted}" if wanted else f"{show(value)}: {detail['msg']}"


def _unknown_choice(path: Path, value: Any) -> str:
    configs = configs_at(path)
    if not configs:  # one of a list
        parents = configs_at(path[:-1])
        configs = [item for parent in parents for item in items_in(parent, path[-1])]
        path = (*path[:-1], path[-1].removesuffix("s"))
    names = [choice_name(config) or "package.module:Class" for config in configs]
    name = value.get("name", value) if isinstance(value, dict) else value
    if isinstance(name, str):
        hint = suggest(name, names)
        known = f" (there are {', '.join(names)})" if hint.startswith("did") else ""
        return f"there is no {path[-1]} {name!r}, {hint}{known}"
    return f"{describe(name)}, should be the name of a {path[-1]}: one of {', '.join(names)}"
