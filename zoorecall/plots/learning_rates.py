"""Accuracy against the learning rate (Okpekpe and Orvieto 2025, arXiv 2508.19029, figure 1)."""

import math

import pandas as pd
from matplotlib.figure import Figure

from ..analysis.accuracy import setting_columns
from ..analysis.sparse_grids import ZOOLOGY_RATES
from ..analysis.windows import by_learning_rate
from .style import (
    LARGE,
    accuracy_axis,
    band,
    legend,
    mixer_handles,
    mixer_looks,
    panel_title,
    panels,
)


def accuracy_by_learning_rate(runs: pd.DataFrame) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a line a mixer, the mean over seeds
    with their range shaded; dashed are Zoology's four rates."""
    curves, keys = by_learning_rate(runs), setting_columns(runs)[1:]
    settings = list(curves.groupby(keys, sort=True, dropna=False))
    looks = mixer_looks(runs["mixer"])
    columns = min(3, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure, axes = panels(rows, columns, 4.0, 2.7, sharex=True, sharey=True)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, (key, panel) in zip(axes.flat, settings, strict=False):
        for rate in ZOOLOGY_RATES:
            axis.axvline(rate, color="0.6", linestyle="--", linewidth=0.9, zorder=0)
        for mixer, line in panel.groupby("mixer"):
            rates = line["train.learning_rate"]
            axis.plot(rates, line["mean"], **looks[str(mixer)].line)
            band(axis, rates, line["min"], line["max"], looks[str(mixer)])
        axis.set_title(panel_title(dict(zip(keys, key, strict=True))), fontsize=LARGE)
        axis.set_xscale("log")
        accuracy_axis(axis)
    figure.supxlabel("learning rate (dashed: Zoology's four)", fontsize=LARGE)
    figure.supylabel("test accuracy", fontsize=LARGE)
    legend(figure, mixer_handles(looks))
    return figure
