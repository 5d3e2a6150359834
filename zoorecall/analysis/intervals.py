"""Intervals over seeds, by scipy: Student's t for means and their differences, Wilson's for shares.

Every interval is a 95 % interval for what further seeds would give. One seed has none.

- A t interval takes numbers that scatter about like a normal. It is wide with few seeds: of two it
  is 9 standard deviations to either side of their mean, of three 2.5. Where seeds either solve or
  fail, equal seeds have an interval without width, which says too much; there the count of seeds
  that solve is the better number. Where several learning rates are about as good, the choice of one
  for each held-out seed brings the seeds' luck closer together: the interval of five seeds over
  nine equal rates covers the truth 84 times in a hundred.
- A Wilson interval belongs to such a count. It covers the true share 95 times in a hundred on
  average over shares, and 83 times at worst (three seeds, a share near 0.06 or 0.94).

`tests/analysis/test_coverage.py` counts how often each covers the truth. The quantiles are
scipy.special's; scipy.stats, whose tests hold these intervals, takes half a second to import.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

LEVEL = 0.95


class Estimate(NamedTuple):
    """A number and its interval over seeds; the interval is NaN where there is but one seed."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def within(self, least: float, most: float) -> "Estimate":
        """The interval without what cannot be: an accuracy above 1, a width below 0."""
        return Estimate(self.value, *np.clip([self.low, self.high], least, most).tolist())


class Pairing(NamedTuple):
    """How two samples were compared: `num_seeds` are those both have, or the smaller's."""

    num_seeds: int
    paired: bool


def mean_over_seeds(values: pd.Series) -> Estimate:
    """The mean of one number a seed, with its t interval."""
    n = len(values)
    variance = float(values.var(ddof=1)) if n > 1 else np.nan
    return _t_interval(float(values.mean()), variance / max(n, 1), n - 1)


def mean_difference(first: pd.Series, second: pd.Series) -> tuple[Estimate, Pairing]:
    """The mean of `first` less that of `second`, each one number a seed, indexed by seed.

    Seeds are paired where the two share two or more, and only those count; else the two are
    independent samples, with Welch's t interval.
    """
    shared = first.index.intersection(second.index).sort_values()
    if len(shared) > 1:
        return mean_over_seeds(first[shared] - second[shared]), Pairing(len(shared), True)
    sizes = np.array([len(first), len(second)])
    pairing = Pairing(int(sizes.min()), False)
    value = float(first.mean() - second.mean())
    if pairing.num_seeds < 2:
        return Estimate(value, np.nan, np.nan), pairing
    parts = np.array([first.var(ddof=1), second.var(ddof=1)]) / sizes
    freedom = parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum() if parts.any() else sizes.sum() - 2
    return _t_interval(value, parts.sum(), freedom), pairing


def _t_interval(value: float, variance: float, freedom: float) -> Estimate:
    """`variance` is that of the mean. Rounded, so that what is equal is so on every machine."""
    if not freedom > 0:
        return Estimate(value, np.nan, np.nan)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variance)
    low, value, high = np.round([value - half, value, value + half], 12).tolist()
    return Estimate(value, low, high)


def share(hits: int, of: int) -> Estimate:
    """The share of seeds that do something, with its Wilson interval: the true shares from which
    it is at most a normal quantile z of their own standard deviations away."""
    if not of:
        return Estimate(np.nan, np.nan, np.nan)
    value, z2 = hits / of, float(ndtri((1 + LEVEL) / 2) ** 2)
    centre = (value + z2 / (2 * of)) / (1 + z2 / of)
    half = np.sqrt(z2 * (value * (1 - value) + z2 / (4 * of)) / of) / (1 + z2 / of)
    low, high = np.round([centre - half, centre + half], 12).tolist()
    return Estimate(value, low, high)
