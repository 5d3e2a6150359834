"""Intervals over seeds: the percentile bootstrap, vectorized and the same on every machine.

Shape letters: N resamples, S seeds.

A resample draws as many seeds as there are, with replacement; here it is a row of weights, so
that one matrix product gives the means of all resamples. Row 0 is the sample itself. One seed has
no interval. Few have one that is too narrow: of the 95 % intervals of normal data, those of three
seeds (their range) cover the mean 75 times in a hundred, those of five 83, those of ten 90.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..seeding import Stream

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number and its interval over seeds; the interval is NaN where there is but one seed."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def seed_weights(num_seeds: int, purpose: str = "") -> np.ndarray:
    """What each seed counts in the sample (row 0) and in its resamples, [1 + N, S]; equal numbers
    of seeds and equal purposes give equal weights."""
    words = Stream(0, "bootstrap", purpose, num_seeds).bits(RESAMPLES, num_seeds)
    picks = words % np.uint64(num_seeds)
    weights = (picks[:, :, None] == np.arange(num_seeds, dtype=np.uint64)).mean(axis=1)
    return np.vstack([np.full(num_seeds, 1 / num_seeds), weights])


def means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means over seeds: [1 + N, S] and [S, ...] to [1 + N, ...], rounded, so that what
    is equal stays equal on every machine."""
    return (weights @ values).round(12)


def estimate(statistics: np.ndarray, num_seeds: int) -> Estimate:
    """From a statistic of the sample and of its resamples, [1 + N]; a resample for which it is
    not defined (NaN) does not count."""
    value, resampled = float(statistics[0]), statistics[1:][~np.isnan(statistics[1:])]
    if num_seeds < 2 or np.isnan(value) or not len(resampled):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def mean_over_seeds(values: pd.Series) -> Estimate:
    """The mean of one number a seed."""
    return estimate(means(seed_weights(len(values)), values.to_numpy()), len(values))


class Pairing(NamedTuple):
    """Weights of the seeds of two samples, [1 + N, S] each; `num_seeds` of the smaller."""

    first: np.ndarray
    second: np.ndarray
    num_seeds: int
    paired: bool


def pair_seeds(first: pd.Index, second: pd.Index) -> Pairing:
    """Weights for the difference of two samples. Where they share two seeds or more, only those
    count, and each resample draws the same of both; else the two are drawn independently."""
    shared = first.intersection(second).sort_values()
    if len(shared) < 2:
        sizes = len(first), len(second)
        return Pairing(seed_weights(sizes[0]), seed_weights(sizes[1], "second"), min(sizes), False)
    weights = seed_weights(len(shared))
    on_first, on_second = (
        weights @ (shared.to_numpy()[:, None] == seeds.to_numpy()) for seeds in (first, second)
    )
    return Pairing(on_first, on_second, len(shared), True)


def mean_difference(first: pd.Series, second: pd.Series) -> tuple[Estimate, Pairing]:
    """The mean of `first` less that of `second`, each one number a seed, indexed by seed."""
    pairing = pair_seeds(first.index, second.index)
    sides = (pairing.first, first), (pairing.second, second)
    difference = np.subtract(*(means(weights, values.to_numpy()) for weights, values in sides))
    return estimate(difference, pairing.num_seeds), pairing
