"""Accuracy against the learning rate (Okpekpe and Orvieto 2025, arXiv 2508.19029, figure 1)."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.accuracy import setting_columns
from ..analysis.sparse_grids import ZOOLOGY_RATES
from ..analysis.windows import by_learning_rate
from .style import (
    GRAY,
    LARGE,
    Look,
    accuracy_axis,
    band,
    legend,
    mixer_handles,
    mixer_looks,
    panel_title,
    panels,
)

PRECISIONS = {"bf16": ("-", "o"), "tf32": (":", "^"), "fp32": ("--", "s")}
"""Line and marker of each."""


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


def accuracy_by_precision(runs: pd.DataFrame) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a line a precision of training, the
    mean over seeds with their range shaded; fp32 is gray and hollow, and on top."""
    keys = [name for name in setting_columns(runs) if name != "train.precision"]
    settings = list(runs.groupby(keys, sort=True, dropna=False))
    mixers = mixer_looks(runs["mixer"])
    columns = min(3, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure, axes = panels(rows, columns, 4.0, 2.7, sharex=True, sharey=True)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, (key, panel) in zip(axes.flat, settings, strict=False):
        for precision, runs_of_line in panel.groupby("train.precision"):
            line = by_learning_rate(runs_of_line)
            look = _precision_look(str(precision), mixers[str(key[0])].color)
            rates = line["train.learning_rate"]
            axis.plot(rates, line["mean"], **look.line, markerfacecolor=_face(look))
            band(axis, rates, line["min"], line["max"], look)
        setting = dict(zip(keys[1:], key[1:], strict=True))
        axis.set_title(f"{key[0]}\n{panel_title(setting)}", fontsize=LARGE)
        axis.set_xscale("log")
        accuracy_axis(axis)
    figure.supxlabel("learning rate", fontsize=LARGE)
    figure.supylabel("test accuracy", fontsize=LARGE)
    looks = {name: _precision_look(name, "black") for name in sorted(set(runs["train.precision"]))}
    lines = {x: Line2D([], [], **y.line, markerfacecolor=_face(y)) for x, y in looks.items()}
    legend(figure, lines)
    return figure


def _precision_look(precision: str, color: str) -> Look:
    linestyle, marker = PRECISIONS[precision]
    return Look(GRAY if precision == "fp32" else color, marker, linestyle)


def _face(look: Look) -> str:
    return "none" if look.color == GRAY else look.color
