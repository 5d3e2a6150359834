"""Learning-rate windows: where a model solves its task, and how wide that is.

Okpekpe and Orvieto 2025 (arXiv 2508.19029), figure 1, puts accuracy over the logarithm of the
learning rate. The rates at which it is at or above a threshold come in islands, stretches without
a failing rate between them; the window is the widest island, as the best accuracy may be that of a
rate alone, by a thousandth. Nothing is interpolated: between the last rate that solves and the
first that fails the window may end anywhere, so it has an inner span, from its first to its last
rate, and an outer one, between the failing rates on either side.

Over seeds, the number is the width of a seed's own window, in the mean. Each seed's inner and outer
span enclose the width that a denser grid would show, so the interval goes from the lower end of
the t interval of the inner spans to the upper end of that of the outer ones; it has no upper end
where a seed's window touches an end of the grid. A seed that solves at no rate has an inner span of
0, and an outer one of the grid's largest step, in which a window may hide.

Widths are in decades, the logarithm to base 10 of a ratio of learning rates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ..columns import SOLVED
from .accuracy import EDGE_GAIN, Accuracies, accuracies, with_baselines
from .intervals import Estimate, mean_difference, mean_over_seeds


@dataclass(frozen=True)
class Window:
    """The widest island of learning rates that solve; `low` and `high` are its first and last rate,
    NaN where no rate solves.

    `inner` and `outer` are its spans in decades; where the window touches the grid's lowest or
    highest rate, both end there, and it may be wider than either. `islands` counts all islands.
    Where there is none, the best accuracy may lie at an end, higher than all inside.
    """

    low: float
    high: float
    inner: float
    outer: float
    islands: int
    touches_lowest: bool = False
    touches_highest: bool = False

    @property
    def edge(self) -> str:
        return _ends(self.touches_lowest, self.touches_highest)


def _ends(lowest: bool, highest: bool) -> str:
    return "+".join(name for name, touched in (("low", lowest), ("high", highest)) if touched)


def learning_rate_window(
    learning_rates: np.ndarray, accuracy: np.ndarray, solved: float = SOLVED
) -> Window:
    """The window of one curve, whose rates ascend. Of equally wide islands it is the one with the
    best accuracy, then the lowest."""
    x, last = np.log10(learning_rates), len(learning_rates) - 1
    found = list(_islands(np.asarray(accuracy) >= solved))
    if not found:
        step = max((b - a for a, b in pairwise(x)), default=0.0)
        rising = np.max(accuracy) > np.max(accuracy[1:-1], initial=-np.inf) + EDGE_GAIN
        ends = (bool(rising and np.argmax(accuracy) == end) for end in (0, last))
        return Window(np.nan, np.nan, 0.0, step, 0, *ends)
    widths = [round(x[j] - x[i], 9) for i, j in found]
    i, j = max(
        (ends for ends, width in zip(found, widths, strict=True) if width == max(widths)),
        key=lambda ends: np.max(accuracy[ends[0] : ends[1] + 1]),
    )
    outer = x[min(j + 1, last)] - x[max(i - 1, 0)]
    low, high = learning_rates[i], learning_rates[j]
    return Window(low, high, x[j] - x[i], outer, len(found), i == 0, j == last)


def _islands(solves: np.ndarray) -> list[tuple[int, int]]:
    """The first and last index of every stretch of True."""
    changes = np.diff(np.concatenate([[False], solves, [False]]).astype(int))
    starts, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1) - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@dataclass(frozen=True)
class Windows:
    """The windows of one setting: `mean` of the curve of means over seeds, `each` of every seed's
    own curve, by seed, over the rates that it was run at."""

    mean: Window
    each: Mapping[Any, Window]
    best_edge: str

    @property
    def inner(self) -> pd.Series:
        return pd.Series({seed: window.inner for seed, window in self.each.items()})

    @property
    def outer(self) -> pd.Series:
        return pd.Series({seed: window.outer for seed, window in self.each.items()})

    @property
    def decades(self) -> Estimate:
        """The width of a seed's own window in decades: the mean of the middles between inner and
        outer spans, in the interval that these leave."""
        low, high = mean_over_seeds(self.inner).low, mean_over_seeds(self.outer).high
        middle = float((self.inner + self.outer).mean() / 2)
        if any(window.edge for window in self.each.values()) and not np.isnan(high):
            high = np.inf
        return Estimate(middle, low, high).within(0, np.inf)

    @property
    def edge(self) -> str:
        """Which of the grid's ends a window touches, the mean's or a seed's, or the best accuracy
        of a seed that has none; where none has, at which the best rate lies."""
        found = [self.mean, *self.each.values()]
        if not any(window.islands for window in found):
            return self.best_edge
        lowest, highest = (
            any(getattr(x, f"touches_{end}") for x in found) for end in ("lowest", "highest")
        )
        return _ends(lowest, highest)


def windows_of(one: Accuracies, solved: float = SOLVED) -> Windows:
    """The windows of a setting: a seed that was run at one of several rates has none to show."""
    each = {}
    for seed, row in one.table.iterrows():
        known = row.dropna()
        if len(known) < min(2, len(row)):
            continue
        each[seed] = learning_rate_window(known.index.to_numpy(float), known.to_numpy(), solved)
    return Windows(learning_rate_window(one.rates, one.mean, solved), each, one.edge)


def windows(runs: pd.DataFrame, solved: float = SOLVED) -> pd.DataFrame:
    """One row a setting; see `window_numbers`."""
    return pd.DataFrame([one.setting | window_numbers(one, solved) for one in accuracies(runs)])


def window_numbers(one: Accuracies, solved: float = SOLVED) -> dict[str, Any]:
    """Of the window of a setting's mean over seeds `low` and `high` (learning rates), `inner` and
    `outer` (decades) and the number of `islands`; `decades`, the width of a seed's own window, with
    its interval; and at which of the grid's ends a window lies (`edge`)."""
    found = windows_of(one, solved)
    return {
        "lowest_rate": one.rates[0],
        "highest_rate": one.rates[-1],
        "rates": len(one.rates),
        "seeds": one.seeds,
        **{
            name: getattr(found.mean, name) for name in ("low", "high", "inner", "outer", "islands")
        },
        **found.decades.columns("decades"),
        "edge": found.edge,
    }


