"""A grid file's runs, or one line that says what is wrong with it and where."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import RunConfig
from .axes import read_override
from .faults import explain
from .plan import Plan, check_points, faults_of, matches, read_plan, read_root
from .settings import Setting, lay
from .yaml_nodes import Fault, Faults, Node


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
    with faults_of(path):
        root = read_root(path)
        runs = _expand(root, [read_override(text) for text in overrides])
    return Grid(Path(path).stem, tuple(runs), root.value.get("description", ""))


def _expand(root: Node, overrides: Sequence[Setting]) -> list[RunConfig]:
    faults = Faults()
    sections, plan = read_plan(root, overrides, faults)
    for axis in filter(lambda axis: axis.searched, itertools.chain(*plan.parts, *plan.exclude)):
        text = "is a range, which `zoorecall tune` searches; a sweep takes values or a logspace"
        faults.append(Fault(axis.node, axis.key, text))
    check_points(sections, plan, faults)
    runs, unmatched = _find_runs(plan, faults)
    faults.raise_first()
    # with overrides an entry may have nothing left to drop
    for i in [] if overrides else sorted(unmatched):
        entry = sections["exclude"].children[i]
        raise Fault(entry, "exclude", "no run of the axes matches, should match one at least")
    if not runs:
        raise Fault(sections["exclude"], "exclude", "drops every run, should leave one at least")
    return runs


def _find_runs(plan: Plan, faults: Faults) -> tuple[list[RunConfig], set[int]]:
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
                matching = {i for i, entry in entries if matches(plan, entry, data, run)}
                unmatched -= matching
                if matching:
                    continue
            if run:
                runs.setdefault(run.run_id, run)
            elif error:
                faults += explain(error, [*plan.layers, settings])
    return list(runs.values()), unmatched
