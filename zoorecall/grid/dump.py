"""Runs to a grid file, the way back: a base of what they have in common, and axes of the rest.

The file is a function of which runs there are, whatever grids, presets and overrides they came
from. It expands to them and to no other. Where they are not one product of axes, the other products
stand under `include`; runs of several tasks are products of their own.
"""

import contextlib
import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from .. import columns
from ..config import ModelConfig
from .settings import all_paths
from .yaml_nodes import dump_yaml

Settings = dict[str, str]
"""A run: values as JSON, by dotted path."""

Keys = tuple[str, ...]
Point = tuple[str, ...]
"""The values of the settings that go together."""

Box = tuple[tuple[int, ...], ...]
"""A product of axes: which points of each."""


def dump_grid(configs: Iterable[dict[str, Any]], description: str = "") -> str:
    """The text of the grid file of some resolved configs, each as JSON holds it.

    The source of a user's own mixer is no setting: the grid means its code as it then stands.
    """
    given = list(configs)
    told = [_settings(config) for config in given]
    automatic = [_automatic(json.dumps(config["model"])) for config in given]
    shorter = [settings | auto for settings, auto in zip(told, automatic, strict=True)]
    sections = min(map(_sections, (shorter, told)), key=lambda form: len(form.get("include", ())))
    return dump_yaml(({"description": description} if description else {}) | sections)


def _settings(config: dict[str, Any]) -> Settings:
    """All of a run, but of its mixer what is not at its default."""
    mixer = _without_source(columns.identity(config)["model"]["mixer"])
    sections = config | {"model": config["model"] | {"mixer": mixer}}
    seed = sections.pop(columns.SEED)
    options = {f"{name}.{key}": x for name in sections for key, x in sections[name].items()}
    return {key: _text(x) for key, x in (options | {columns.SEED: seed}).items()}


@functools.cache
def _automatic(model: str) -> Settings:
    """Those of a resolved model, as JSON, that are what `auto`, their default, comes to."""
    resolved = json.loads(model)
    found: Settings = {}
    for key in [key for key, default in columns.defaults()["model"].items() if default == "auto"]:
        with contextlib.suppress(ValidationError):  # a mixer of the user's own, no longer there
            again = ModelConfig.model_validate(resolved | {key: "auto"}).model_dump(mode="json")
            found |= {f"model.{key}": _text("auto")} if again == resolved else {}
    return found


def _without_source(mixer: Mapping[str, Any]) -> Any:
    """A mixer as a grid names it."""
    options = {key: value for key, value in mixer.items() if key != "source"}
    if isinstance(options.get("mixers"), list):
        options["mixers"] = [_without_source(one) for one in options["mixers"]]
    return options["name"] if len(options) == 1 else options


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _value(text: str) -> Any:
    """What `_text` wrote, a name before the options that go with it."""
    return json.loads(text, object_hook=lambda x: {"name": x["name"], **x} if "name" in x else x)


def _sections(runs: Sequence[Settings]) -> dict[str, Any]:
    """The sections of the grid of these runs."""
    common = dict(set.intersection(*(set(run.items()) for run in runs)))
    by_task: dict[str, list[Settings]] = defaultdict(list)
    for run in runs:
        by_task[run[columns.TASK]].append({key: run[key] for key in run if key not in common})
    parts = [part for task in sorted(by_task) for part in _products(by_task[task])]
    base: dict[str, Any] = {}
    for key in sorted(common, key=_place):
        section, _, name = key.partition(".")
        value = _value(common[key])
        if value is None and columns.defaults()[section].get(name, key) is None:
            continue  # off, as by default
        base |= {section: {**base.get(section, {}), name: value} if name else value}
    sections = {"base": base, "axes": parts[0], "include": parts[1:]}
    return {name: section for name, section in sections.items() if section}


def _products(runs: Sequence[Settings]) -> list[dict[str, Any]]:
    """Runs of one task, which have the same settings, as products of axes."""
    table = {key: [run[key] for run in runs] for key in sorted(runs[0], key=_place)}
    axes = _axes(table)
    rows = [list(zip(*(table[key] for key in axis), strict=True)) for axis in axes]
    points = [sorted(set(row), key=lambda point: [*map(_rank, point)]) for row in rows]
    indices = [{point: i for i, point in enumerate(every)} for every in points]
    places = [[index[x] for x in row] for index, row in zip(indices, rows, strict=True)]
    products: list[dict[str, Any]] = []
    for box in _boxes(set(zip(*places, strict=True)) if axes else {()}):
        products.append({})
        for axis, every, some in zip(axes, points, box, strict=True):
            products[-1] |= _axis(axis, [every[i] for i in some])
    return products


def _axes(table: Mapping[str, Sequence[str]]) -> list[Keys]:
    """Which settings move together: what an option of the task decides goes with it."""
    distinct = {key: len(set(values)) for key, values in table.items()}

    def decides(one: str, other: str) -> bool:
        pairs = set(zip(table[one], table[other], strict=True))
        return 1 < distinct[other] <= distinct[one] == len(pairs)

    groups: dict[str, list[str]] = defaultdict(list)
    for key in table:
        deciders = [one for one in table if one.startswith("task.") and decides(one, key)]
        groups[max(deciders, key=distinct.__getitem__, default=key)].append(key)
    return [tuple(keys) for keys in groups.values()]


def _boxes(points: Iterable[tuple[int, ...]]) -> list[Box]:
    """Points as a few products: those that differ in one axis only are joined, as long as any do,
    each time along the axis that leaves the fewest."""
    boxes: set[Box] = {tuple((place,) for place in point) for point in points}
    while True:
        ways = [_joined(boxes, axis) for axis in range(len(next(iter(boxes))))]
        fewest = min(ways, key=len, default=boxes)
        if len(fewest) == len(boxes):
            return sorted(boxes)
        boxes = fewest


def _joined(boxes: Iterable[Box], axis: int) -> set[Box]:
    places: dict[tuple[Box, Box], list[int]] = defaultdict(list)
    for box in boxes:
        places[box[:axis], box[axis + 1 :]] += box[axis]
    return {(*before, tuple(sorted(some)), *after) for (before, after), some in places.items()}


def _axis(keys: Keys, points: Sequence[Point]) -> dict[str, Any]:
    """An axis as a grid has it; where it has one point, each of its settings by itself."""
    values = [[_value(text) for text in point] for point in points]
    if len(points) == 1:
        single = zip(keys, values[0], strict=True)
        return {key: [one] if isinstance(one, list) else one for key, one in single}
    if len(keys) == 1:
        return {keys[0]: [one for (one,) in values]}
    name = " and ".join(key.rpartition(".")[2] for key in keys)
    return {name: [dict(zip(keys, point, strict=True)) for point in values]}


@functools.cache
def _places() -> dict[str, int]:
    return {".".join(path): place for place, path in enumerate(all_paths())}


def _place(key: str) -> tuple[bool, bool, int]:
    """The seed is the slowest axis and the learning rate the fastest, as in the papers' grids."""
    return key != columns.SEED, key == columns.RATE, _places()[key]


def _rank(text: str) -> tuple[bool, float, str]:
    """Numbers by size, other values by their text."""
    value = json.loads(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return not number, value if number else 0, text
