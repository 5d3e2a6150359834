"""The accuracy of each setting: by learning rate and seed, at its best, and what that shows.

Shape letters: N resamples, S seeds, P learning rates.

A setting is what remains of a config without learning rate and seed. Its best learning rate has
the highest mean over seeds, so that no single lucky run decides; of equals it is the middle one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from ..columns import (
    CONFIG_PREFIXES,
    DEPTH,
    LENGTH,
    MIXER,
    MIXER_SOURCE,
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
from ..words import missing
from .bootstrap import Estimate, mean_over_seeds, means, seed_weights

EDGE_GAIN = 0.01
"""A best accuracy at the grid's edge is the edge's doing if it is higher by more than this than
at any rate inside."""


def setting_columns(runs: pd.DataFrame) -> list[str]:
    """The columns that tell one setting from another: mixer, layers, width, length, task and
    optimizer where there are several, and whatever else of the configs still varies between runs
    that agree on these (learning rate and seed aside): not the batch size that goes with a length,
    nor the momentum that goes with an optimizer. Nothing set is a value like any other."""
    several = [name for name in (TASK, OPTIMIZER) if name in runs and runs[name].nunique() > 1]
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
    counts = runs.groupby(keys, dropna=False)[names].nunique(dropna=False)
    return [name for name in names if (counts[name] > 1).any()]


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

    @property
    def edge(self) -> str:
        """Whether the best lies at the grid's edge, where a better one may be beyond: `low`,
        `high`, `low+high` (one rate only) or nothing."""
        inside = self.mean[1:-1]
        if len(inside) and self.mean.max() <= inside.max() + EDGE_GAIN:
            return ""
        ends = {"low": 0, "high": len(self.mean) - 1}
        return "+".join(name for name, index in ends.items() if index == self.best)

    def resampled(self) -> np.ndarray:
        """Mean over seeds at each rate, of the sample (row 0) and its resamples: [1 + N, P]."""
        return means(seed_weights(self.seeds), self.values)


def best_index(mean: np.ndarray) -> int:
    """Where a curve is highest; of equals the middle one, of two the lower."""
    highest = np.flatnonzero(mean == mean.max())
    return int(highest[(len(highest) - 1) // 2])


def accuracies(runs: pd.DataFrame, measure: str = "test_accuracy") -> list[Accuracies]:
    """Every setting of a table of runs, ordered by mixer, layers, width, length.

    Raises ResultsError where two runs have the same setting, learning rate and seed.
    """
    keys = setting_columns(runs)
    found = []
    for key, group in runs.groupby(keys, dropna=False):
        state_size = group["state_size"].iloc[0]
        found.append(
            Accuracies(
                setting={k: None if missing(x) else x for k, x in zip(keys, key, strict=True)},
                table=_by_seed_and_rate(group, measure),
                parameters=int(group["parameters"].iloc[0]),
                state_size=None if pd.isna(state_size) else int(state_size),
                diverged=tuple(group.loc[group["diverged_at"].notna(), RATE]),
                slices={
                    name: _by_seed_and_rate(group, column)
                    for name, column in slices(group).items()
                    if group[column].notna().any()
                },
            )
        )
    return found


def _by_seed_and_rate(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One setting's runs as a table, a row a seed and a column a rate."""
    twice = runs[runs.duplicated([SEED, RATE], keep=False)].sort_values([SEED, RATE])
    if len(twice):
        one, other = twice[RUN_ID].iloc[:2]
        raise ResultsError(
            f"runs {one} and {other} have the same setting, learning rate and seed; "
            "of two such runs one must be left out"
        )
    return runs.pivot(index=SEED, columns=RATE, values=measure)


def by_learning_rate(runs: pd.DataFrame, keys: Sequence[str] = ()) -> pd.DataFrame:
    """Test accuracy at every learning rate of each value of `keys`: mean, min and max over seeds,
    and their count."""
    accuracy = runs.groupby([*keys, RATE], dropna=False)["test_accuracy"]
    return accuracy.agg(["mean", "min", "max", "count"]).reset_index()


def best_accuracies(runs: pd.DataFrame, measure: str = "test_accuracy") -> pd.DataFrame:
    """One row a setting: accuracy at its best learning rate with an interval over seeds, size,
    and verdict.

    `held_out` is free of the choice's optimism: each seed's accuracy at the rate that is best for
    the other seeds. `edge` says where the best rate lies at the grid's edge.
    """
    rows = []
    for one in accuracies(runs, measure):
        accuracy = mean_over_seeds(one.at_best)
        rows.append(
            {
                **one.setting,
                "best_rate": one.rates[one.best],
                "edge": one.edge,
                **accuracy.columns("accuracy"),
                "accuracy_min": one.at_best.min(),
                "accuracy_max": one.at_best.max(),
                "held_out": _held_out(one.values),
                "verdict": verdict(accuracy, one.edge),
                "seeds": len(one.at_best),
                "parameters": one.parameters,
                "state_size": one.state_size,
            }
        )
    return pd.DataFrame(rows)


def _held_out(values: np.ndarray) -> float:
    """The mean of each seed's accuracy at the best rate of the others; NaN with one seed."""
    if len(values) < 2:
        return np.nan
    others = [np.delete(values, s, axis=0).mean(axis=0) for s in range(len(values))]
    return float(np.mean([values[s, best_index(mean)] for s, mean in enumerate(others)]))


def verdict(accuracy: Estimate, edge: str = "") -> str:
    """`solves` or `does not solve` where the whole interval says so, else `undecided`; a setting
    whose best learning rate lies at the grid's edge may solve beyond it."""
    if accuracy.low >= SOLVED:
        return "solves"
    return "does not solve" if accuracy.high < SOLVED and not edge else "undecided"


def with_baselines(
    settings: list[Accuracies], baseline: Mapping[str, object]
) -> Iterator[tuple[Accuracies, Accuracies | None]]:
    """Each setting with the baseline that differs from it at most in the columns that `baseline`
    names: a baseline with itself, None where that baseline was not run.

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
