"""What searches of the learning rate found and spent, beside the whole grid."""

import pandas as pd
from matplotlib.figure import Figure

from ..columns import DEPTH, MIXER
from ..words import MIXERS
from .style import LARGE, NORMAL, SMALL, WIDTH

ROW = 0.17
"""Inches."""


def found_and_spent(searches: pd.DataFrame, width: float = WIDTH) -> Figure:
    """A row a setting, a panel a sampler with its pruner. Bars are the window of all runs, from the
    first to the last rate that solves, and in light gray to the failing rates on either side;
    lines are the windows that the searches found, a line a search, crosses the best rates."""
    keys = searches[[MIXER, DEPTH]].drop_duplicates().sort_values([MIXER, DEPTH])
    rows = {key: i for i, key in enumerate(keys.itertuples(index=False, name=None))}
    panels = [*searches.groupby(["sampler", "pruner"], sort=False)]
    figure = Figure(figsize=(width, 0.9 + ROW * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (names, found) in zip(axes, panels, strict=True):
        share = found["steps"].mean()
        axis.set_title(f"{' + '.join(map(str, names))}\n{share:.0%} of the steps", fontsize=NORMAL)
        for key, group in found.groupby([MIXER, DEPTH]):
            y, first = rows[key], group.iloc[0]
            for ends, color in (
                (("dense_below", "dense_above"), "0.9"),
                (("dense_low", "dense_high"), "0.72"),
            ):
                low, high = first[list(ends)]
                axis.plot([low, high], [y, y], color=color, linewidth=8, solid_capstyle="butt")
            for i, one in enumerate(group.to_dict("records")):
                at = y + 0.25 * (i - (len(group) - 1) / 2)
                axis.plot([one["low"], one["high"]], [at, at], color="#0072B2", linewidth=1)
                axis.plot(one["best_rate"], at, "x", color="#D55E00", markersize=3)
        axis.set_xscale("log")
        axis.tick_params(labelsize=SMALL)
        axis.grid(axis="x", color="0.93", linewidth=0.5)
    axes[0].set_yticks([*rows.values()], [f"{MIXERS.get(m, m)}, {n}" for m, n in rows])
    axes[0].invert_yaxis()
    figure.supxlabel("learning rate", fontsize=LARGE)
    return figure
