"""The accuracy of each setting: by learning rate and seed, at its best, and what that shows.

Shape letters: S seeds, P learning rates.

A setting is what remains of a config without learning rate and seed. Its best learning rate has
the highest mean over seeds, so that no single lucky run decides; of equals it is the middle one.
Its accuracy is held out: that of each seed at the rate which is best for the other seeds. A rate
that is chosen by the seeds it is measured on looks too good: where three seeds have 0.97, 0.96 and
0.98 at one rate and 0.99, 0.99 and 0.00 at another, the first is best, but the first two seeds
would have chosen the second, and the third has nothing there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..columns import (
    CONFIG_PREFIXES,
    DEPTH,
    FOLDER,
    LENGTH,
    MIXER,
    MIXER_SOURCE,
    NUM_PAIRS,
    OPTIMIZER,
    QUERIES,
    RATE,
    RUN_ID,
    SEED,
    SOLVED,
    TASK,
    TASK_SIZES,
    VOCABULARY,
    WIDTH,
    slices,
)
from ..errors import ResultsError
from ..tasks import PAIRS
from ..words import missing
from .intervals import Estimate, mean_over_seeds

EQUAL = 0.001
"""Accuracies no further apart are equal: a tenth of a percent, twelve of 12,000 answers."""

EDGE_GAIN = 0.01
"""A best accuracy at the grid's edge is the edge's doing if it is higher by more than this than
at any rate inside."""


def setting_columns(runs: pd.DataFrame) -> list[str]:
    """The columns that tell one setting from another: mixer, layers, width, length; folder, task
    and optimizer where there are several; and whatever else of the configs still varies between
    runs that agree on these (learning rate and seed aside): not the batch size that goes with a
    length, nor the momentum that goes with an optimizer. Nothing set is a value like any other."""
    several = [
        name for name in (FOLDER, TASK, OPTIMIZER) if name in runs and runs[name].nunique() > 1
    ]
    keys = [MIXER, *several, DEPTH, WIDTH, LENGTH]
    options = [
        name
        for name in map(str, runs)
        if name == MIXER_SOURCE
        or (name.startswith(CONFIG_PREFIXES) and name not in (*keys, TASK, *TASK_SIZES, RATE))
    ]
    keys += _varying(runs, keys, options)
    # a size may follow from the options, or be one
    return keys + _varying(runs, keys, [name for name in (VOCABULARY, QUERIES) if name in runs])


def _varying(runs: pd.DataFrame, keys: list[str], names: list[str]) -> list[str]:
    """Which of the columns `names` differ between runs that agree on `keys`."""
    names = [name for name in names if runs[name].nunique(dropna=False) > 1]
    groups = runs.groupby(keys, dropna=False).ngroup().to_numpy() if names else np.empty(0)
    number = len(np.unique(groups))

    def within(name: str) -> int:
        both = np.stack([groups, pd.factorize(runs[name])[0]])
        return np.unique(both, axis=1).shape[1]

    return [name for name in names if within(name) > number]


def num_pairs(runs: pd.DataFrame) -> pd.Series:
    """The pairs of an example of each run; NaN where its task does not count them."""
    found = np.full(len(runs), np.nan)
    for name in PAIRS:
        if name in runs:
            pairs = runs[name].to_numpy(float, na_value=np.nan)
            found = np.where(np.isnan(found), pairs, found)
    return pd.Series(found, runs.index)


def with_pairs(setting: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """A setting with the number of pairs of its `runs`, where they all have one, as `NUM_PAIRS` and
    in the place of a task's option."""
    pairs = num_pairs(runs).unique()
    if len(pairs) != 1 or np.isnan(pairs[0]):
        return dict(setting)
    return {name: x for name, x in setting.items() if name not in PAIRS} | {
        NUM_PAIRS: int(pairs[0])
    }


