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

from ..columns import RATE, SOLVED
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
        values = (one.values @ _interpolation(x, at)).round(12)  # [S, K]
        table = pd.DataFrame(values, index=one.table.index, columns=10**at)
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
    seeds."""
    x = np.log10(runs[RATE].to_numpy(dtype=float))
    of_rates = runs[np.isclose(x[:, None], np.log10(rates), atol=1e-6).any(axis=1)]
    sparse, full = (
        {tuple(one.setting.values()): one.held_out for one in accuracies(table)}
        for table in (of_rates, runs)
    )
    lost = pd.DataFrame({setting: full[setting] - sparse[setting] for setting in sparse})
    if lost.empty:
        return lost
    by_setting = lost.T.unstack(level=0).dropna()  # a row a setting, columns (seed, mixer)
    return pd.Series(by_setting.mean()).unstack()


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
