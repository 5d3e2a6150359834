"""Accuracy against width, parameters and state size (Okpekpe and Orvieto 2025, arXiv 2508.19029,
figures 2 to 4), each held out at the best learning rate; bands are 95 % t intervals over seeds."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import words
from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.sparse_grids import ZOOLOGY_RATES, reported
from ..columns import DEPTH, MIXER, WIDTH, short_labels
from .style import (
    GRAY,
    LARGE,
    NORMAL,
    Look,
    accuracy_axis,
    band,
    legend,
    mixer_handles,
    mixer_looks,
    panels,
    rows_and_columns,
    size_axis,
)

SPARSE = Look(GRAY, "o", "--")
ACCURACY = "test accuracy, 95 % t interval"


def accuracy_by_width(runs: pd.DataFrame, sparse_rates: Sequence[float] = ZOOLOGY_RATES) -> Figure:
    """Accuracy against width, a column of panels a mixer, a row a depth and length: at the best
    of all learning rates trained, and at the best of `sparse_rates` alone."""
    names = [name for name in setting_columns(runs) if name != WIDTH]
    figure, panel_of = _panel_a_mixer(runs, names, WIDTH, "width")
    looks = mixer_looks(runs)
    for key, line in _grouped(best_accuracies(runs), names):
        _line(panel_of[key], line, WIDTH, Look(looks[str(key[0])].color, "o", "-"))
    sparse = reported(runs, sparse_rates)
    for key, line in _grouped(sparse, names):
        _line(panel_of[key], line, WIDTH, SPARSE, face="none")
    zoology = tuple(sparse_rates) == ZOOLOGY_RATES
    of_sparse = "best of Zoology's four" if zoology else f"best of {len(sparse_rates)}"
    of_sparse += " (interpolated)" if sparse["interpolated"].any() else ""
    handles = {
        "best of all learning rates": _handle(Look("black", "o", "-")),
        of_sparse: _handle(SPARSE, face="none"),
    }
    legend(figure, handles)
    return figure


def accuracy_by_parameters(runs: pd.DataFrame) -> Figure:
    """Accuracy against parameters, a column of panels a mixer, a row a length: a line a depth,
    through its widths."""
    names = [name for name in setting_columns(runs) if name not in (WIDTH, DEPTH)]
    figure, panel_of = _panel_a_mixer(runs, names, "parameters", "parameters")
    looks, lines = mixer_looks(runs), _depth_lines(runs)
    for key, line in _grouped(best_accuracies(runs), [*names, DEPTH]):
        look = Look(looks[str(key[0])].color, "o", lines[key[-1]])
        _line(panel_of[key[:-1]], line, "parameters", look, _face(look))
    legend(figure, _depth_handles(lines))
    return figure


def accuracy_by_state_size(runs: pd.DataFrame) -> Figure:
    """Accuracy against the numbers carried from one position to the next: a panel a length, a
    line a mixer and depth, through its widths."""
    names = [name for name in setting_columns(runs) if name not in (MIXER, WIDTH, DEPTH)]
    looks, lines = mixer_looks(runs), _depth_lines(runs)
    best = best_accuracies(runs)
    told = best[best["state_size"].notna()]
    settings = list(_grouped(told.astype({"state_size": "int64"}), names))
    rows, columns = rows_and_columns(len(settings))
    width = 3.6 if columns > 1 else 5.4  # a legend of many mixers is wide
    figure, axes = panels(rows, columns, width, 2.8, sharey=True)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, (key, panel) in zip(axes.flat, settings, strict=False):
        for (mixer, depth), line in panel.groupby([MIXER, DEPTH]):
            look = Look(looks[str(mixer)].color, looks[str(mixer)].marker, lines[depth])
            _line(axis, line, "state_size", look, _face(look))
        axis.set_title(words.setting(dict(zip(names, key, strict=True))), fontsize=LARGE)
        size_axis(axis, panel["state_size"])
        accuracy_axis(axis)
    names_of = short_labels(looks)
    untold = [names_of[mixer] for mixer in sorted(set(best[MIXER]) - set(told[MIXER]))]
    without = f" (not known of {words.listing(untold)})" if untold else ""
    figure.supxlabel(f"state size: numbers kept for one sequence{without}", fontsize=LARGE)
    figure.supylabel(ACCURACY, fontsize=LARGE)
    marks = {
        label: Look(look.color, look.marker, "")
        for label, look in looks.items()
        if label in set(told[MIXER])
    }
    legend(figure, {**mixer_handles(marks), **_depth_handles(lines)})
    return figure


def _panel_a_mixer(
    runs: pd.DataFrame, names: list[str], column: str, label: str
) -> tuple[Figure, dict[tuple, Axes]]:
    """A column of panels a mixer and a row a setting, and each panel by both: `names` are
    `mixer` and the columns that make up a setting."""
    mixers = list(mixer_looks(runs))
    settings = [key for key, _ in _grouped(runs, names[1:])]
    figure, axes = panels(len(settings), len(mixers), 1.8, 1.6, sharex=True, sharey=True)
    for row, setting in zip(axes, settings, strict=True):
        row[0].set_ylabel(
            words.setting(dict(zip(names[1:], setting, strict=True))), fontsize=NORMAL
        )
    for axis, mixer in zip(axes[0], short_labels(mixers).values(), strict=True):
        axis.set_title(mixer.replace(" (", "\n("), fontsize=LARGE)
    for axis in axes.flat:
        size_axis(axis, runs[column])
        accuracy_axis(axis)
    figure.supxlabel(label, fontsize=LARGE)
    figure.supylabel(ACCURACY, fontsize=LARGE)
    panel_of = {
        (mixer, *setting): axis
        for row, setting in zip(axes, settings, strict=True)
        for axis, mixer in zip(row, mixers, strict=True)
    }
    return figure, panel_of


def _grouped(table: pd.DataFrame, names: list[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The rows of each setting of the columns `names`, where nothing set is None."""
    for key, rows in table.groupby(names, dropna=False):
        yield tuple(None if words.missing(value) else value for value in key), rows


def _line(
    axis: Axes, table: pd.DataFrame, column: str, look: Look, face: str | None = None
) -> None:
    table = table.sort_values(WIDTH)
    axis.plot(table[column], table["accuracy"], **look.line, markerfacecolor=face or look.color)
    band(axis, table[column], table["accuracy_low"], table["accuracy_high"], look)


def _handle(look: Look, face: str | None = None) -> Line2D:
    return Line2D([], [], **look.line, markerfacecolor=face or look.color)


def _face(look: Look) -> str:
    """Only the deepest models, whose lines are solid, have full markers."""
    return look.color if look.linestyle == "-" else "white"


def _depth_lines(runs: pd.DataFrame) -> dict[Any, str]:
    """The style of line for each depth, the deepest solid."""
    depths = sorted(runs[DEPTH].unique())
    return dict(zip(depths, ("-.", "--", ":", "-")[-len(depths) :], strict=True))


def _depth_handles(lines: dict[Any, str]) -> dict[str, Line2D]:
    looks = {depth: Look("black", "o", line) for depth, line in lines.items()}
    return {words.setting({DEPTH: d}): _handle(look, _face(look)) for d, look in looks.items()}
