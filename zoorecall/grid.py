"""A grid file: YAML to validated runs, or to one line that says what is wrong with it and where.

The runs are the product of the axes, laid over the base, which lies over the preset, which lies
over the defaults. A *point* is settings that go together; an *axis* is a list of points.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pydantic import ValidationError

from .config import PRESETS, RunConfig
from .errors import GridError
from .faults import explain, explain_alone
from .settings import Path as SettingPath
from .settings import Setting, configs_at, find_settings, lay, types_at, unknown_path
from .yaml_nodes import Fault, Node, describe, make_node, parse_yaml, read_yaml, show, suggest

MAX_RUNS = 1_000_000

SECTIONS: dict[str, tuple[type, str, str]] = {
    "description": (str, "a string", "One sentence: what the grid is for."),
    "preset": (str, "a string", "The settings of a paper, laid under the base."),
    "base": (dict, "a mapping", "Settings of every run."),
    "axes": (dict, "a mapping", "Their product makes the runs; the first is the slowest."),
    "exclude": (list, "a list", "Drops the runs of the axes that match all of an entry."),
    "include": (list, "a list", "Adds the runs of each entry: axes of its own on the base."),
}

SPACES = ("linspace", "logspace")

Point = tuple[Setting, ...]


class Axis(NamedTuple):
    key: str
    points: list[Point]


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file, each once, in the order of the axes."""

    name: str
    path: Path
    description: str
    runs: tuple[RunConfig, ...]


def load_grid(path: str | Path, overrides: Sequence[str] = ()) -> Grid:
    """Read a grid file and expand it.

    An override, `train.epochs=5`, gives a setting one value in every run, whatever the base and
    the axes say; a list, for a setting that is an axis, gives that axis other values. Raises
    GridError, one line `path:line: key: what is wrong, what would be right`, for the first fault.
    """
    try:
        root = read_yaml(Path(path))
        if not isinstance(root.value, dict):
            raise Fault(root, "file", f"{describe(root.value)}, should be a mapping with axes")
        runs = _expand(root, [_parse_override(text) for text in overrides])
    except Fault as fault:
        raise GridError(f"{path}:{fault}") from None
    return Grid(Path(path).stem, Path(path), root.value.get("description", ""), tuple(runs))


@dataclass(frozen=True)
class _Plan:
    """A file, read: layers of settings (preset, base), and the axes that are laid over them."""

    layers: list[list[Setting]]
    axes: list[Axis]
    exclude: list[tuple[Node, list[Axis]]]
    include: list[list[Axis]]


class _Faults(list[Fault]):
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
        """Raise the one that stands first in the file."""
        if self:
            raise min(self, key=lambda fault: fault.line)


def _expand(root: Node, overrides: Sequence[Setting]) -> list[RunConfig]:
    faults = _Faults()
    plan = _read_plan(root, faults)
    axes, *include = (_override(axes, plan.axes, overrides, faults) for axes in (plan.axes, *plan.include))
    count = sum(math.prod(len(axis.points) for axis in part) for part in (axes, *include))
    if count > MAX_RUNS:
        text = f"{count:,} runs are too many, should be at most {MAX_RUNS:,}"
        faults.append(Fault(root.children.get("axes", root), "axes", text))
        faults.raise_first()

    default = RunConfig()
    base: dict[str, Any] = {"task": {"name": default.task.name}}
    base["model"] = {"mixer": {"name": default.model.mixer.name}}
    for layer in plan.layers:
        base = lay(base, layer)

    # each point by itself, so that faults show in the order of the file, not of the runs
    parts = [axes, *(entry for _, entry in plan.exclude), *include]
    points = (point for part in parts for axis in part for point in axis.points)
    for point in itertools.chain(plan.layers, points):
        _, error = _validate(lay(base, point))
        faults += explain_alone(error, point) if error else []
    faults.raise_first()

    runs: dict[str, RunConfig] = {}
    matched: set[int] = set()
    for part in (axes, *include):
        for combination in itertools.product(*(axis.points for axis in part)):
            settings = [setting for point in combination for setting in point]
            data = lay(base, settings)
            run, error = _validate(data)
            if part is axes:
                entries = [i for i, (_, e) in enumerate(plan.exclude) if _matches(e, data, run)]
                if entries:
                    matched.update(entries)
                    continue
            if run:
                runs.setdefault(run.run_id, run)
            elif error:
                faults += explain(error, [*plan.layers, settings])
    faults.raise_first()
    for i, (node, _) in enumerate(plan.exclude):
        # an override may well take away what an entry is for
        if i not in matched and not overrides:
            raise Fault(node, "exclude", "no run of the axes matches this, should match one")
    if not runs:
        raise Fault(root.children["exclude"], "exclude", "drops every run, should leave one")
    return list(runs.values())


