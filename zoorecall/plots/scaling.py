"""Accuracy against width, parameters and state size (Okpekpe and Orvieto 2025, arXiv 2508.19029,
figures 2 to 4), each seed at the learning rate that is best for the others, one seed at its own: a
mark a seed, a line through their means."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import words
from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.sparse_grids import ZOOLOGY_RATES, reported
from ..columns import DEPTH, MIXER, RATE, WIDTH
from ..errors import UserError
from ..words import mixer_names
from . import style
from .style import (
    GRAY,
    LINES,
    Look,
    accuracy_axis,
    chosen,
    fitting,
    labels,
    legend,
    mixer_handles,
    mixer_looks,
    panels,
    places,
    seeds_said,
    size_axis,
    with_seeds,
)

SPARSE = Look(GRAY, "x", "--")


def accuracy_by_width(
    runs: pd.DataFrame,
    sparse_rates: Sequence[float] = ZOOLOGY_RATES,
    width: float = style.WIDTH,
) -> Figure:
    """Accuracy against width, a panel a mixer, depth and length: at the best of all learning rates
    trained, and at the best of `sparse_rates` alone."""
    looks, interpolated = mixer_looks(runs), False

    def draw(axis: Axes, of_panel: pd.DataFrame) -> None:
        nonlocal interpolated
        look = looks[of_panel[MIXER].iloc[0]]
        _line(axis, best_accuracies(of_panel), WIDTH, Look(look.color, "o", "-"))
        sparse = reported(of_panel, sparse_rates)
        if len(sparse):
            interpolated |= bool(sparse["interpolated"].any())
            _line(axis, sparse, WIDTH, SPARSE)

    figure = _panel_each(runs, (WIDTH,), WIDTH, "width", draw, width)
    zoology = tuple(sparse_rates) == ZOOLOGY_RATES
    of_sparse = "best of Zoology's four" if zoology else f"best of {len(sparse_rates)}"
    of_sparse += " (interpolated)" if interpolated else ""
    full = Look("black", "o", "-")
    legend(figure, {"best of all learning rates": full.handle, of_sparse: SPARSE.handle})
    return figure


def accuracy_by_depth(runs: pd.DataFrame, width: float = style.WIDTH) -> Figure:
    """Accuracy against the number of layers, a panel a mixer, width and length."""
    looks = mixer_looks(runs)

    def draw(axis: Axes, of_panel: pd.DataFrame) -> None:
        look = replace(looks[of_panel[MIXER].iloc[0]], marker="o", linestyle="-")
        _line(axis, best_accuracies(of_panel), DEPTH, look)

    return _panel_each(runs, (DEPTH,), DEPTH, "layers", draw, width)


def accuracy_by_parameters(runs: pd.DataFrame, width: float = style.WIDTH) -> Figure:
    """Accuracy against parameters, a panel a mixer and length: a line a depth, through its
    widths."""
    mixers, depths = mixer_looks(runs), _depth_looks(runs)

    def draw(axis: Axes, of_panel: pd.DataFrame) -> None:
        color = mixers[of_panel[MIXER].iloc[0]].color
        for depth, line in best_accuracies(of_panel).groupby(DEPTH):
            _line(axis, line, "parameters", replace(depths[depth], color=color))

    figure = _panel_each(runs, (WIDTH, DEPTH), "parameters", "parameters", draw, width)
    legend(figure, _depth_handles(depths))
    return figure


def accuracy_by_state_size(runs: pd.DataFrame, width: float = style.WIDTH) -> Figure:
    """Accuracy against the numbers carried from one position to the next: a panel a length, a
    line a mixer and depth, through its widths. Raises UserError where no mixer tells its state."""
    looks, depths, names = mixer_looks(runs), _depth_looks(runs), mixer_names(runs)
    told = runs[runs["state_size"].notna()].astype({"state_size": "int64"})
    if told.empty:
        raise UserError("state_size: none of these mixers tells the size of its state")

    def draw(axis: Axes, of_panel: pd.DataFrame) -> None:
        for (mixer, depth), line in best_accuracies(of_panel).groupby([MIXER, DEPTH]):
            look = replace(
                depths[depth], color=looks[str(mixer)].color, marker=looks[str(mixer)].marker
            )
            _line(axis, line, "state_size", look)

    untold = [names[mixer] for mixer in looks if mixer not in set(told[MIXER])]
    without = f" (not known of {words.listing(untold)})" if untold else ""
    label = f"state size: numbers kept for one sequence{without}"
    figure = _panel_each(told, (MIXER, WIDTH, DEPTH), "state_size", label, draw, width, least=2.2)
    known = {mixer: look for mixer, look in looks.items() if mixer in set(told[MIXER])}
    marks = {mixer: replace(look, linestyle="") for mixer, look in known.items()}
    legend(figure, {**mixer_handles(marks, names), **_depth_handles(depths)})
    return figure


def _panel_each(
    runs: pd.DataFrame,
    without: Sequence[str],
    column: str,
    label: str,
    draw: Callable[[Axes, pd.DataFrame], None],
    width: float,
    least: float = 1.2,
) -> Figure:
    """A panel for each setting but for the columns `without`, drawn from its runs, with the sizes
    of `column` to the right."""
    shared, settings = places(runs, without)
    columns = fitting(len(settings), width, least)
    if MIXER not in without and runs[MIXER].nunique() <= (width - style.MARGIN) // least:
        columns = min(len(settings), runs[MIXER].nunique())
    titles = [one.told for one in settings]
    height = 1.0 if columns > 2 else 1.6
    figure, axes = panels(titles, columns, height, width, sharex=True, sharey=True)
    for axis, one in zip(axes, settings, strict=True):
        draw(axis, one.runs)
        size_axis(axis, runs[column])
        accuracy_axis(axis)
    accuracy, by = chosen(runs, [*setting_columns(runs), RATE])
    labels(figure, label, accuracy, shared, seeds_said(runs), by)
    return figure


def _line(axis: Axes, table: pd.DataFrame, column: str, look: Look) -> None:
    table = table.sort_values([column, WIDTH])
    with_seeds(axis, table[column], table["accuracy"], table["each"], look)


def _depth_looks(runs: pd.DataFrame) -> dict[Any, Look]:
    """The line of each depth, the deepest solid; only its marks are full."""
    depths = sorted(runs[DEPTH].unique(), reverse=True)
    marks = zip(depths, itertools.cycle("osD^"), itertools.cycle(LINES), strict=False)
    return {
        depth: Look("black", marker, line, full=depth == depths[0])
        for depth, marker, line in reversed([*marks])
    }


def _depth_handles(depths: dict[Any, Look]) -> dict[str, Artist]:
    return {words.setting({DEPTH: depth}): look.handle for depth, look in depths.items()}
