"""A grid file: YAML to validated runs, or to one line that says what is wrong with it and where.

The runs are the product of the axes, laid over the base, which lies over the preset, which lies
over the defaults.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..columns import PARTS
from ..config import PRESETS, RunConfig
from ..errors import GridError
from ..user_code import source_of
from .axes import MAX_RUNS, Axis, override, read_axes, read_override, read_point
from .faults import explain, explain_alone
from .schema import SECTIONS
from .settings import Setting, find_settings, lay, parse_path, types_at
from .yaml_nodes import Fault, Faults, Node, describe, make_node, read_yaml, suggest

KINDS: dict[type, str] = {str: "a string", dict: "a mapping", list: "a list"}


@dataclass(frozen=True)
class Grid:
    """Runs to train: those of a grid file, each once, in the order of its axes, or any others.

    >>> runs = [RunConfig.model_validate({"seed": seed}) for seed in range(3)]
    >>> sweep(Grid("seeds", tuple(runs)))  # into results/seeds
    """

    name: str
    """Of its results folder, where no other is given."""
    runs: tuple[RunConfig, ...]
    description: str = ""


def load_grid(path: str | Path, overrides: Sequence[str] = ()) -> Grid:
    """Read a grid file and expand it.

    An override, `train.epochs=5`, gives a setting one value in every run, whatever the base and
    the axes say; a list, for a setting that is an axis, gives that axis other values. The order of
    the overrides does not matter, as no two may give one setting. Raises GridError, one line
    `path:line: key: what is wrong, what would be right`, for the first fault.
    """
    source_of.cache_clear()  # a user's code may have been edited since
    try:
        root = read_yaml(Path(path))
        if not isinstance(root.value, dict):
            raise Fault(root, "file", f"{describe(root.value)}, should be a mapping with axes")
        runs = _expand(root, [read_override(text) for text in overrides])
    except Fault as fault:
        raise GridError(f"{path}:{fault}") from None
    return Grid(Path(path).stem, tuple(runs), root.value.get("description", ""))


@dataclass(frozen=True)
class _Plan:
    """A grid file, read: settings of every run, in layers, and the axes that are laid over them."""

    layers: list[list[Setting]]  # the preset, the base
    parts: list[list[Axis]]  # the axes, then those of each include entry
    exclude: list[list[Axis]]
    valid: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Sections by name and what was given."""
    stays: dict[tuple[int, str], bool] = field(default_factory=dict)
    """Whether sections, as they were given, stay the same with a point of an exclude entry."""

    @functools.cached_property
    def base(self) -> dict[str, Any]:
        default = RunConfig().model_dump()
        mixer = {"name": default["model"]["mixer"]["name"]}
        task = {"name": default["task"]["name"]}
        base = {"task": task, "model": {"mixer": mixer}, "train": {}}
        return functools.reduce(lay, self.layers, base)

    def validate(self, data: dict[str, Any]) -> tuple[RunConfig | None, ValidationError | None]:
        """The run of this data, or what is wrong with it. Sections that many runs share are
        validated once."""
        keys = {name: (name, repr(data[name])) for name in PARTS}
        known = {name: self.valid[key] for name, key in keys.items() if key in self.valid}
        try:
            run = RunConfig.model_validate({**data, **known})
        except ValidationError as error:
            return None, error
        self.valid.update((key, getattr(run, name)) for name, key in keys.items())
        return run, None


def _expand(root: Node, overrides: Sequence[Setting]) -> list[RunConfig]:
    faults = Faults()
    sections = _read_sections(root, faults)
    plan = _read_plan(sections, overrides, faults)
    count = sum(math.prod(len(axis.points) for axis in part) for part in plan.parts)
    if count > MAX_RUNS:
        text = f"{count:,} runs are too many, should be at most {MAX_RUNS:,}"
        faults.append(Fault(sections["axes"], "axes", text))
        faults.raise_first()
    faults += _faults_of_points(plan)
    faults.raise_first()
    runs, unmatched = _find_runs(plan, faults)
    faults.raise_first()
    # with overrides an entry may have nothing left to drop
    for i in [] if overrides else sorted(unmatched):
        entry = sections["exclude"].children[i]
        raise Fault(entry, "exclude", "no run of the axes matches, should match one at least")
    if not runs:
        raise Fault(sections["exclude"], "exclude", "drops every run, should leave one at least")
    return runs


