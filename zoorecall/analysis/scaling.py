"""Scaling: what a model gains from width, from depth, from parameters and from state.

Okpekpe and Orvieto 2025 (arXiv 2508.19029), figures 2 to 4. Accuracy is always that at the best
learning rate, held out (`best_accuracies`, whose columns `parameters` and `state_size` are two of
the axes); a gain is a difference from the smallest model, with its t interval over seeds.
"""

import pandas as pd

from ..columns import DEPTH, SOLVED, WIDTH
from .accuracy import Accuracies, accuracies, best_accuracies, setting_columns
from .intervals import mean_difference


def along_width(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy against width at fixed depth; see `along`."""
    return along(runs, WIDTH)


def along_depth(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy against depth at fixed width; see `along`."""
    return along(runs, DEPTH)


def along(runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    """One row a setting: its accuracy, and its gain over the setting with the smallest value of
    `axis` and all else equal, each with its t interval.

    Raises ValueError where `axis` is not a column that tells settings apart.
    """
    if axis not in setting_columns(runs):
        raise ValueError(f"these runs do not vary in {axis}")
    smallest: dict[tuple[object, ...], Accuracies] = {}
    rows = []
    for one in accuracies(runs):  # in ascending order of every column
        rest = tuple(value for key, value in one.setting.items() if key != axis)
        gain, pairing = mean_difference(one.held_out, smallest.setdefault(rest, one).held_out)
        rows.append(
            {
                **one.setting,
                "edge": one.edge,
                **one.accuracy.columns("accuracy"),
                **gain.within(-1, 1).columns("gain"),
                "seeds": pairing.num_seeds,
                "parameters": one.parameters,
                "state_size": one.state_size,
            }
        )
    return pd.DataFrame(rows)


def whole_gains(runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    """One row for each series of settings that differ only in `axis`: what the largest gains over
    the smallest; see `along`.

    `first` is the smallest value of `axis`, `first_accuracy` the accuracy there. Where the best
    learning rate lies at the grid's edge, the true gain may be smaller (`first_edge`, that of the
    smallest) or larger (`edge`, that of the largest).
    """
    table, rows = along(runs, axis), []
    for _, group in table.groupby([x for x in setting_columns(runs) if x != axis], dropna=False):
        first, last = group.iloc[0].to_dict(), group.iloc[-1].to_dict()
        if len(group) > 1:
            begin = {"first": first[axis]}
            begin |= {f"first_{name}": first[name] for name in ("accuracy", "edge")}
            rows.append(last | begin)
    return pd.DataFrame(rows, columns=[*table, "first", "first_accuracy", "first_edge"])


def smallest_widths(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each mixer, depth, length (and what else varies): the smallest width that solves
    the task by its held-out accuracy, NaN where none does.

    It lies between `width_low`, the smallest that seeds and learning rates do not rule out, as one
    seed never does, and `width_high`, the smallest that surely solves; these are NaN where there is
    none, or no width has more than one seed. `narrowest` and `widest` are those tried, `relapses`
    counts the ones wider than `width` that fail.
    """
    best, rows = best_accuracies(runs), []
    keys = [name for name in setting_columns(runs) if name != WIDTH]
    for key, group in best.groupby(keys, dropna=False):
        widths, accuracy, verdict = group[WIDTH], group["accuracy"], group["verdict"]
        width = widths[accuracy >= SOLVED].min()
        possible = (verdict != "does not solve") & (group["seeds"].max() > 1)
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "width": width,
                "width_low": widths[possible].min(),
                "width_high": widths[verdict == "solves"].min(),
                "narrowest": widths.min(),
                "widest": widths.max(),
                "relapses": int((accuracy[widths > width] < SOLVED).sum()),
                "seeds": int(group["seeds"].min()),
            }
        )
    return pd.DataFrame(rows)
