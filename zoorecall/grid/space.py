"""A grid file with ranges: the settings whose ranges are searched, each by itself."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import columns
from ..config import RunConfig
from .axes import Axis, read_override
from .faults import in_words
from .plan import Found, Plan, faults_of, find_runs, read_plan, read_root
from .ranges import Range
from .settings import Setting, lay, parse_path
from .yaml_nodes import Fault, Faults, Node


@dataclass(frozen=True)
class Space:
    """What a grid file with ranges asks for: in each of its settings, a search."""

    name: str
    settings: tuple["Searched", ...]
    description: str = ""


@dataclass(frozen=True)
class Searched:
    """One setting of a grid, all but its seeds and what is searched, by path."""

    ranges: Mapping[str, Range]
    seeds: tuple[int, ...]
    ends: tuple[RunConfig, ...] = field(repr=False)
    """The runs at the ends of each range and with each of its choices, with the first seed."""
    plan: Plan = field(repr=False)
    settings: tuple[Setting, ...] = field(repr=False)

    @property
    def first(self) -> RunConfig:
        """The run at the first end of each range, with the first seed."""
        return self.ends[0]

    @property
    def code(self) -> str:
        """A hash, equal where settings and ranges are, whatever the seeds."""
        configs = [run.model_dump(mode="json") for run in self.ends]
        runs = [columns.run_id({**config, columns.SEED: 0}) for config in configs]
        ranges = {path: [x.kind, *x.values] for path, x in self.ranges.items()}
        return columns.digest({"runs": runs, "ranges": ranges})

    def run(self, values: Mapping[str, Any], seed: int) -> RunConfig:
        """The run with these values of what is searched; raises ValueError where they cannot go
        together."""
        found = {**values, columns.SEED: seed}
        given = [Setting(parse_path(path), Node(value)) for path, value in found.items()]
        run, error = self.plan.validate(lay(self.plan.base, [*self.settings, *given]))
        if run is None:
            raise ValueError(in_words(error) if error else "is no run")
        return run


def load_space(path: str | Path, overrides: Sequence[str] = ()) -> Space:
    """Read a grid file that has ranges, see `ranges`, each of whose ends and choices is a run.

    Overrides as in `load_grid`. Raises GridError for the first fault, also where there is nothing
    to search.
    """
    with faults_of(path):
        root = read_root(path)
        settings = _searches(root, [read_override(text) for text in overrides])
    return Space(Path(path).stem, tuple(settings), root.value.get("description", ""))


def _searches(root: Node, overrides: Sequence[Setting]) -> list[Searched]:
    faults = Faults()
    sections, plan = read_plan(root, overrides, faults)
    faults.raise_first()  # a range that is wrong is not missing
    faults += _faults_of_ranges(sections, plan)
    by_setting: dict[tuple[int, ...], list[Found]] = {}
    for found in find_runs(sections, plan, bool(overrides), faults):
        fixed = [id(point) for axis, point in _points(found) if _is_fixed(axis)]
        by_setting.setdefault((id(found.part), *fixed), []).append(found)
    searches: dict[str, Searched] = {}
    for each in by_setting.values():
        one = _searched(plan, each)
        same = searches.setdefault(one.code, one)
        seeds = tuple(dict.fromkeys((*same.seeds, *one.seeds)))
        searches[one.code] = replace(same, seeds=seeds)
    return list(searches.values())


def _searched(plan: Plan, found: Sequence[Found]) -> Searched:
    """The setting that these runs are the ends of."""
    seeds = tuple(dict.fromkeys(each.run.seed for each in found))
    ends = tuple(each.run for each in found if each.run.seed == seeds[0])
    ranges = {axis.key: axis.searched for axis in found[0].part if axis.searched}
    fixed = [point for axis, point in _points(found[0]) if _is_fixed(axis)]
    return Searched(ranges, seeds, ends, plan, tuple(itertools.chain(*fixed)))


def _points(found: Found) -> Iterator[tuple[Axis, tuple[Setting, ...]]]:
    return zip(found.part, found.points, strict=True)


def _is_fixed(axis: Axis) -> bool:
    return not axis.searched and axis.key != columns.SEED


def _faults_of_ranges(sections: Mapping[str, Node], plan: Plan) -> Iterator[Fault]:
    """What a search has against its axes: none is a range, the seed is, or an entry of exclude is
    about what is searched."""
    nodes = [sections["axes"], *sections["include"].children.values()]
    for node, part in zip(nodes, plan.parts, strict=False):
        ranges = [axis for axis in part if axis.searched]
        for axis in ranges:
            if axis.key == columns.SEED:
                yield Fault(axis.node, axis.key, "is not searched, should be a list of seeds")
        if not ranges:
            text = "has no range to search, should have one such as train.learning_rate: "
            yield Fault(node, "axes", text + "{log: [1e-5, 1e-1]}; `zoorecall sweep` trains lists")
    searched = {parse_path(axis.key) for part in plan.parts for axis in part if axis.searched}
    for axis in itertools.chain(*plan.exclude):
        for path, node in itertools.chain(*axis.points):
            if axis.searched or any(x[: len(path)] == path[: len(x)] for x in searched):
                yield Fault(node, ".".join(path), "is searched, should not be in exclude")
