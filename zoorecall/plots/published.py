"""Accuracies of runs beside those that a paper has published, against width."""

import itertools
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from .. import words
from ..columns import DEPTH, LENGTH, MIXER, WIDTH, name
from . import style
from .style import GRAY, Look, accuracy_axis, labels, legend, mixer_looks, panels, size_axis

PUBLISHED = Look(GRAY, "X", ":", full=True)


def accuracy_beside_published(
    runs: pd.DataFrame, table: pd.DataFrame, variant: str, width: float = style.WIDTH
) -> Figure:
    """A row of panels a length, a panel a mixer of `runs`: the published points, and of the same
    `table` (see `claims.arora2023`) a line for each depth and value of the column `variant`, with a
    bar from the least to the most of the seeds."""
    looks, names = mixer_looks(runs), words.mixer_names(runs)
    places = [
        (length, mixer)
        for length, of_length in table.groupby(LENGTH)
        for mixer in of_length[MIXER].unique()
    ]
    titles = [f"{names[mixer]}, length {length}" for length, mixer in places]
    columns = table[MIXER].nunique()
    figure, axes = panels(titles, columns, 1.0, width, sharex=True, sharey=True)
    run = table.dropna(subset=[DEPTH])
    depths, values = (sorted(run[column].unique()) for column in (DEPTH, variant))

    def look(color: str, depth: int, value: Any) -> Look:
        marker, line = "os^v"[depths.index(depth)], style.LINES[depths.index(depth)]
        return Look(color, marker, line, full=value != values[0])

    for axis, (length, mixer) in zip(axes, places, strict=True):
        panel = table[(table[LENGTH] == length) & (table[MIXER] == mixer)]
        points = panel.drop_duplicates(WIDTH)
        axis.plot(points[WIDTH], points["published"], **{**PUBLISHED.line, **PUBLISHED.seeds})
        for depth, value in itertools.product(depths, values):
            rows = panel[(panel[DEPTH] == depth) & (panel[variant] == value)]
            of_line = look(looks[mixer].color, depth, value)
            axis.plot(rows[WIDTH], rows["accuracy"], **{**of_line.line, **of_line.seeds})
            axis.vlines(rows[WIDTH], rows["least"], rows["most"], of_line.color, linewidth=1)
        size_axis(axis, points[WIDTH])
        accuracy_axis(axis)
    shown: dict[str, Artist] = {"published": PUBLISHED.handle}
    for depth, value in itertools.product(depths, values):
        text = f"{words.count(int(depth), 'layer')}, {name(variant)} {value}"
        shown[text] = look("black", depth, value).handle
    several = "mean over seeds, a bar from the least to the most"
    seeds = style.seeds_said(runs) if runs["seed"].nunique() == 1 else several
    labels(figure, "width", "test accuracy", f"at each seed's best learning rate; {seeds}")
    legend(figure, shown)
    return figure
