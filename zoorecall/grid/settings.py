"""Settings of a run by path, such as `train.epochs`: which there are, and how they are laid over
one another.

A place whose value is one of several configs (`task`, `model.mixer`) is a choice: a mapping with
a name replaces what was there, and a name alone stands for `{name: ...}`. All other mappings are
merged.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from ..config import RunConfig
from .yaml_nodes import Fault, Node, suggest

Path = tuple[str, ...]


class Setting(NamedTuple):
    """One path and the value it is to have."""

    path: Path
    node: Node


@cache
def types_at(path: Path) -> tuple[Any, ...]:
    """The types a setting may have, one for each config that has it; none if there is no such."""
    if not path:
        return (RunConfig,)
    types: list[Any] = []
    for parent in types_at(path[:-1]):
        fields = (fields_of(config).get(path[-1]) for config in _configs(parent))
        types += [field.annotation for field in fields if field]
        if parent is Any or get_origin(parent) is dict:
            types.append(Any)
    return tuple(types)


def configs_at(path: Path) -> list[type[BaseModel]]:
    """The configs a setting may be, several if it is a choice; none if it is a plain value."""
    return [config for type_ in types_at(path) for config in _configs(type_)]


def configs_in(config: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The configs that a field may be; none if it is a plain value or no field."""
    return _configs(fields_of(config)[name].annotation) if name in fields_of(config) else []


def items_in(config: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The configs that the items of a list may be; none if it is no list of these."""
    field = fields_of(config).get(name)
    return [x for part in get_args(field.annotation) for x in _configs(part)] if field else []


@cache
def fields_of(config: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a config that a grid may set: those of its JSON Schema."""
    fields = config.model_fields.items()
    return {name: field for name, field in fields if SkipJsonSchema() not in field.metadata}


def _configs(type_: Any) -> list[type[BaseModel]]:
    if get_origin(type_) in (list, tuple):
        return []  # its items are no places of their own
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return [type_]
    return [config for part in get_args(type_) for config in _configs(part)]


@cache
def all_paths(under: Path = ()) -> tuple[Path, ...]:
    """Every path there is, a config's own before those of its fields."""
    names = dict.fromkeys(name for config in configs_at(under) for name in fields_of(config))
    return tuple(path for name in names for path in ((*under, name), *all_paths((*under, name))))


def choice_name(config: type[BaseModel]) -> str | None:
    """The name that chooses this config; None if it stands for names of the user's own."""
    annotation = config.model_fields["name"].annotation
    return get_args(annotation)[0] if get_origin(annotation) is Literal else None


def chosen(configs: Sequence[type[BaseModel]], name: Any) -> list[type[BaseModel]]:
    """The config that a name chooses, or else the one that stands for names of the user's own."""
    by_name = [config for config in configs if choice_name(config) == name]
    return by_name or [config for config in configs if choice_name(config) is None]


def parse_path(key: str) -> Path:
    return tuple(key.split("."))


def find_settings(path: Path, node: Node) -> Iterator[Setting]:
    """The settings that a value at a path comes to; raises Fault where a key is unknown."""
    configs = configs_at(path)
    if not types_at(path):
        raise Fault(node, ".".join(path), unknown_path(path))
    if len(configs) > 1 and isinstance(node.value, str):
        node = replace(node, value={"name": node.value}, children={"name": node})
    named = len(configs) > 1 and "name" in node.children
    if named:  # validation reports the other keys that the choice does not have
        for config in chosen(configs, node.children["name"].value):
            for key in node.children.keys() & (config.model_fields.keys() - fields_of(config)):
                where = (*path, key)
                raise Fault(node.children[key], ".".join(where), unknown_key(where, [config]))
    if configs and isinstance(node.value, dict) and not named:
        for key, child in node.children.items():
            yield from find_settings((*path, *parse_path(key)), child)
    else:
        yield Setting(path, node)


def unknown_path(path: Path) -> str:
    """What to say of a path that does not exist."""
    known = next(i for i in range(len(path)) if not types_at(path[: i + 1]))
    return unknown_key(path[: known + 1], configs_at(path[:known]))


def unknown_key(path: Path, configs: Sequence[type[BaseModel]]) -> str:
    """What to say of a path whose last key is in none of the configs."""
    keys = dict.fromkeys(name for config in configs for name in fields_of(config))
    if not keys:
        return f"unknown key, {'.'.join(path[:-1])} is a value without keys"
    others = [other for other in all_paths() if other[-1] == path[-1] and other != path]
    if others:
        return f"unknown key here, did you mean {'.'.join(others[0])!r}?"
    chosen = choice_name(configs[0]) if "name" in keys and len(configs) == 1 else None
    return f"unknown key{f' of {chosen}' if chosen else ''}, {suggest(path[-1], keys)}"


def walk(path: Path, node: Node) -> Iterator[Setting]:
    """A value at a path, and the values inside of it, each before its own parts."""
    yield Setting(path, node)
    if isinstance(node.value, dict):
        for key, child in node.children.items():
            yield from walk((*path, key), child)


def given_twice(groups: Iterable[Iterable[Setting]]) -> Iterator[Fault]:
    """The faults of settings that two groups give, as one of the two would be lost."""
    given: dict[Path, tuple[int, Node]] = {}
    settings = [(i, setting) for i, group in enumerate(groups) for setting in group]
    for i, (path, node) in sorted(settings, key=lambda pair: len(pair[1].path)):
        for end in range(1, len(path) + 1):
            owner, other = given.get(path[:end], (i, node))
            # a mapping may hold other settings than this one, a plain value would be replaced
            if owner != i and (end == len(path) or not isinstance(other.value, dict)):
                yield _twice(".".join(path[:end]), other, node)
        for inner, part in walk(path, node):
            if inner not in given or isinstance(given[inner][1].value, dict):
                given[inner] = i, part


def _twice(key: str, *nodes: Node) -> Fault:
    """The fault of two nodes that give one setting, at the later one; an override is the last."""
    first, last = sorted(nodes, key=lambda node: (node.source != "", node.line))
    where = f"by {first.source}" if first.source else f"on line {first.line}"
    what = f"gives {key}, which is" if last.source else "is"
    return Fault(last, key, f"{what} given {where} too, should be given once")


def lay(data: dict[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """The data with the settings in it, broad paths before narrow ones."""
    for setting in sorted(settings, key=lambda setting: len(setting.path)):
        data = _assign(data, setting.path, setting.node.value)
    return data


def _assign(data: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    head, *rest = path
    if rest:
        below = data.get(head)
        value = _assign(below if isinstance(below, dict) else {}, tuple(rest), value)
    return {**data, head: value}