def window_differences(
    runs: pd.DataFrame, baseline: Mapping[str, object], solved: float = SOLVED
) -> pd.DataFrame:
    """How much wider, in decades, each setting's window is than that of the baseline that differs
    from it only in the columns that `baseline` names, e.g. {"mixer": "attention"}.

    Compared are seeds' own windows, paired where they share two seeds or more. The interval of
    `wider` has room for where between two rates the windows end: from one's inner span less
    the other's outer to the reverse. `verdict` is `wider` or `narrower` where all of it is on one
    side and the narrower window lies inside its grid, else `undecided`. `edge` and `baseline_edge`
    say which of the grid's ends the two touch, as in `windows`.
    """
    rows = []
    for one, other in with_baselines(accuracies(runs), baseline):
        if other is None or other is one:
            continue
        wide, base = windows_of(one, solved), windows_of(other, solved)
        least, pairing = mean_difference(wide.inner, base.outer)
        most, _ = mean_difference(wide.outer, base.inner)
        difference = Estimate((least.value + most.value) / 2, least.low, most.high)
        rows.append(
            {
                **one.setting,
                **{name: getattr(wide.mean, name) for name in ("inner", "outer")},
                "baseline_inner": base.mean.inner,
                "baseline_outer": base.mean.outer,
                "edge": wide.edge,
                "baseline_edge": base.edge,
                **difference.columns("wider"),
                "seeds": pairing.num_seeds,
                "paired": pairing.paired,
                "verdict": _wider(difference, wide.edge, base.edge),
            }
        )
    return pd.DataFrame(rows)


def _wider(difference: Estimate, edge: str, baseline_edge: str) -> str:
    if difference.low > 0 and not baseline_edge:
        return "wider"
    return "narrower" if difference.high < 0 and not edge else "undecided"