def _validate(data: dict[str, Any]) -> tuple[RunConfig | None, ValidationError | None]:
    try:
        return RunConfig.model_validate(data), None
    except ValidationError as error:
        return None, error


def _matches(entry: Sequence[Axis], data: dict[str, Any], run: RunConfig | None) -> bool:
    """Whether a run has, of each setting of an entry, a value: the run stays the same with it."""
    return all(any(_has(data, run, point) for point in axis.points) for axis in entry)


def _has(data: dict[str, Any], run: RunConfig | None, point: Point) -> bool:
    changed = lay(data, point)
    if changed == data or run is None:  # a run that is no valid config has but what it was given
        return changed == data
    same, _ = _validate(changed)
    return same is not None and same.run_id == run.run_id


def _read_plan(root: Node, faults: _Faults) -> _Plan:
    nodes: dict[str, Node] = {}
    for key, node in root.children.items():
        with faults:
            if key not in SECTIONS:
                raise Fault(node, key, f"unknown key, {suggest(key, SECTIONS)}")
            kind, words, _ = SECTIONS[key]
            if not isinstance(node.value, kind):
                raise Fault(node, key, f"{describe(node.value)}, should be {words}")
            nodes[key] = node
    preset: list[Setting] = []
    base: list[Setting] = []
    with faults:
        if node := nodes.get("preset"):
            preset += find_settings((), _preset(node))
    with faults:
        if node := nodes.get("base"):
            base += find_settings((), node)
    axes = _read_axes(nodes["axes"], faults) if "axes" in nodes else []
    exclude, include = (_read_entries(key, nodes.get(key), faults) for key in ("exclude", "include"))
    return _Plan([preset, base], axes, exclude, [part for _, part in include])


def _preset(node: Node) -> Node:
    if node.value not in PRESETS:
        text = f"there is no preset {node.value!r}, {suggest(node.value, PRESETS)}"
        raise Fault(node, "preset", text)
    return make_node(PRESETS[node.value], node.line)


def _read_entries(
    key: str, section: Node | None, faults: _Faults
) -> list[tuple[Node, list[Axis]]]:
    entries = []
    for node in section.children.values() if section else ():
        with faults:
            if not isinstance(node.value, dict):
                raise Fault(node, key, f"{describe(node.value)}, should be a mapping of settings")
            entries.append((node, _read_axes(node, faults)))
    return entries


def _read_axes(node: Node, faults: _Faults) -> list[Axis]:
    axes: list[Axis] = []
    owners: dict[SettingPath, str] = {}
    for key, child in node.children.items():
        with faults:
            axis = Axis(key, _read_points(key, child))
            for setting in itertools.chain.from_iterable(axis.points):
                if owners.setdefault(setting.path, key) != key:
                    text = f"should be set by one axis, {owners[setting.path]} sets it too"
                    raise Fault(setting.node, ".".join(setting.path), text)
            axes.append(axis)
    return axes


def _read_points(key: str, node: Node) -> list[Point]:
    """The points of `train.epochs: [5, 50]` or, under a key of the user's own, of
    `size: [{task.seq_len: 64, train.batch_size: 512}, ...]`."""
    path = tuple(key.split("."))
    values = _read_values(key, node)
    if not values:
        raise Fault(node, key, "is an empty list, should have a value")
    if types_at(path):
        return [tuple(find_settings(path, value)) for value in values]
    if "." in key or not all(isinstance(value.value, dict) for value in values):
        text = "; a key of your own takes a list of mappings, {setting: value, ...}"
        raise Fault(node, key, unknown_path(path) + ("" if "." in key else text))
    return [tuple(find_settings((), value)) for value in values]


def _read_values(key: str, node: Node) -> list[Node]:
    if isinstance(node.value, list):
        return list(node.children.values())
    if not isinstance(node.value, dict) or configs_at(parse_path(key)):
        return [node]
    [*kinds] = node.value
    ...


def _read_space(node: Node) -> list[Node]:
    """The values of `{logspace: [first, last, count]}`, to 12 significant digits, so that the same
    rate is the same run in every grid; integers where both ends are and the value is one."""
    (kind, part), = node.children.items()
    first, last, count = part.value
    ...
