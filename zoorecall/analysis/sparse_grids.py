"""What a sparser grid of learning rates would have reported, and how often it misses the window.

Zoology (Arora et al. 2023, arXiv 2312.04927, figure 2) reports the best of four learning rates;
Okpekpe and Orvieto 2025 (arXiv 2508.19029, figure 1) say that it missed windows that are there.
A sparse grid is read off the trained one; a rate of it that was not trained is interpolated in the
logarithm of the learning rate.

Shape letters: S seeds, P trained learning rates, K rates of a sparse grid.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..columns import SOLVED
from .accuracy import accuracies
from .intervals import mean_difference
from .windows import windows_of

ZOOLOGY_RATES = (1e-4, 10 ** (-10 / 3), 10 ** (-8 / 3), 1e-2)
"""The four learning rates of Zoology's figure 2: logspace(-4, -2, 4)."""

ZOOLOGY_SPACING = 2 / 3
"""Decades from one of these rates to the next."""


def reported(runs: pd.DataFrame, rates: Sequence[float] = ZOOLOGY_RATES) -> pd.DataFrame:
    """One row a setting: the best accuracy over `rates` alone, as `accuracy`, that over all rates
    trained, as `full`, and what is `lost`, all held out and each with its t interval; `missed`
    where the full grid solves the task and the sparse one does not.

    A held-out choice among more rates can be the worse one, so that what is lost may be negative.
    `each` lists the seeds' accuracies over `rates`; `interpolated` says that some of the rates were
    not themselves trained. Rates beyond the trained ones do not count; a setting for which none is
    left has no row.
    """
    rows = []
    for one in accuracies(runs):
        x, at = np.log10(one.rates), np.log10(rates)
        at = at[(at > x[0] - 1e-6) & (at < x[-1] + 1e-6)]
        if not len(at):
            continue
        table = _read_off(one.table, _interpolation(x, at), 10**at)
        if table.empty:
            continue
        sparse = replace(one, table=table)
        lost, _ = mean_difference(one.held_out, sparse.held_out)
        rows.append(
            {
                **one.setting,
                "best_rate": sparse.rates[sparse.best],
                **sparse.accuracy.columns("accuracy"),
                "each": sparse.held_out.tolist(),
                **one.accuracy.columns("full"),
                **lost.within(-1, 1).columns("lost"),
                "missed": sparse.accuracy.value < SOLVED <= one.accuracy.value,
                "interpolated": bool(np.abs(at[:, None] - x).min(axis=1).max() > 1e-6),
                "seeds": one.seeds,
            }
        )
    return pd.DataFrame(rows)


def lost_by_seed(runs: pd.DataFrame, rates: Sequence[float] = ZOOLOGY_RATES) -> pd.DataFrame:
    """What the best of those of `rates` that were trained loses against the best of all, held out:
    a row a seed, a column a mixer, the mean over the settings that were run with all mixers and
    with all of these seeds: those that some setting has of every mixer."""
    lost = {}
    for one in accuracies(runs):
        x = np.log10(one.rates)
        trained = np.isclose(x[:, None], np.log10(rates), atol=1e-6).any(axis=1)
        table = one.table.loc[:, trained].dropna(axis=1, how="all")
        if not table.empty:
            lost[tuple(one.setting.values())] = one.held_out - replace(one, table=table).held_out
    if not lost:
        return pd.DataFrame()
    by_setting = pd.DataFrame(lost).T.unstack(level=0)  # a row a setting, columns (seed, mixer)
    of_seed = by_setting.T.groupby(level=0)
    shared = of_seed.apply(lambda one: bool(one.notna().all().any()))
    kept = by_setting.loc[:, by_setting.columns.get_level_values(0).isin(shared[shared].index)]
    return pd.Series(kept.dropna().mean(), dtype=float).unstack()


def _read_off(table: pd.DataFrame, weights: np.ndarray, rates: np.ndarray) -> pd.DataFrame:
    """The table [S, P] at other rates, by weights [P, K]; NaN where a run that counts is missing,
    without rates that no seed has."""
    values = table.to_numpy()
    missing = np.isnan(values)
    found = (np.nan_to_num(values) @ weights).round(12)
    found[missing.astype(float) @ weights > 0] = np.nan
    return pd.DataFrame(found, table.index, rates).dropna(axis=1, how="all")


def miss_rates(
    runs: pd.DataFrame, spacing: float = ZOOLOGY_SPACING, solved: float = SOLVED
) -> pd.DataFrame:
    """One row a setting: the share of grids of one point every `spacing` decades, over all shifts
    of such a grid, that have no point in the window; NaN where no rate's mean solves.

    `missed_least` and `missed_most` are by the outer and the inner span of the window of the mean;
    `missed_low` and `missed_high` by the interval of a seed's own, see `windows.Windows.decades`.
    Where `edge` says that a window touches the trained grid's end, fewer may miss it. Raises
    ValueError where a spacing is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"the spacing of a grid must be positive, not {spacing}")
    rows = []
    for one in accuracies(runs):
        found = windows_of(one, solved)
        widths = np.array(
            [found.mean.outer, found.mean.inner, found.decades.high, found.decades.low]
        )
        missed = (1 - widths / spacing).clip(0) if found.mean.islands else np.full(4, np.nan)
        names = [f"missed_{end}" for end in ("least", "most", "low", "high")]
        rows.append(
            {
                **one.setting,
                "spacing": spacing,
                **dict(zip(names, missed.tolist(), strict=True)),
                "edge": found.edge,
                "seeds": one.seeds,
            }
        )
    return pd.DataFrame(rows)


def _interpolation(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The matrix that takes values at `x` [P] to values at `at` [K], linearly between: [P, K]."""
    return np.stack([np.interp(at, x, unit) for unit in np.eye(len(x))])
