"""The search for a window of learning rates: which runs to train next, given what is known.

The rates are a grid of four a decade, of which few are trained. A coarse pass takes one rate a
decade and one seed. Then gaps between trained rates are halved: at the window's edges, where of two
neighbours one solves and the other does not, down to the grid's step; and around the best rate.
Where no rate solves, a narrow window may hide in any gap, so all are halved once.

A further seed is added only where it can change the answer, which is the mean over seeds, as in
`analysis.windows`: at the last rate that solves, which other seeds may not, and at the first that
fails, if its mean would solve were the missing seeds at 100 %. Seeds stop where all runs together
would come to more than a quarter of what the whole grid takes, with one run kept back for the
halving that an edge moved by a seed may need.

Shape letters: P rates of the grid, S seeds.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..columns import SOLVED

COARSE = 4
"""Steps of the grid from one rate of the coarse pass to the next: a decade."""

NEAR_BEST = 2
"""Steps from a best rate that solves to its neighbours, at most; from one that does not, 1."""

SHARE = 0.25
"""The share of the whole grid's training up to which seeds are added."""

ALIKE = 0.005
"""Accuracies no further from the best are as good: which is the higher is a matter of seeds."""


class Place(NamedTuple):
    """A run by its rate's place in the grid and its seed's place in the list of seeds."""

    rate: int
    seed: int


def next_runs(accuracy: np.ndarray, spent: float) -> list[Place]:
    """The runs to train next, given the accuracies [P, S] of those that were, NaN elsewhere, and
    how many whole runs these have cost; none where the answer is found."""
    known, last = np.flatnonzero(np.isfinite(accuracy).any(axis=1)), len(accuracy) - 1
    coarse = sorted({*range(0, last, COARSE), last} - {*known.tolist()})
    if coarse:
        return [Place(rate, 0) for rate in coarse]
    mean = np.nanmean(accuracy[known], axis=1).round(12)
    afford = max(0, int(SHARE * accuracy.size - spent))
    at_ends, inside = _seeds(accuracy, known, mean)
    halves = [Place(rate, 0) for rate in _halves(known, mean)]
    return at_ends[:afford] + halves or inside[: max(0, afford - 1)]


def best(x: np.ndarray, accuracy: np.ndarray) -> int:
    """Which of the rates is best, given their logarithms and accuracies: of a stretch that is as
    good, the one nearest to its middle, which has the most room on either side."""
    first, last = _stretch(accuracy, accuracy.max() - ALIKE)
    return int(np.abs(x - (x[first] + x[last]) / 2).argmin())


def _stretch(mean: np.ndarray, least: float) -> tuple[int, int]:
    """The first and last of the rates around the best that have at least this; (0, -1) if none."""
    first = last = int(mean.argmax())
    if mean[first] < least:
        return 0, -1
    while first > 0 and mean[first - 1] >= least:
        first -= 1
    while last < len(mean) - 1 and mean[last + 1] >= least:
        last += 1
    return first, last


def _halves(known: np.ndarray, mean: np.ndarray) -> list[int]:
    """The middles of gaps that are too wide."""
    low, high = _stretch(mean, SOLVED)
    first, last = _stretch(mean, mean.max() - ALIKE)
    solves = low <= high
    found = set()
    for i, (a, b) in enumerate(pairwise(known.tolist())):
        edge = solves and i in (low - 1, high)
        near = i in (first - 1, last)
        widest = 1 if edge or (near and not solves) else NEAR_BEST if near or not solves else COARSE
        if b - a > widest:
            found.add((a + b) // 2)
    middle = int(known[first] + known[last]) // 2
    if np.abs(known - middle).min() > (1 if solves else 0):
        found.add(middle)
    return sorted(found)


def _seeds(
    accuracy: np.ndarray, known: np.ndarray, mean: np.ndarray
) -> tuple[list[Place], list[Place]]:
    """A further seed on either side of each of the window's edges, where it can change them: at the
    ends of the grid, and inside of it."""
    first, last = _stretch(mean, SOLVED)
    sides = dict.fromkeys((first, last, first - 1, last + 1)) if first <= last else ()
    wanted = [
        Place(int(known[i]), int(np.isnan(accuracy[known[i]]).argmax()))
        for i in sides
        if 0 <= i < len(known) and _open(accuracy[known[i]])
    ]
    ends = (0, len(accuracy) - 1)
    return [x for x in wanted if x.rate in ends], [x for x in wanted if x.rate not in ends]


def _open(seeds: np.ndarray) -> bool:
    """Whether seeds are missing, and could let this rate's mean solve."""
    missing = np.isnan(seeds).sum()
    return bool(missing) and (np.nansum(seeds) + missing) / len(seeds) >= SOLVED
