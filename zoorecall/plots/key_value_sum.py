"""Key-value-sum (Chaudhry, Kulkarni and Pehlevan 2025): recall beside arithmetic alone, and what
decides whether it is learned. Both draw `analysis.key_value_sum.at_best_rate`, every seed a dot."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from .. import words
from ..analysis.accuracy import setting_columns
from ..analysis.key_value_sum import (
    AR,
    EACH,
    FORM,
    NON_AR,
    NOTHING,
    ONE,
    PAIRS,
    TRAINED_ON,
    having,
    main_size,
    size_columns,
)
from ..columns import MIXER, SEED, SOLVED
from ..words import mixer_names
from .style import (
    GRAY,
    NORMAL,
    WIDTH,
    Look,
    accuracy_axis,
    broken,
    chosen,
    fitting,
    labels,
    legend,
    mixer_handles,
    mixer_looks,
    panels,
    seeds_said,
    size_axis,
)

LINES: dict[tuple[str, str], Any] = {
    (AR, ONE): "-",
    (NON_AR, ONE): "--",
    (AR, EACH): "-.",
    (NON_AR, EACH): (0, (5, 1, 1, 1)),
}
GUESS: dict[str, Any] = {"color": GRAY, "linestyle": ":", "linewidth": 1.1}
BEST_GUESS = "best guess without recall"


def recall_by_pairs(rows: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Accuracy against the number of pairs, a panel a mixer, a line a form of the task, at the
    size of model and task of which there are the most rows: the mean of the seeds, each a dot."""
    size = main_size(rows, size_columns(rows))
    rows = having(rows, size)
    looks, names = mixer_looks(rows), mixer_names(rows)
    columns = fitting(len(looks), width, 1.2)
    figure, axes = panels([*names.values()], columns, 1.2, width, sharey=True)
    lines = [line for line in LINES if _of(rows, line).any()]
    for axis, (mixer, look) in zip(axes, looks.items(), strict=True):
        panel = rows[rows[MIXER] == mixer]
        for line in reversed(lines):
            if _of(panel, line).any():
                _line(axis, panel[_of(panel, line)], look.color, line)
        guess = rows.groupby(PAIRS)[NOTHING].first()
        axis.plot(guess.index, guess, **GUESS, zorder=0)
        size_axis(axis, rows[PAIRS])
        axis.margins(x=0.12)
        accuracy_axis(axis)
    accuracy, by = chosen(rows, setting_columns(rows))
    labels(figure, "number of pairs", accuracy, words.setting(size), seeds_said(rows), by)
    handles = {_called(line, lines): _handle(line) for line in lines}
    legend(figure, {**handles, BEST_GUESS: Line2D([], [], **GUESS)})
    return figure


def recall_by_size(rows: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Accuracy in AR at every size of model and task, one below the other, of the number of pairs
    that has the most sizes: a mark a mixer and seed; gray is the best guess without recall."""
    names = size_columns(rows)
    rows = rows[(rows[FORM] == AR) & (rows[TRAINED_ON] == ONE)]
    counts = rows[[PAIRS, *names]].drop_duplicates()[PAIRS].value_counts()
    rows = rows[rows[PAIRS] == counts.idxmax()]
    looks = mixer_looks(rows)
    found = rows[names].drop_duplicates().sort_values(names)
    sizes = [dict(zip(names, key, strict=True)) for key in found.itertuples(index=False)]
    pairs = "".join(f" of {x} pairs" for x in rows[PAIRS].unique())
    figure, [axis] = panels([""], 1, 0.2 + 0.34 * len(sizes), width)
    for y, size in enumerate(sizes):
        group = having(rows, size)
        axis.plot([group[NOTHING].iloc[0]] * 2, [y - 0.42, y + 0.42], **GUESS)
        for place, (mixer, look) in enumerate(looks.items()):
            of_mixer = group[group[MIXER] == mixer]
            if of_mixer.empty:  # whose marks would be nowhere, and the layout fail
                continue
            at = y + 0.64 * ((place + 0.5) / len(looks) - 0.5)
            axis.plot(
                of_mixer["accuracy"],
                [at] * len(of_mixer),
                linestyle="",
                marker=look.marker,
                color=look.color,
                markersize=4,
                clip_on=False,
            )
    axis.set_xlim(-0.04, 1.04)
    axis.axvline(SOLVED, color="0.8", linewidth=0.8, zorder=0)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    seeds = [words.count(having(rows, size)[SEED].nunique(), "seed") for size in sizes]
    told = [f"{words.setting(x)} ({n})" for x, n in zip(sizes, seeds, strict=True)]
    told = [broken(text, 0.45 * width) for text in told]
    axis.set_yticks(range(len(sizes)), told, fontsize=NORMAL)
    axis.set_ylim(len(sizes) - 0.5, -0.5)
    accuracy, by = chosen(rows, setting_columns(rows))
    labels(figure, f"{accuracy} in AR{pairs}", "", "a mark is a seed", by)
    marks = {x: Look(look.color, look.marker, "", full=True) for x, look in looks.items()}
    legend(figure, {**mixer_handles(marks, mixer_names(rows)), BEST_GUESS: Line2D([], [], **GUESS)})
    return figure


def _line(axis: Axes, rows: pd.DataFrame, color: str, line: tuple[str, str]) -> None:
    mean = rows.groupby(PAIRS)["accuracy"].mean()
    axis.plot(mean.index, mean, color=color, linestyle=LINES[line], linewidth=1.5)
    axis.plot(rows[PAIRS], rows["accuracy"], color=color, linestyle="", **_dot(line, color))


def _dot(line: tuple[str, str], color: str) -> dict[str, Any]:
    """The dot of a seed: full for AR, larger and hollow for non-AR, so that both show; a square
    where the model is trained on both."""
    full = line[0] == AR
    return {
        "marker": "o" if line[1] == ONE else "s",
        "markersize": 4 if full else 7,
        "markerfacecolor": color if full else "none",
        "clip_on": False,
    }


def _handle(line: tuple[str, str]) -> Line2D:
    return Line2D([], [], color="black", linestyle=LINES[line], **_dot(line, "black"))


def _called(line: tuple[str, str], lines: list[tuple[str, str]]) -> str:
    """`AR`; with how many forms a model is trained on, where that differs."""
    form, trained_on = line
    return (
        form if len({trained for _, trained in lines}) == 1 else f"{form}, trained on {trained_on}"
    )


def _of(rows: pd.DataFrame, line: tuple[str, str]) -> pd.Series:
    return (rows[FORM] == line[0]) & (rows[TRAINED_ON] == line[1])
