"""Does the precision of training change what is reached: best accuracies, windows of learning
rates, and single rates, each against the reference's.

A difference is within the seed spread where its 95 % interval, of paired seeds, contains 0 or where
it is, of accuracies, at most `EQUAL`. Of two or three seeds such an interval is wide, and that of
windows has room for the steps of the grid: `yes` says that no difference can be told from the
seeds, not that there is none. One that can be told is `SMALLER` where it is at most the larger of
the two ranges over seeds (the highest less the lowest): seeds may differ by more and yet all agree
on it. A window that touches its grid's edge has an end that was not seen, and one seed has no
spread; neither says yes.
"""

import numpy as np
import pandas as pd

from ..columns import PRECISION, RATE
from .accuracy import EQUAL, accuracies, setting_columns, with_baselines
from .intervals import Estimate, mean_difference
from .windows import window_differences, windows_of

SMALLER = "certain but smaller"
"""Of a difference that is certain, and no larger than the range over seeds."""

WORST_FIRST = ("no", "undecided", SMALLER, "yes")
"""What a difference can come to; of several, the first tells of all together."""


def in_all_precisions(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose setting, learning rate and seed were trained in every precision of the
    table, so that curves over equal rates and equal seeds are compared; none of one precision."""
    number = runs[PRECISION].nunique()
    same = [name for name in setting_columns(runs) if name != PRECISION]
    same += [RATE, "seed"]
    trained = runs.groupby(same, dropna=False)[PRECISION].transform("nunique")
    return runs[(trained == number) & (number > 1)]


def precision_differences(runs: pd.DataFrame, reference: str = "fp32") -> pd.DataFrame:
    """One row a setting and precision but the reference, of the runs that were trained in all.

    `accuracy` (held out) and the inner span of a seed's own window (`inner`, in decades), each the
    mean with its range over seeds, the same of the reference, and the difference from it with its
    interval. `edge` says which of the grid's ends a window touches, as in `windows`.
    `largest_difference` is that of the means at the one rate, `largest_rate`, where they are
    furthest apart, `largest_range` the larger range over seeds there. `accuracy_within`,
    `window_within` and, for both together, `within_seed_spread` are one of `WORST_FIRST`.
    Raises ValueError where nothing was trained in the reference's precision.
    """
    runs, baseline = in_all_precisions(runs), {PRECISION: reference}
    if runs.empty:
        return pd.DataFrame()
    pairs = [
        (one, other)
        for one, other in with_baselines(accuracies(runs), baseline)
        if other is not None and other is not one
    ]
    gaps = window_differences(runs, baseline).to_dict("records")
    rows = []
    for (one, other), gap in zip(pairs, gaps, strict=True):
        difference, pairing = mean_difference(one.held_out, other.held_out)
        larger = max(_range(x.held_out) for x in (one, other))
        accuracy = within_spread(difference, larger, equal=EQUAL)
        gap_interval = Estimate(*(gap[f"wider{end}"] for end in ("", "_low", "_high")))
        spans = windows_of(one).inner, windows_of(other).inner
        edges = gap["edge"], gap["baseline_edge"]
        window = within_spread(gap_interval, max(map(_range, spans)))
        window = _unless_unseen(window, gap_interval.value, *edges)
        apart = one.mean - other.mean
        at = int(np.abs(apart).argmax())
        rows.append(
            {
                **one.setting,
                "best_rate": one.rates[one.best],
                **_with_range("accuracy", one.held_out),
                "reference_rate": other.rates[other.best],
                **_with_range("reference_accuracy", other.held_out),
                **difference.columns("accuracy_difference"),
                **_with_range("inner", spans[0]),
                "edge": edges[0],
                **_with_range("reference_inner", spans[1]),
                "reference_edge": edges[1],
                **gap_interval.columns("window_difference"),
                "largest_difference": apart[at],
                "largest_rate": one.rates[at],
                "largest_range": max(_range(x.values[:, at]) for x in (one, other)),
                "rates": len(one.rates),
                "seeds": pairing.num_seeds,
                "accuracy_within": accuracy,
                "window_within": window,
                "within_seed_spread": min(accuracy, window, key=WORST_FIRST.index),
            }
        )
    return pd.DataFrame(rows)


def within_spread(difference: Estimate, larger: float, equal: float = 0) -> str:
    """Whether a difference is within the seed spread, as one of `WORST_FIRST`, given the larger
    range over seeds and what counts as equal; `undecided` where one seed has no spread."""
    if np.isnan(difference.low):
        return "undecided"
    value, low, high = (round(x, 12) for x in difference)  # as means are, so that equal is equal
    if low <= 0 <= high or abs(value) <= equal:
        return "yes"
    return SMALLER if abs(value) <= larger else "no"


def _unless_unseen(within: str, difference: float, edge: str, other: str) -> str:
    """A finding on two windows, but open where the grid's edge may be the reason: equal ones may
    differ beyond it, a small difference may be a large one, and the narrower window may be as wide
    as the other."""
    narrower = edge if difference < 0 else other
    unseen = narrower if within == "no" else edge or other
    return "undecided" if unseen else within


def _range(values: pd.Series | np.ndarray) -> float:
    return round(float(np.ptp(np.asarray(values))), 12)


def _with_range(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_min": values.min(), f"{name}_max": values.max()}
