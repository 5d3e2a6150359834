"""A grid file, read: its sections, and settings as layers and axes.

The runs are the product of the axes, laid over the base, which lies over the preset, which lies
over the defaults.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..columns import PARTS
from ..config import PRESETS, RunConfig
from ..errors import GridError
from ..user_code import source_of
from .axes import MAX_RUNS, Axis, override, read_axes, read_point
from .faults import explain, explain_alone
from .schema import SECTIONS
from .settings import Setting, find_settings, lay, parse_path, types_at
from .yaml_nodes import Fault, Faults, Node, describe, make_node, read_yaml, suggest

KINDS: dict[type, str] = {str: "a string", dict: "a mapping", list: "a list"}


@contextlib.contextmanager
def faults_of(path: str | Path) -> Iterator[None]:
    """Names the file of a fault."""
    try:
        yield
    except Fault as fault:
        raise GridError(f"{path}:{fault}") from None


def read_root(path: str | Path) -> Node:
    source_of.cache_clear()  # a user's code may have been edited since
    root = read_yaml(Path(path))
    if not isinstance(root.value, dict):
        raise Fault(root, "file", f"{describe(root.value)}, should be a mapping with axes")
    return root


@dataclass(frozen=True)
class Plan:
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


def _check_points(sections: Mapping[str, Node], plan: Plan, faults: Faults) -> None:
    """Raise what is wrong before any run is made."""
    count = sum(math.prod(len(axis.points) for axis in part) for part in plan.parts)
    if count > MAX_RUNS:
        text = f"{count:,} runs are too many, should be at most {MAX_RUNS:,}"
        faults.append(Fault(sections["axes"], "axes", text))
        faults.raise_first()
    faults += _faults_of_points(plan)
    faults.raise_first()


def _faults_of_points(plan: Plan) -> Iterator[Fault]:
    """What is wrong with each point by itself. It is found before any run is made: a fault that
    stands first in the file may show in the last run only."""
    axes = itertools.chain.from_iterable([*plan.parts, *plan.exclude])
    for point in itertools.chain(plan.layers, *(axis.points for axis in axes)):
        _, error = plan.validate(lay(plan.base, point))
        yield from explain_alone(error, point) if error else ()


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


def read_plan(
    root: Node, overrides: Sequence[Setting], faults: Faults
) -> tuple[dict[str, Node], Plan]:
    sections = _read_sections(root, faults)
    layers: list[list[Setting]] = [[], []]
    with faults:
        layers[0] += find_settings((), _preset(sections["preset"]))
    with faults:
        layers[1] += read_point((), sections["base"])
    parts = [read_axes(sections["axes"], faults), *_read_entries("include", sections, faults)]
    exclude = _read_entries("exclude", sections, faults)
    return sections, Plan(layers, override(parts, overrides, faults), exclude)


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


class Found(NamedTuple):
    """A run, and the points of a part's axes that it comes from."""

    part: list[Axis]
    points: tuple[tuple[Setting, ...], ...]
    run: RunConfig


def find_runs(
    sections: Mapping[str, Node], plan: Plan, overridden: bool, faults: Faults
) -> list[Found]:
    """The runs of the axes, but for those that exclude drops, and of the include entries. Raises
    Fault where one is no run, and where an entry drops none or all drop every run."""
    _check_points(sections, plan, faults)
    found, unmatched = list[Found](), set(range(len(plan.exclude)))
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
                found.append(Found(part, points, run))
            elif error:
                faults += explain(error, [*plan.layers, settings])
    faults.raise_first()
    # with overrides an entry may have nothing left to drop
    for i in [] if overridden else sorted(unmatched):
        entry = sections["exclude"].children[i]
        raise Fault(entry, "exclude", "no run of the axes matches, should match one at least")
    if not found:
        raise Fault(sections["exclude"], "exclude", "drops every run, should leave one at least")
    return found


def _matches(
    plan: Plan, entry: Sequence[Axis], data: dict[str, Any], run: RunConfig | None
) -> bool:
    """Whether a run has a value of each setting of an entry, that is, stays the same with it."""
    return all(any(_stays(plan, point, data, run) for point in axis.points) for axis in entry)


def _stays(
    plan: Plan, point: Sequence[Setting], data: dict[str, Any], run: RunConfig | None
) -> bool:
    if run is None:  # a run that is not valid has only what it was given
        return lay(data, point) == data
    touched = {name: data.get(name) for name in sorted({setting.path[0] for setting in point})}
    key = (id(point), repr(touched))
    if key not in plan.stays:
        same, _ = plan.validate(lay(data, point))
        plan.stays[key] = same is not None and same.run_id == run.run_id
    return plan.stays[key]
