"""A grid file's runs, or one line that says what is wrong with it and where."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import RunConfig
from .axes import read_override
from .plan import faults_of, find_runs, read_plan, read_root
from .settings import Setting
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
    found = find_runs(sections, plan, bool(overrides), faults)
    return [*{each.run.run_id: each.run for each in found}.values()]
