"""A grid file with ranges: the settings whose ranges are searched, each by itself."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import columns
from ..config import RunConfig
from .axes import Axis, read_override
from .faults import explain, in_words
from .plan import Plan, check_points, faults_of, matches, read_plan, read_root
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
    plan: Plan = field(repr=False)
    settings: tuple[Setting, ...] = field(repr=False)

    @property
    def first(self) -> RunConfig:
        """The run at the first end of each range, with the first seed."""
        values = {path: searched.values[0] for path, searched in self.ranges.items()}
        return self.run(values, self.seeds[0])

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
    check_points(sections, plan, faults)
    found: dict[tuple[str, ...], Searched] = {}
    for part in plan.parts:
        fixed = [axis for axis in part if not axis.searched and axis.key != columns.SEED]
        for points in itertools.product(*(axis.points for axis in fixed)):
            settings = tuple(itertools.chain(*points))
            ranges = {axis.key: axis.searched for axis in part if axis.searched}
            runs = _ends(plan, part, settings, faults)
            if runs:
                seeds = tuple(dict.fromkeys(run.seed for run in runs))
                ids = tuple(run.run_id for run in runs)
                found.setdefault(ids, Searched(ranges, seeds, plan, settings))
    faults.raise_first()
    if not found:
        raise Fault(sections["exclude"], "exclude", "drops every run, should leave one at least")
    return list(found.values())


def _ends(
    plan: Plan, part: list[Axis], settings: Sequence[Setting], faults: Faults
) -> list[RunConfig]:
    """The runs of a setting at the ends of its ranges, with each of its seeds."""
    rest = [axis for axis in part if axis.searched or axis.key == columns.SEED]
    runs = []
    for points in itertools.product(*(axis.points for axis in rest)):
        together = [*settings, *itertools.chain(*points)]
        data = lay(plan.base, together)
        run, error = plan.validate(data)
        if part is plan.parts[0] and any(matches(plan, x, data, run) for x in plan.exclude):
            continue
        if run:
            runs.append(run)
        elif error:
            faults += explain(error, [*plan.layers, together])
    return runs


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
    searched = {axis.key for part in plan.parts for axis in part if axis.searched}
    for axis in itertools.chain(*plan.exclude):
        if axis.key in searched or axis.searched:
            yield Fault(axis.node, axis.key, "is searched, should not be in exclude")
