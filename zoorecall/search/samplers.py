"""Which values to try next, in one setting.

A sampler either plans, so that it says itself which runs are wanted (`window`, `grid`), or leaves
the values to one of Optuna's (`tpe`, `gp`), which has no end of its own; then seeds are taken in
turn.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from ..columns import RATE
from ..errors import UserError
from ..grid import Range, Searched
from ..grid.ranges import spaced
from . import window
from .study import Tried, key

A_DECADE = 4
"""Rates of a grid in a decade."""

OF_A_RANGE = 17
"""Values of a grid over a range without a logarithm, at most."""

RUNS = 12
"""Runs a setting that a sampler without an end of its own takes."""


STARTUP = 5
"""Runs at random before Optuna's samplers look at what there is."""


class Wanted(NamedTuple):
    """A run to start: its seed, and its values, or None where Optuna is to choose them."""

    seed: int
    values: dict[str, Any] | None = None


class Sampler(Protocol):
    """Which runs of a setting to start."""

    def wanted(self, setting: Searched, tried: Sequence[Tried]) -> list[Wanted]:
        """The next runs, all of which may be trained side by side; none where no more are wanted
        before those that are running are over, or ever."""

    def expected(self, setting: Searched) -> int:
        """About how many runs a setting takes in all."""


class Window:
    """For the learning rate alone; see `window`."""

    def wanted(self, setting: Searched, tried: Sequence[Tried]) -> list[Wanted]:
        if any(one.accuracy is None for one in tried):
            return []  # what comes next depends on them
        rates = values_of(setting.ranges[RATE])
        accuracy = by_rate_and_seed(rates, setting.seeds, tried)
        places = window.next_runs(accuracy, sum(one.cost for one in tried))
        return [Wanted(setting.seeds[seed], {RATE: rates[rate]}) for rate, seed in places]

    def expected(self, setting: Searched) -> int:
        rates = len(values_of(setting.ranges[RATE]))
        first_seed = math.ceil(rates / window.COARSE) + 6  # at its edges, and near the best
        return min(rates, max(first_seed, round(window.SHARE * rates * len(setting.seeds))))


class Grid:
    """Every combination of values, four a decade, with every seed."""

    def wanted(self, setting: Searched, tried: Sequence[Tried]) -> list[Wanted]:
        there = {key(one.values, one.seed) for one in tried}
        each = [values_of(setting.ranges[path]) for path in setting.ranges]
        every = [
            Wanted(seed, dict(zip(setting.ranges, values, strict=True)))
            for seed, *values in itertools.product(setting.seeds, *each)
        ]
        return [x for x in every if key(x.values or {}, x.seed) not in there]

    def expected(self, setting: Searched) -> int:
        return math.prod(map(len, map(values_of, setting.ranges.values()))) * len(setting.seeds)


class Proposed:
    """By a sampler of Optuna's, so many runs with the seeds in turn; without end if None."""

    def __init__(self, name: str, runs: int | None):
        self._name, self._runs = name, runs

    def optuna(self, seed: int) -> BaseSampler:
        """What chooses the values."""
        if self._name == "gp":
            return GPSampler(n_startup_trials=STARTUP, seed=seed)
        return TPESampler(n_startup_trials=STARTUP, multivariate=True, seed=seed)

    def wanted(self, setting: Searched, tried: Sequence[Tried]) -> list[Wanted]:
        if self._runs is not None and len(tried) >= self._runs:
            return []
        return [Wanted(setting.seeds[len(tried) % len(setting.seeds)])]

    def expected(self, setting: Searched) -> int:
        return sys.maxsize if self._runs is None else self._runs


SAMPLERS = ("window", "tpe", "gp", "grid")
"""Their names, the default first where the learning rate is all that is searched, else `tpe`."""


def make_sampler(name: str | None, settings: Sequence[Searched], runs: int | None) -> Sampler:
    """The sampler of this name, or the default, for so many runs in all, or its own number.

    Raises UserError where it is not for what is searched.
    """
    rate_only = all([*one.ranges] == [RATE] and one.ranges[RATE].kind == "log" for one in settings)
    if name == "window" and not rate_only:
        raise UserError(
            f"--sampler window searches {RATE} alone, as {{log: [low, high]}}, should be tpe or gp"
        )
    name = name or ("window" if rate_only else "tpe")
    if name not in SAMPLERS:
        raise UserError(f"there is no sampler {name!r}, should be one of {', '.join(SAMPLERS)}")
    if name in ("window", "grid"):
        return Window() if name == "window" else Grid()
    return Proposed(name, RUNS if runs is None else None)


def values_of(searched: Range) -> list[Any]:
    """A grid over a range: four values a decade, or up to 17, from one end to the other."""
    if searched.kind == "choices":
        return [*searched.values]
    low, high = searched.values
    if searched.kind == "int":
        steps = min(high - low, OF_A_RANGE - 1)
        return [low + round(i * (high - low) / steps) for i in range(steps + 1)]
    log = searched.kind == "log"
    steps = math.ceil(A_DECADE * math.log10(high / low) - 1e-9) if log else OF_A_RANGE - 1
    return [min(max(x, low), high) for x in spaced(low, high, steps + 1, log)]


def by_rate_and_seed(
    rates: Sequence[float], seeds: Sequence[int], tried: Sequence[Tried]
) -> np.ndarray:
    """Accuracies [P, S], each at the nearest of the rates; NaN where no run is over."""
    found = np.full((len(rates), len(seeds)), np.nan)
    for one in tried:
        if one.run_id and one.accuracy is not None and one.seed in seeds:
            rate = np.abs(np.log(np.divide(rates, one.values[RATE]))).argmin()
            found[rate, seeds.index(one.seed)] = one.accuracy
    return found
