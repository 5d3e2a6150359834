"""What a sparser grid of learning rates would have reported, and how often it misses the window.

Zoology (Arora et al. 2023, arXiv 2312.04927, figure 2) reports the best of four learning rates;
Okpekpe and Orvieto 2025 (arXiv 2508.19029, figure 1) say that it missed windows that are there.
A sparse grid is read off the trained one, interpolated in the logarithm of the learning rate.

Shape letters: S seeds, P trained learning rates, K rates of a sparse grid, Z shifts of it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..columns import RATE, SOLVED
from .accuracy import accuracies, best_index
from .bootstrap import estimate, mean_difference, mean_over_seeds
from .windows import window_edge, window_spans

ZOOLOGY_RATES = (1e-4, 10 ** (-10 / 3), 10 ** (-8 / 3), 1e-2)
"""The four learning rates of Zoology's figure 2: logspace(-4, -2, 4)."""

ZOOLOGY_SPACING = 2 / 3
"""Decades from one of these rates to the next."""

SHIFTS = 240


def reported(
    runs: pd.DataFrame, rates: Sequence[float] = ZOOLOGY_RATES, measure: str = "test_accuracy"
) -> pd.DataFrame:
    """One row a setting: the best accuracy over `rates` alone, as `accuracy`, that over all rates
    trained, as `full`, and what is `lost`, each with its interval over seeds; `missed` where the
    full grid solves the task and the sparse one does not.

    `interpolated` says that some of the rates were not themselves trained. Rates beyond the
    trained ones do not count; a setting for which none is left has no row.
    """
    rows = []
    for one in accuracies(runs, measure):
        x, at = np.log10(one.rates), np.log10(rates)
        at = at[(at > x[0] - 1e-6) & (at < x[-1] + 1e-6)]
        if not len(at):
            continue
        values = (one.values @ _interpolation(x, at)).round(12)  # [S, K]
        best = best_index(values.mean(axis=0))
        at_best = pd.Series(values[:, best], index=one.table.index)
        accuracy, full = mean_over_seeds(at_best), mean_over_seeds(one.at_best)
        lost, _ = mean_difference(one.at_best, at_best)
        rows.append(
            {
                **one.setting,
                "best_rate": 10 ** at[best],
                **accuracy.columns("accuracy"),
                **full.columns("full"),
                **lost.columns("lost"),
                "missed": accuracy.value < SOLVED <= full.value,
                "interpolated": bool(np.abs(at[:, None] - x).min(axis=1).max() > 1e-6),
                "seeds": one.seeds,
            }
        )
    return pd.DataFrame(rows)


def lost_by_seed(
    runs: pd.DataFrame, rates: Sequence[float] = ZOOLOGY_RATES, measure: str = "test_accuracy"
) -> pd.DataFrame:
    """What the best of those of `rates` that were trained loses against the best of all, a row a
    seed, a column a mixer: the mean over the settings that were run with all mixers and seeds."""
    x = np.log10(runs[RATE].to_numpy(dtype=float))
    of_rates = runs[np.isclose(x[:, None], np.log10(rates), atol=1e-6).any(axis=1)]
    sparse, full = (
        {tuple(one.setting.values()): one.at_best for one in accuracies(table, measure)}
        for table in (of_rates, runs)
    )
    lost = pd.DataFrame({setting: full[setting] - sparse[setting] for setting in sparse})
    if lost.empty:
        return lost
    by_setting = lost.T.unstack(level=0).dropna()  # a row a setting, columns (seed, mixer)
    return pd.Series(by_setting.mean()).unstack()


def miss_rates(
    runs: pd.DataFrame, spacing: float = ZOOLOGY_SPACING, measure: str = "test_accuracy"
) -> pd.DataFrame:
    """One row a setting: what grids of one point every `spacing` decades report, over all shifts
    of such a grid.

    `missed` is the share of shifts with no point in the window, NaN where there is no window,
    with its interval over seeds; where `edge` says that the window touches the trained grid's end
    it is an upper bound. `expected` and `worst` are the best accuracies reported, the mean and the
    lowest over shifts. Raises ValueError where a spacing is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"the spacing of a grid must be positive, not {spacing}")
    rows = []
    for one in accuracies(runs, measure):
        x, y = np.log10(one.rates), one.resampled()
        spans = window_spans(x, y, SOLVED)
        missed = np.where(np.isnan(spans.low), np.nan, (1 - spans.decades / spacing).clip(0))
        best = _best_of_shifts(x, one.mean, spacing)
        rows.append(
            {
                **one.setting,
                "spacing": spacing,
                **estimate(missed, one.seeds).columns("missed"),
                "edge": window_edge(one),
                "expected": best.mean(),
                "worst": best.min(),
                "full": one.mean.max(),
                "seeds": one.seeds,
            }
        )
    return pd.DataFrame(rows)


def _best_of_shifts(x: np.ndarray, y: np.ndarray, spacing: float) -> np.ndarray:
    """The best accuracy on grids of one spacing within the trained rates, by their shift: [Z]."""
    shifts = spacing * (np.arange(SHIFTS) + 0.5) / SHIFTS
    at = x[0] + shifts[:, None] + spacing * np.arange(np.ceil((x[-1] - x[0]) / spacing))
    values = np.where(at <= x[-1], np.interp(at, x, y), -np.inf).max(axis=1, initial=-np.inf)
    return values[np.isfinite(values)]  # a shift may have no point within


def _interpolation(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The matrix that takes values at `x` [P] to values at `at` [K], linearly between: [P, K]."""
    return np.stack([np.interp(at, x, unit) for unit in np.eye(len(x))])
