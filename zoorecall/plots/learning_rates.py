"""Accuracy against the learning rate (Okpekpe and Orvieto 2025, arXiv 2508.19029, figure 1)."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.accuracy import by_learning_rate
from ..analysis.sparse_grids import ZOOLOGY_RATES
from ..columns import MIXER, PRECISION, RATE
from ..words import mixer_names
from .style import (
    GRAY,
    LINES,
    MARKERS,
    WIDTH,
    Look,
    accuracy_axis,
    fitting,
    labels,
    legend,
    mixer_handles,
    mixer_looks,
    panels,
    places,
    rate_axis,
    seeds_said,
    with_seeds,
)

TOGETHER = 4
"""The most lines of a panel; of more, the seeds cannot be told apart."""

PRECISIONS = {"bf16": ("-", "o"), "tf32": (":", "^"), "fp32": ("--", "s")}
"""Line and marker of each."""

Panel = tuple[str, list[tuple[Look, pd.DataFrame]]]
"""A title, and the look and the runs of each line."""


def accuracy_by_learning_rate(runs: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Test accuracy against learning rate, a line through the means of the seeds and a mark a seed:
    a panel a setting with a line a mixer; of many mixers a panel each with a line a setting; of
    many settings of many mixers a panel for each of both. Zoology's four rates are dashed where
    they lie within those trained."""
    looks, names = mixer_looks(runs), mixer_names(runs)
    shared, settings = places(runs, without=(MIXER,))
    handles: dict[str, Artist] = {}
    if len(looks) <= TOGETHER:
        each: list[Panel] = [
            (one.told, [(looks[str(mixer)], group) for mixer, group in one.runs.groupby(MIXER)])
            for one in settings
        ]
        handles = mixer_handles(looks, names)
    elif len(settings) <= TOGETHER:
        each = [
            (
                names[mixer],
                [
                    (_as(look, number), one.runs[one.runs[MIXER] == mixer])
                    for number, one in enumerate(settings)
                    if mixer in set(one.runs[MIXER])
                ],
            )
            for mixer, look in looks.items()
        ]
        handles = {one.told: _as(Look("black", "", ""), i).handle for i, one in enumerate(settings)}
    else:
        shared, settings = places(runs)
        each = [(one.told, [(looks[one.values[MIXER]], one.runs)]) for one in settings]
    trained = runs[RATE].min() * 0.99, runs[RATE].max() * 1.01
    zoology = [rate for rate in ZOOLOGY_RATES if trained[0] <= rate <= trained[1]]
    if zoology:
        handles["Zoology's learning rates"] = Line2D([], [], color="0.6", linestyle="--")
    figure = _drawn(each, zoology, width, [shared, seeds_said(runs)])
    legend(figure, handles)
    return figure


def accuracy_by_precision(runs: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a mark a seed, a line a precision of
    training through the means of its seeds; fp32 is gray, and on top."""
    mixers = mixer_looks(runs)
    shared, settings = places(runs, without=(PRECISION,))
    each = [
        (
            one.told,
            [
                (_precision_look(str(precision), mixers[one.values[MIXER]].color), group)
                for precision, group in one.runs.groupby(PRECISION)
            ],
        )
        for one in settings
    ]
    figure = _drawn(each, (), width, [shared, seeds_said(runs)])
    looks = {name: _precision_look(name, "black") for name in sorted(set(runs[PRECISION]))}
    legend(figure, {name: look.handle for name, look in looks.items()})
    return figure


def _drawn(
    each: Sequence[Panel], dashed: Sequence[float], width: float, notes: list[str]
) -> Figure:
    """The panels of a figure, with rates that are dashed in all of them."""
    columns = fitting(len(each), width, 1.2 if len(each) > 6 else 1.6)
    titles = [title for title, _ in each]
    height = 1.0 if columns > 2 else 1.6
    figure, axes = panels(titles, columns, height, width, sharex=True, sharey=True)
    rates = [rate for _, lines in each for _, runs in lines for rate in runs[RATE]]
    for axis, (_, lines) in zip(axes, each, strict=True):
        for rate in dashed:
            axis.axvline(rate, color="0.6", linestyle="--", linewidth=0.7, zorder=0)
        for look, runs in lines:
            line = by_learning_rate(runs)
            with_seeds(axis, line[RATE], line["mean"], line["each"], look)
        rate_axis(axis, rates)
        accuracy_axis(axis)
    labels(figure, "learning rate", "test accuracy", *notes)
    return figure


def _as(look: Look, number: int) -> Look:
    """A mixer's look in one of several settings."""
    return Look(look.color, MARKERS[number], LINES[number])


def _precision_look(precision: str, color: str) -> Look:
    linestyle, marker = PRECISIONS[precision]
    return Look(GRAY if precision == "fp32" else color, marker, linestyle)