@dataclass(frozen=True)
class Accuracies:
    """One setting's accuracy at every learning rate: `table` has a row a seed and a column a rate,
    ascending, and NaN where a run is missing (an unfinished sweep)."""

    setting: dict[str, object]
    table: pd.DataFrame
    parameters: int
    state_size: int | None  # None where unknown
    diverged: tuple[float, ...] = ()  # learning rates of its diverged runs
    slices: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # tables by slice of the task

    @property
    def rates(self) -> np.ndarray:
        return self.table.columns.to_numpy(dtype=float)  # [P]

    @property
    def seeds(self) -> int:
        return len(self.table)

    @cached_property
    def values(self) -> np.ndarray:
        """The table, a missing run with the mean of the other seeds: [S, P]."""
        values = self.table.to_numpy()
        return np.where(np.isnan(values), np.nanmean(values, axis=0), values)

    @cached_property
    def mean(self) -> np.ndarray:
        return self.values.mean(axis=0).round(12)  # [P]

    @property
    def best(self) -> int:
        """The best rate's index."""
        return best_index(self.mean)

    @property
    def at_best(self) -> pd.Series:
        """Accuracy at the best rate by seed."""
        return self.table.iloc[:, self.best].dropna()

    @cached_property
    def held_out(self) -> pd.Series:
        """Accuracy by seed, each at its rate of `held_out_at`."""
        found = {seed: self.table[rate][seed] for seed, rate in self.held_out_at.items()}
        return pd.Series(found, dtype=float)

    @cached_property
    def held_out_at(self) -> dict[Any, float]:
        """The rate by seed that is best for the others, of those that the seed was run at. Where no
        rate has two seeds there are no others to choose by: the best, for those run at it."""
        values, rates = self.table.to_numpy(), self.table.columns
        run = ~np.isnan(values)
        total, count = np.nansum(values, axis=0), run.sum(axis=0)
        found = {}
        for seed, own, there in zip(self.table.index, values, run, strict=True):
            at = np.flatnonzero(there & (count > 1))
            if len(at):
                others = ((total[at] - own[at]) / (count[at] - 1)).round(12)
                found[seed] = rates[at[best_index(others)]]
        return found or dict.fromkeys(self.at_best.index, rates[self.best])

    @cached_property
    def accuracy(self) -> Estimate:
        """The mean over seeds of `held_out`, with its t interval."""
        return mean_over_seeds(self.held_out).within(0, 1)

    def verdict(self, solved: float = SOLVED) -> str:
        """`solves` or `does not solve` where the whole interval of the accuracy says so, else
        `undecided`; a setting whose best learning rate lies at the grid's edge may solve beyond."""
        if self.accuracy.low >= solved:
            return "solves"
        return "does not solve" if self.accuracy.high < solved and not self.edge else "undecided"

    @property
    def edge(self) -> str:
        """Whether the best lies at the grid's edge, where a better one may be beyond: `low`,
        `high`, `low+high` (one rate only) or nothing."""
        inside = self.mean[1:-1]
        if len(inside) and self.mean.max() <= inside.max() + EDGE_GAIN:
            return ""
        ends = {"low": 0, "high": len(self.mean) - 1}
        return "+".join(name for name, index in ends.items() if index == self.best)


