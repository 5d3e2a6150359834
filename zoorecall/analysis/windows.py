"""Learning-rate windows: where a model solves its task, and how wide that is.

Okpekpe and Orvieto 2025 (arXiv 2508.19029), figure 1, puts accuracy over the logarithm of the
learning rate; a window is the contiguous part of that curve at or above a threshold.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

SOLVED = 0.95
"""The accuracy from which the papers call a task solved."""

NOT_A_SETTING = ("train.learning_rate", "seed")
CONFIG_PREFIXES = ("task.", "model.", "train.")


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


def learning_rate_window(
    learning_rates: np.ndarray, accuracies: np.ndarray, threshold: float = SOLVED
) -> Window:
    """The window of one curve; the rates ascend, accuracies are means over seeds."""
    x, y = np.log10(learning_rates), np.asarray(accuracies, dtype=float)
    best = int(np.argmax(y))
    if y[best] < threshold:
        return Window(math.nan, math.nan, 0.0, False, False)
    first = last = best
    while first > 0 and y[first - 1] >= threshold:
        first -= 1
    while last < len(y) - 1 and y[last + 1] >= threshold:
        last += 1
    low, high = (_crossing(x, y, i, j, threshold) for i, j in ((first, first - 1), (last, last + 1)))
    return Window(10**low, 10**high, high - low, first == 0, last == len(y) - 1)


def _crossing(x: np.ndarray, y: np.ndarray, inside: int, outside: int, threshold: float) -> float:
    """Where the line between a point in the window and its neighbour outside meets the threshold."""
    if not 0 <= outside < len(x):
        return float(x[inside])
    share = (y[inside] - threshold) / (y[inside] - y[outside])
    return float(x[inside] + share * (x[outside] - x[inside]))


def setting_columns(runs: pd.DataFrame) -> list[str]:
    """The columns that tell one setting from another: mixer, layers, width, length, and whatever
    else of the configs still varies between runs that agree on these (learning rate and seed
    aside): not the batch size that goes with a length, nor the positions that go with a mixer."""
    always = ["mixer", "model.num_layers", "model.d_model", "task.seq_len"]
    others = [
        name
        for name in runs
        if name.startswith(CONFIG_PREFIXES)
        and name not in (*always, *NOT_A_SETTING)
        and not name.startswith("model.mixer.")
    ]
    values = runs[others].astype(str)
    varies = values.groupby([runs[name] for name in always]).nunique().max() > 1
    return always + [name for name in others if varies[name]]


def by_learning_rate(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every setting at every learning rate: mean, min and max over seeds."""
    keys = [*setting_columns(runs), "train.learning_rate"]
    accuracy = runs.groupby(keys, sort=True, dropna=False)["test_accuracy"]
    return accuracy.agg(["mean", "min", "max", "count"]).reset_index()


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: best learning rate, accuracy over seeds there, window, state size.

    The best learning rate has the highest mean accuracy over seeds, the lower of two equals.
    `edge` says where a window touches the grid's end, so that it may be wider than measured.
    """
    keys = setting_columns(runs)
    rates, rows = by_learning_rate(runs), []
    sizes = runs.groupby(keys, dropna=False)["state_size"].first()
    diverged = runs.groupby(keys, dropna=False)["diverged_at"].count()
    for key, curve in rates.groupby(keys, sort=False, dropna=False):
        best = curve.loc[curve["mean"].idxmax()]
        window = learning_rate_window(
            curve["train.learning_rate"].to_numpy(), curve["mean"].to_numpy()
        )
        touches = ["low"] * window.touches_lowest + ["high"] * window.touches_highest
        rows.append(
            {
                **{_short(name): value for name, value in zip(keys, key, strict=True)},
                "best learning rate": best["train.learning_rate"],
                "accuracy": best["mean"],
                "min": best["min"],
                "max": best["max"],
                "window": window.decades,
                "edge": "+".join(touches),
                "rates": len(curve),
                "seeds": int(best["count"]),
                "diverged": int(diverged[key]),
                "state size": int(sizes[key]),
            }
        )
    return pd.DataFrame(rows)


def _short(column: str) -> str:
    names = {"model.num_layers": "layers", "model.d_model": "width", "task.seq_len": "length"}
    return names.get(column, column)
