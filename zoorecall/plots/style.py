"""What all figures share: the look of each mixer, panels, legends, titles, and files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator, PercentFormatter

from ..columns import MIXER, MIXER_NAME, SOLVED, short_labels
from ..files import replacing

COLORS = {
    "attention": "#0072B2",
    "hyena": "#D55E00",
    "mamba": "#009E73",
    "mamba2": "#CC79A7",
    "delta_net": "#E69F00",
    "based": "#56B4E9",
    "s6": "#8C6D31",
    "h3": "#882255",
    "rwkv": "#000000",
    "gated_delta_net": "#999933",
    "gla": "#332288",
    "base_conv": "#DDCC77",
}
"""Okabe and Ito's palette, which people of any colour vision can tell apart, less its yellow, and
some of Paul Tol's; a mixer of the user's own gets the first that its figure has free."""

MARKERS = "os^vDPX<>*dp"
GRAY = "0.45"
SMALL, NORMAL, LARGE = 7.5, 9, 10
"""Sizes of text, in points."""


@dataclass(frozen=True)
class Look:
    """How a mixer is drawn. Variants of a mixer share its colour, not its marker and line."""

    color: str
    marker: str
    linestyle: str

    @property
    def line(self) -> dict[str, Any]:
        return {**vars(self), "linewidth": 1.5, "markersize": 4.5}


def mixer_looks(runs: pd.DataFrame) -> dict[str, Look]:
    """The look of each mixer of a table of runs, by its label, ordered by that."""
    names = runs.drop_duplicates(MIXER).set_index(MIXER)[MIXER_NAME].sort_index()
    place = {name: i for i, name in enumerate(COLORS) if name in set(names)}
    free = [i for i in range(len(COLORS)) if i not in place.values()]
    looks: dict[str, Look] = {}
    seen: dict[str, int] = {}
    palette = list(COLORS.values())
    for label, name in names.items():  # a mixer comes before its variants
        if name not in place:
            place[name] = free.pop(0) if free else len(place)
        number = seen[name] = seen.get(name, -1) + 1
        looks[str(label)] = Look(
            color=palette[place[name] % len(palette)],
            marker=MARKERS[(place[name] + 5 * number) % len(MARKERS)],
            linestyle=("-", "--", ":", "-.")[number % 4],
        )
    return looks


def rows_and_columns(number: int) -> tuple[int, int]:
    """How panels are laid out: up to three in a row, four two by two."""
    columns = 2 if number == 4 else min(3, number)
    return -(-number // columns), columns


def panels(rows: int, columns: int, width: float, height: float, **shared: Any) -> Any:
    """A figure of panels of one size in inches, and its axes [rows, columns]."""
    figure = Figure(
        figsize=(max(4.0, 0.7 + width * columns), 0.9 + height * rows), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=SMALL)
    return figure, axes


def accuracy_axis(axis: Axes) -> None:
    """Accuracy upwards in per cent, with a line where a task counts as solved."""
    axis.axhline(SOLVED, color="0.8", linewidth=0.8, zorder=0)
    axis.set_ylim(-0.04, 1.04)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def size_axis(axis: Axes, sizes: Iterable[float]) -> None:
    """Sizes to the right on a logarithmic scale: each one (of many, every other) is named where
    they lie apart, else round numbers, with k for thousands and M for millions."""
    axis.set_xscale("log")
    ticks = sorted(set(sizes))
    apart = all(high >= 1.5 * low for low, high in pairwise(ticks))
    if len(ticks) <= 8 and apart:
        named = ticks if len(ticks) <= 4 else ticks[::-2]
        axis.set_xticks(ticks, [str(tick) if tick in named else "" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        span = ticks[-1] / ticks[0]
        digits = (1, 2, 5) if span < 15 else (1, 3) if span < 300 else (1,)
        axis.xaxis.set_major_locator(LogLocator(subs=digits))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """One legend above all panels, in as many columns as fit. Panels have room for three rows of
    it, and the figure grows by the others."""
    inches = [0.6 + 0.075 * len(text) for text in handles]

    def width(columns: int) -> float:  # which matplotlib fills as array_split does
        return sum(column.max() for column in np.array_split(inches, columns))

    numbers = range(len(handles), 1, -1)
    columns = next((n for n in numbers if width(n) <= figure.get_figwidth()), 1)
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, rows - 3))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=NORMAL,
    )


def mixer_handles(looks: Mapping[str, Look]) -> dict[str, Artist]:
    names = short_labels(looks)
    return {names[label]: Line2D([], [], **look.line) for label, look in looks.items()}


def broken(title: str, width: int = 40) -> str:
    """A title in lines that a panel is wide enough for, broken between `, ` and the next words."""
    lines: list[str] = []
    for words in title.split(", "):
        if lines and len(lines[-1]) + len(words) + 2 <= width:
            lines[-1] += f", {words}"
        else:
            lines.append(words)
    return ",\n".join(lines)


def band(axis: Axes, x: Any, low: Any, high: Any, look: Look) -> None:
    """An interval around a line, or through its one point; nothing where there is none."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    axis.fill_between(x, low, high, color=look.color, alpha=0.2, linewidth=0)
    if len(low) == 1:
        axis.vlines(x, low, high, color=look.color, alpha=0.4, linewidth=3, zorder=1)


def seed_dots(axis: Axes, x: Any, each: Any, look: Look) -> None:
    """Every seed's number, a small hollow dot each; `each` has a list for each of `x`."""
    at = [place for place, values in zip(x, each, strict=True) for _ in values]
    values = [value for values in each for value in values]
    axis.plot(at, values, **SEED, color=look.color, clip_on=False)


SEED: dict[str, Any] = {
    **{"linestyle": "", "marker": "o", "markersize": 2.6},
    **{"markerfacecolor": "white", "markeredgewidth": 0.7, "zorder": 3},
}
"""How a seed is drawn beside the mean of all."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending, whole or not at all."""
    style = path.suffix.lstrip(".") or "png"
    # without the time of writing, equal figures are equal files
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format=style, metadata=dates.get(style))