def best_index(mean: np.ndarray) -> int:
    """Where a curve is highest; of those that are `EQUAL` the middle one, of two the lower."""
    highest = np.flatnonzero(mean >= (mean.max() - EQUAL).round(12))
    return int(highest[(len(highest) - 1) // 2])


def accuracies(runs: pd.DataFrame) -> list[Accuracies]:
    """Every setting of a table of runs, ordered by mixer, layers, width, length.

    Raises ResultsError where two runs have the same setting, learning rate and seed.
    """
    keys, parts = setting_columns(runs), slices(runs)
    measured = [RUN_ID, SEED, RATE, "test_accuracy", "parameters", "state_size", "diverged_at"]
    found = []
    for key, group in runs[[*keys, *measured, *parts.values()]].groupby(keys, dropna=False):
        state_size = group["state_size"].iloc[0]
        found.append(
            Accuracies(
                setting={k: None if missing(x) else x for k, x in zip(keys, key, strict=True)},
                table=_by_seed_and_rate(group, "test_accuracy"),
                parameters=int(group["parameters"].iloc[0]),
                state_size=None if pd.isna(state_size) else int(state_size),
                diverged=tuple(group.loc[group["diverged_at"].notna(), RATE]),
                slices={
                    name: _by_seed_and_rate(group, column)
                    for name, column in parts.items()
                    if group[column].notna().any()
                },
            )
        )
    return found


def _by_seed_and_rate(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """One setting's runs as a table, a row a seed and a column a rate."""
    (seeds, i), (rates, j) = (np.unique(runs[x], return_inverse=True) for x in (SEED, RATE))
    cell = i * len(rates) + j
    if len(np.unique(cell)) < len(cell):
        twice = runs[runs[[SEED, RATE]].duplicated(keep=False)]
        one, other = twice.sort_values([SEED, RATE])[RUN_ID].iloc[:2]
        raise ResultsError(
            f"runs {one} and {other} have the same setting, learning rate and seed; "
            "of two such runs one must be left out"
        )
    values = np.full((len(seeds), len(rates)), np.nan)
    values[i, j] = runs[column]
    return pd.DataFrame(values, pd.Index(seeds, name=SEED), pd.Index(rates, name=RATE))


def by_learning_rate(runs: pd.DataFrame, keys: Sequence[str] = ()) -> pd.DataFrame:
    """Test accuracy at every learning rate of each value of `keys`: of every seed (a list), the
    mean, and how many of how many seeds solve."""
    accuracy = runs.groupby([*keys, RATE], dropna=False)["test_accuracy"]
    found = accuracy.agg(
        each=list, mean="mean", solved=lambda x: (x >= SOLVED).sum(), seeds="count"
    )
    return found.reset_index()


def best_accuracies(runs: pd.DataFrame, solved: float = SOLVED) -> pd.DataFrame:
    """One row a setting; see `best_numbers`."""
    return pd.DataFrame([one.setting | best_numbers(one, solved) for one in accuracies(runs)])


def best_numbers(one: Accuracies, solved: float = SOLVED) -> dict[str, Any]:
    """A setting's best learning rate, `accuracy` (held out) with its t interval and that of `each`
    seed, size and verdict.

    `solved` of `seeds` seeds solve, each at the rate that is best for the others. `at_best` is the
    mean at the best rate, chosen by the same seeds, as papers report it. `edge` says where the best
    rate lies at the grid's edge.
    """
    return {
        "best_rate": one.rates[one.best],
        "edge": one.edge,
        **one.accuracy.columns("accuracy"),
        "each": one.held_out.tolist(),
        "at_best": one.at_best.mean(),
        "solved": int((one.held_out >= solved).sum()),
        "seeds": len(one.held_out),
        "verdict": one.verdict(solved),
        "parameters": one.parameters,
        "state_size": one.state_size,
    }


def with_baselines(
    settings: list[Accuracies], baseline: Mapping[str, object]
) -> Iterator[tuple[Accuracies, Accuracies | None]]:
    """Each setting with the baseline that differs from it at most in the columns that `baseline`
    names, and in options that go with these in all runs, as `setting_columns` leaves them out: a
    baseline with itself, None where that baseline was not run.

    Raises ValueError where no setting has the baseline's values.
    """

    def rest(one: Accuracies) -> tuple[object, ...]:
        return tuple(value for key, value in one.setting.items() if key not in baseline)

    baselines = {
        rest(one): one
        for one in settings
        if all(one.setting.get(key) == value for key, value in baseline.items())
    }
    if not baselines:
        wanted = ", ".join(f"{key} = {value}" for key, value in baseline.items())
        raise ValueError(f"no runs of the baseline {wanted}")
    for one in settings:
        yield one, baselines.get(rest(one))
