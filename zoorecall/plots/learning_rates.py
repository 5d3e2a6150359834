"""Accuracy against the learning rate (Okpekpe and Orvieto 2025, arXiv 2508.19029, figure 1)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import words
from ..analysis.accuracy import by_learning_rate, setting_columns
from ..analysis.sparse_grids import ZOOLOGY_RATES
from ..columns import MIXER, PRECISION, RATE
from .style import (
    GRAY,
    LARGE,
    Look,
    accuracy_axis,
    broken,
    legend,
    mixer_handles,
    mixer_looks,
    panels,
    rows_and_columns,
    seed_dots,
)

PRECISIONS = {"bf16": ("-", "o"), "tf32": (":", "^"), "fp32": ("--", "s")}
"""Line and marker of each."""

THROUGH = {"linewidth": 1.0, "alpha": 0.7, "markersize": 3.5}
"""How a line through means is drawn, thinner than the seeds are visible."""


def accuracy_by_learning_rate(runs: pd.DataFrame) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a dot a seed, a line a mixer through
    the means of its seeds; dashed are Zoology's four rates."""
    looks, keys = mixer_looks(runs), setting_columns(runs)
    figure, each = _panel_each(by_learning_rate(runs, keys), keys[1:])
    for axis, setting, panel in each:
        for rate in ZOOLOGY_RATES:
            axis.axvline(rate, color="0.6", linestyle="--", linewidth=0.9, zorder=0)
        for mixer, line in panel.groupby(MIXER):
            rates = line[RATE]
            axis.plot(rates, line["mean"], **{**looks[str(mixer)].line, **THROUGH})
            seed_dots(axis, rates, line["each"], looks[str(mixer)])
        _finish(axis, words.setting(setting))
    figure.supxlabel("learning rate (dashed: Zoology's four); a dot is a seed", fontsize=LARGE)
    legend(figure, mixer_handles(looks))
    return figure


def accuracy_by_precision(runs: pd.DataFrame) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a dot a seed, a line a precision of
    training through the means of its seeds; fp32 is gray, and on top."""
    keys = [name for name in setting_columns(runs) if name != PRECISION]
    mixers = mixer_looks(runs)
    figure, each = _panel_each(runs, keys)
    for axis, setting, panel in each:
        mixer = str(setting.pop(MIXER))
        for precision, runs_of_line in panel.groupby(PRECISION):
            line = by_learning_rate(runs_of_line)
            look = _precision_look(str(precision), mixers[mixer].color)
            rates = line[RATE]
            axis.plot(rates, line["mean"], **{**look.line, **THROUGH}, markerfacecolor=_face(look))
            seed_dots(axis, rates, line["each"], look)
        _finish(axis, f"{mixer}\n{words.setting(setting)}")
    figure.supxlabel("learning rate; a dot is a seed", fontsize=LARGE)
    looks = {name: _precision_look(name, "black") for name in sorted(set(runs[PRECISION]))}
    lines = {x: Line2D([], [], **y.line, markerfacecolor=_face(y)) for x, y in looks.items()}
    legend(figure, lines)
    return figure


def _panel_each(
    table: pd.DataFrame, keys: list[str]
) -> tuple[Figure, list[tuple[Axes, dict[str, object], pd.DataFrame]]]:
    """A figure with a panel for each setting that `keys` tell apart; of each panel its axes, its
    setting and its rows."""
    settings = list(table.groupby(keys, sort=True, dropna=False))
    rows, columns = rows_and_columns(len(settings))
    figure, axes = panels(rows, columns, 4.0, 2.7, sharex=True, sharey=True)
    figure.supylabel("test accuracy", fontsize=LARGE)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis in axes.flat[: len(settings)][-columns:]:  # those with none below
        axis.tick_params(labelbottom=True)
    named = [(dict(zip(keys, key, strict=True)), panel) for key, panel in settings]
    return figure, [(axis, *one) for axis, one in zip(axes.flat, named, strict=False)]


def _finish(axis: Axes, title: str) -> None:
    """After the lines, as a logarithmic axis wants to know its numbers."""
    axis.set_title(broken(title), fontsize=LARGE)
    axis.set_xscale("log")
    accuracy_axis(axis)


def _precision_look(precision: str, color: str) -> Look:
    linestyle, marker = PRECISIONS[precision]
    return Look(GRAY if precision == "fp32" else color, marker, linestyle)


def _face(look: Look) -> str:
    return "none" if look.color == GRAY else look.color
