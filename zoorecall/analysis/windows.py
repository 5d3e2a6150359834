"""Learning-rate windows: where a model solves its task, and how wide that is.

Okpekpe and Orvieto 2025 (arXiv 2508.19029), figure 1, puts accuracy over the logarithm of the
learning rate; a window is the contiguous part of that curve at or above a threshold.

Shape letters: N resamples, P learning rates. A rate's coordinate x is its log10, in decades.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..columns import SOLVED
from .accuracy import Accuracies, accuracies, with_baselines
from .bootstrap import Estimate, estimate, means, pair_seeds


@dataclass(frozen=True)
class Window:
    """The contiguous span of learning rates around the best at or above a threshold.

    `low` and `high` are where the curve, interpolated in the logarithm of the learning rate,
    crosses the threshold; `decades` is log10(high / low), 0 if even the best is below. The window
    may be wider than `decades` says where it touches the grid's lowest or highest rate.
    """

    low: float
    high: float
    decades: float
    touches_lowest: bool
    touches_highest: bool

    @property
    def edge(self) -> str:
        ends = {"low": self.touches_lowest, "high": self.touches_highest}
        return "+".join(name for name, touched in ends.items() if touched)


def learning_rate_window(
    learning_rates: np.ndarray, accuracy: np.ndarray, threshold: float = SOLVED
) -> Window:
    """The window of one curve; the rates ascend, accuracy is the mean over seeds. Of several
    rates that are equally best it lies around the one that makes it widest."""
    x, y = np.log10(learning_rates), np.asarray(accuracy, dtype=float)
    spans = window_spans(x, y[None], threshold)
    low, high = float(spans.low[0]), float(spans.high[0])
    decades = float(spans.decades[0])
    return Window(10**low, 10**high, decades, low == x[0], high == x[-1])


class Spans(NamedTuple):
    """Windows of many curves: ends in log10, NaN and 0 decades where the best is below."""

    low: np.ndarray
    high: np.ndarray
    decades: np.ndarray


def window_spans(x: np.ndarray, y: np.ndarray, threshold: float | np.ndarray) -> Spans:
    """The windows of curves y [N, P] over x [P] at thresholds [N, 1]."""
    solved, points = y >= threshold, np.arange(len(x))
    # of every point: the nearest below the threshold to its left and to its right
    left = np.maximum.accumulate(np.where(solved, -1, points), axis=1)
    right = np.minimum.accumulate(np.where(solved, len(x), points)[:, ::-1], axis=1)[:, ::-1]
    low = _crossings(x, y, threshold, left + 1, left)
    high = _crossings(x, y, threshold, right - 1, right)
    widths = np.where(solved & (y == y.max(axis=1, keepdims=True)), high - low, -1.0)
    best = widths.argmax(axis=1)[:, None]
    low, high, width = (np.take_along_axis(z, best, axis=1)[:, 0] for z in (low, high, widths))
    low, high = (np.where(width >= 0, end, np.nan) for end in (low, high))
    return Spans(low, high, width.clip(0))


def _crossings(
    x: np.ndarray,
    y: np.ndarray,
    threshold: float | np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
) -> np.ndarray:
    """Where the line from a window's last point inside to its neighbour outside meets the
    threshold; the point itself at the grid's end. Points that are in no window get any number."""
    inside, outside = (index.clip(0, len(x) - 1) for index in (inside, outside))
    y_inside, y_outside = (np.take_along_axis(y, index, axis=1) for index in (inside, outside))
    fall = np.where(y_inside > y_outside, y_inside - y_outside, 1.0)
    share = np.where(inside == outside, 0.0, (y_inside - threshold) / fall)
    return x[inside] + share * (x[outside] - x[inside])


def sensitivity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Area under curves y [..., P] over x [P], a decade: the mean accuracy over the grid. Only
    grids that span the same rates can be compared."""
    if len(x) == 1:
        return y[..., 0]
    return np.trapezoid(y, x, axis=-1) / (x[-1] - x[0])


def windows(runs: pd.DataFrame, measure: str = "test_accuracy") -> pd.DataFrame:
    """One row a setting, every number with its interval over seeds; see `window_numbers`."""
    return pd.DataFrame([one.setting | window_numbers(one) for one in accuracies(runs, measure)])


def window_numbers(one: Accuracies) -> dict[str, Any]:
    """What a setting's window comes to.

    `decades` and `centre` (a learning rate) of the window; `half_decades` of the window at half
    the best accuracy; `area`, see `sensitivity`; `solved`, the share of resamples that solve.
    `edge` says at which of the grid's ends the window, or the best accuracy where there is no
    window, lies: the true window may be wider there and its centre elsewhere.
    """
    x, y = np.log10(one.rates), one.resampled()
    spans, half = window_spans(x, y, SOLVED), window_spans(x, y, _half(y))
    half_window = learning_rate_window(one.rates, y[0], float(_half(y)[0, 0]))
    return {
        "lowest_rate": one.rates[0],
        "highest_rate": one.rates[-1],
        "rates": len(one.rates),
        "seeds": one.seeds,
        **estimate(spans.decades, one.seeds).columns("decades"),
        **estimate(10 ** ((spans.low + spans.high) / 2), one.seeds).columns("centre"),
        "solved": np.mean(y[1:].max(axis=1) >= SOLVED) if one.seeds > 1 else np.nan,
        "edge": window_edge(one),
        **estimate(half.decades, one.seeds).columns("half_decades"),
        "half_edge": half_window.edge,
        **estimate(sensitivity(x, y), one.seeds).columns("area"),
    }


def _half(y: np.ndarray) -> np.ndarray:
    """Half the best of curves [N, P], [N, 1]; out of reach for a curve that is 0 everywhere."""
    best = y.max(axis=1, keepdims=True)
    return np.where(best > 0, best / 2, np.inf)


def window_differences(
    runs: pd.DataFrame, baseline: Mapping[str, object], measure: str = "test_accuracy"
) -> pd.DataFrame:
    """How much wider, in decades, each setting's window is than that of the baseline that differs
    from it only in the columns that `baseline` names, e.g. {"mixer": "attention"}.

    `verdict` is `wider` or `narrower` where the whole interval is on one side and the narrower
    window lies inside its grid, where it cannot be wider than measured; else `undecided`. `edge`
    and `baseline_edge` say which of the grid's ends the two windows touch, as in `windows`.
    """
    rows = []
    for one, other in with_baselines(accuracies(runs, measure), baseline):
        if other is None or other is one:
            continue
        pairing = pair_seeds(one.table.index, other.table.index)
        sides = [(one, pairing.first), (other, pairing.second)]
        wide, base = (
            window_spans(np.log10(a.rates), means(w, a.values), SOLVED).decades for a, w in sides
        )
        difference = estimate(wide - base, pairing.num_seeds)
        rows.append(
            {
                **one.setting,
                "decades": wide[0],
                "baseline_decades": base[0],
                "edge": window_edge(one),
                "baseline_edge": window_edge(other),
                **difference.columns("difference"),
                "seeds": pairing.num_seeds,
                "paired": pairing.paired,
                "verdict": _wider(difference, window_edge(one), window_edge(other)),
            }
        )
    return pd.DataFrame(rows)


def window_edge(one: Accuracies) -> str:
    """Which of the grid's ends a setting's window touches; without a window, its best rate."""
    window = learning_rate_window(one.rates, one.mean)
    return one.edge if np.isnan(window.low) else window.edge


def _wider(difference: Estimate, edge: str, baseline_edge: str) -> str:
    if difference.low > 0 and not baseline_edge:
        return "wider"
    return "narrower" if difference.high < 0 and not edge else "undecided"