def _faults_of_points(plan: _Plan) -> Iterator[Fault]:
    """What is wrong with each point by itself. It is found before any run is made: a fault that
    stands first in the file may show in the last run only."""
    axes = itertools.chain.from_iterable([*plan.parts, *plan.exclude])
    for point in itertools.chain(plan.layers, *(axis.points for axis in axes)):
        _, error = plan.validate(lay(plan.base, point))
        yield from explain_alone(error, point) if error else ()


def _find_runs(plan: _Plan, faults: Faults) -> tuple[list[RunConfig], set[int]]:
    """The runs, each once, and which exclude entries match none."""
    runs: dict[str, RunConfig] = {}
    unmatched = set(range(len(plan.exclude)))
    for part in plan.parts:
        for points in itertools.product(*(axis.points for axis in part)):
            settings = list(itertools.chain(*points))
            data = lay(plan.base, settings)
            run, error = plan.validate(data)
            if part is plan.parts[0]:
                entries = enumerate(plan.exclude)
                matching = {i for i, entry in entries if _matches(plan, entry, data, run)}
                unmatched -= matching
                if matching:
                    continue
            if run:
                runs.setdefault(run.run_id, run)
            elif error:
                faults += explain(error, [*plan.layers, settings])
    return list(runs.values()), unmatched


def _read_sections(root: Node, faults: Faults) -> dict[str, Node]:
    """Every section, also those that the file leaves out."""
    sections = {key: Node(kind()) for key, (kind, _) in SECTIONS.items()}
    for key, node in root.children.items():
        with faults:
            if types_at(parse_path(key)):
                raise Fault(node, key, "is a setting, should be in base or in axes")
            if key not in SECTIONS:
                raise Fault(node, key, f"unknown key, {suggest(key, SECTIONS)}")
            kind, _ = SECTIONS[key]
            if not isinstance(node.value, kind):
                raise Fault(node, key, f"{describe(node.value)}, should be {KINDS[kind]}")
            sections[key] = node
    return sections


def _read_plan(sections: dict[str, Node], overrides: Sequence[Setting], faults: Faults) -> _Plan:
    layers: list[list[Setting]] = [[], []]
    with faults:
        layers[0] += find_settings((), _preset(sections["preset"]))
    with faults:
        layers[1] += read_point((), sections["base"])
    parts = [read_axes(sections["axes"], faults), *_read_entries("include", sections, faults)]
    exclude = _read_entries("exclude", sections, faults)
    return _Plan(layers, override(parts, overrides, faults), exclude)


def _read_entries(key: str, sections: dict[str, Node], faults: Faults) -> list[list[Axis]]:
    entries = []
    for node in sections[key].children.values():
        with faults:
            if not isinstance(node.value, dict):
                raise Fault(node, key, f"{describe(node.value)}, should be a mapping of settings")
            entries.append(read_axes(node, faults))
    return entries


def _preset(node: Node) -> Node:
    if node.value and node.value not in PRESETS:
        text = f"there is no preset {node.value!r}, {suggest(node.value, PRESETS)}"
        raise Fault(node, "preset", text)
    return make_node(PRESETS.get(node.value, {}), node.line)


def _matches(
    plan: _Plan, entry: Sequence[Axis], data: dict[str, Any], run: RunConfig | None
) -> bool:
    """Whether a run has a value of each setting of an entry, that is, stays the same with it."""
    return all(any(_stays(plan, point, data, run) for point in axis.points) for axis in entry)


def _stays(
    plan: _Plan, point: Sequence[Setting], data: dict[str, Any], run: RunConfig | None
) -> bool:
    if run is None:  # a run that is not valid has only what it was given
        return lay(data, point) == data
    touched = {name: data.get(name) for name in sorted({setting.path[0] for setting in point})}
    key = (id(point), repr(touched))
    if key not in plan.stays:
        same, _ = plan.validate(lay(data, point))
        plan.stays[key] = same is not None and same.run_id == run.run_id
    return plan.stays[key]
