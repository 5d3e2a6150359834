"""What became of the runs: which solve, and in which way the others do not."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.outcomes import outcomes
from ..columns import MIXER, RATE, RUN_ID, SEED
from ..words import mixer_names
from .style import LETTER, SMALL, WIDTH, fitting, labels, legend, panels, places, rate_axis

MARKS = {
    "solved": ("#BBBBBB", "s"),
    "fell back": ("#CC79A7", "v"),
    "fits only": ("#0072B2", "o"),
    "undertrained": ("#E69F00", "^"),
    "does not fit": ("#D55E00", "X"),
    "fit unknown": ("#56B4E9", "d"),
    "diverged": ("#000000", "*"),
}
"""Colour and marker of each of `analysis.outcomes.KINDS`."""


def what_runs_came_to(runs: pd.DataFrame, curves: pd.DataFrame, width: float = WIDTH) -> Figure:
    """The outcome of every run, see `analysis.outcomes`: a panel a setting, a row a mixer, a mark a
    seed at its learning rate."""
    kinds, names = outcomes(runs, curves), mixer_names(runs)
    runs = runs.assign(outcome=runs[RUN_ID].map(kinds))
    rows = {mixer: len(names) - 1 - i for i, mixer in enumerate(names)}
    seeds = sorted(runs[SEED].unique())
    spread = np.linspace(0.3, -0.3, len(seeds)) if len(seeds) > 1 else np.zeros(1)
    height_of = dict(zip(seeds, spread, strict=True))
    shared, settings = places(runs, without=(MIXER,))
    names_wide = LETTER * max(map(len, names.values()))
    columns = fitting(len(settings), width - names_wide, 1.5)
    titles = [one.told for one in settings]
    height = 0.3 + 0.26 * len(names)
    figure, axes = panels(titles, columns, height, width, sharex=True, sharey=True)
    size = min(3.6, 14 / len(seeds))
    for axis, one in zip(axes, settings, strict=True):
        for kind, group in one.runs.groupby("outcome"):
            color, marker = MARKS[str(kind)]
            y = group[MIXER].map(rows) + group[SEED].map(height_of)
            axis.plot(group[RATE], y, linestyle="", color=color, marker=marker, markersize=size)
        rate_axis(axis, runs[RATE])
        axis.set_ylim(-0.5, len(names) - 0.5)
        axis.set_yticks(list(rows.values()), list(names.values()), fontsize=SMALL)
    note = "one seed" if len(seeds) == 1 else "a mark is a run, its seeds one below the other"
    labels(figure, "learning rate", "", shared, note)
    handles = {
        kind: Line2D([], [], linestyle="", color=color, marker=marker, markersize=4)
        for kind, (color, marker) in MARKS.items()
        if kind in set(runs["outcome"])
    }
    legend(figure, handles)
    return figure
