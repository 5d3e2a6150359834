"""What all figures share: the look of each mixer, panels, legends, titles, and files.

A figure is made at the width at which it is printed, `WIDTH` inches unless another is asked for, so
that its type is as large on paper as it says. Each seed is a mark, a line goes through their means.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
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

from .. import words
from ..analysis.accuracy import setting_columns, with_pairs
from ..columns import MIXER, MIXER_NAME, SEED, SOLVED
from ..errors import UserError
from ..files import replacing
from ..words import mixer_names

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
LINES = ("-", "--", ":", "-.")
GRAY = "0.45"
WIDTH = 5.5
"""Inches; the width of text in most proceedings of the field."""

SMALL, NORMAL, LARGE = 7, 7.5, 8
"""Sizes of text, in points."""

LETTER = 0.0625
"""Inches; the width of a letter of size `NORMAL`, on average."""

LINE = 0.135
"""Inches from one line of text to the next."""

MARGIN = 0.65
"""Inches left of all panels, for what stands at the axis of accuracies."""

FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Look:
    """How a mixer is drawn. Variants of a mixer share its colour, not its marker and line."""

    color: str
    marker: str
    linestyle: str
    full: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """A line through means."""
        return {"color": self.color, "linestyle": self.linestyle, "linewidth": 1.1}

    @property
    def seeds(self) -> dict[str, Any]:
        """The marks of seeds: hollow, so that one does not hide another."""
        face = {"markerfacecolor": self.color if self.full else "none", "markeredgewidth": 0.7}
        return {"color": self.color, "marker": self.marker, "markersize": 3.6, **face}

    @property
    def handle(self) -> Line2D:
        """For a legend."""
        return Line2D([], [], **{**self.line, **self.seeds})


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
            linestyle=LINES[number % len(LINES)],
        )
    return looks


@dataclass(frozen=True)
class Place:
    """What a panel or a line shows: its setting by columns, what of that is its own in words, and
    its runs."""

    values: dict[str, Any]
    told: str
    runs: pd.DataFrame


def places(runs: pd.DataFrame, without: Iterable[str] = ()) -> tuple[str, list[Place]]:
    """The settings of a table, but for the columns `without`, the mixer varying fastest; before
    them, in words, what they all share. One setting alone has all as its own."""
    names = [name for name in setting_columns(runs) if name not in (MIXER, *without)]
    names += [] if MIXER in without else [MIXER]
    found = [
        ({k: None if words.missing(x) else x for k, x in zip(names, key, strict=True)}, group)
        for key, group in runs.groupby(names, dropna=False)
    ]
    titles = mixer_names(runs)
    facts = [with_pairs(values, group) for values, group in found]
    for one in facts:
        if MIXER in one:
            one[MIXER] = titles[one[MIXER]]
    common = {
        name: x
        for name, x in facts[0].items()
        if len(facts) > 1 and all(one.get(name) == x for one in facts)
    }
    own = [{k: x for k, x in one.items() if k not in common} for one in facts]
    told = [words.setting({k: one[k] for k in sorted(one, key=MIXER.__ne__)}) for one in own]
    each = [Place(values, text, group) for (values, group), text in zip(found, told, strict=True)]
    return words.setting(common), each


def fitting(number: int, width: float, least: float) -> int:
    """How many columns so many panels of at least `least` inches have, in rows of even lengths."""
    most = max(1, int((width - MARGIN) // least))
    return -(-number // -(-number // most))


def panels(
    titles: Sequence[str], columns: int, height: float, width: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a title, row by row; `height` is that of a panel, all in inches."""
    rows, inches = -(-len(titles) // columns), (width - MARGIN) / columns
    told = [broken(title, inches) for title in titles]
    lines = max(title.count("\n") + 1 for title in told)
    size = (width, 0.55 + rows * (height + LINE * lines))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for axis, title in zip(axes, told, strict=False):
        axis.set_title(title, fontsize=NORMAL, parse_math=False)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=SMALL)
    for axis in axes[len(titles) :]:
        axis.axis("off")
    for axis in axes[: len(titles)][-columns:]:  # those with none below
        axis.tick_params(labelbottom=True)
    return figure, axes[: len(titles)]


def labels(figure: Figure, x: str, y: str, *notes: str) -> None:
    """What the axes of all panels are; below, what all panels share and what is to be known, for
    which the figure grows."""
    inches, told = 0.95 * figure.get_figwidth(), [*filter(None, notes)]
    line = "; ".join(told)
    below = line if len(line) * LETTER < inches else "\n".join(broken(x, inches) for x in told)
    text = "\n".join(filter(None, [x, below]))
    figure.set_figheight(figure.get_figheight() + LINE * max(0, text.count("\n") - 1))
    figure.supxlabel(text, fontsize=LARGE, parse_math=False)
    figure.supylabel(y, fontsize=LARGE)


def accuracy_axis(axis: Axes) -> None:
    """Accuracy upwards in per cent, with a line where a task counts as solved."""
    axis.axhline(SOLVED, color="0.8", linewidth=0.8, zorder=0)
    axis.set_ylim(-0.04, 1.04)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def rate_axis(axis: Axes, rates: Iterable[float]) -> None:
    """Learning rates to the right on a logarithmic scale. Powers of ten are named; where there are
    fewer than two of them, the lowest rate, the middle one and the highest."""
    axis.set_xscale("log")
    ends = sorted(set(rates))
    low, high = np.log10(ends[0]) - 1e-6, np.log10(ends[-1]) + 1e-6
    if np.floor(high) - np.ceil(low) < 1:
        ends = [x for i, x in enumerate(ends) if i in (0, len(ends) // 2, len(ends) - 1)]
        ends = ends if ends[-1] >= 4 * ends[0] else ends[:1]
        axis.set_xticks(ends, [words.rate(x) for x in ends])
    axis.xaxis.set_minor_locator(NullLocator())  # the marks say where rates are


def size_axis(axis: Axes, sizes: Iterable[float]) -> None:
    """Sizes to the right on a logarithmic scale: each one (of many, every other) is named where
    they lie apart, else round numbers, with k for thousands and M for millions."""
    axis.set_xscale("log")
    ticks = sorted(set(sizes))
    apart = all(high >= 1.5 * low for low, high in pairwise(ticks))
    if len(ticks) <= 8 and apart:
        named = ticks if len(ticks) <= 3 else ticks[::-2]
        axis.set_xticks(ticks, [_short(tick) if tick in named else "" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        span = ticks[-1] / ticks[0]
        digits = (1, 2, 5) if span < 15 else (1, 3) if span < 300 else (1,)
        axis.xaxis.set_major_locator(LogLocator(subs=digits))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _short(size: float) -> str:
    return f"{size:g}" if size < 10_000 else EngFormatter(sep="", places=0)(size)


def legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """One legend above all panels, in as many columns as fit, for which the figure grows."""
    inches = [0.45 + LETTER * len(text) for text in handles]

    def width(columns: int) -> float:  # which matplotlib fills as array_split does
        return sum(column.max() for column in np.array_split(inches, columns))

    numbers = range(len(handles), 1, -1)
    columns = next((n for n in numbers if width(n) <= figure.get_figwidth()), 1)
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * rows)
    figure.legend(
        list(handles.values()),
        [text.replace("$", r"\$") for text in handles],
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=NORMAL,
        handlelength=2.2,
        columnspacing=1.2,
    )


def seeds_said(runs: pd.DataFrame) -> str:
    """What marks and lines are, below a figure."""
    if runs[SEED].nunique() == 1:
        return "one seed"
    return "a mark is a seed, a line goes through their means"


def chosen(runs: pd.DataFrame, keys: Sequence[str]) -> tuple[str, str]:
    """What accuracies at a best learning rate are called at an axis, and what is to be known of
    them below a figure: whether `keys` are ever those of several runs, so that other seeds chose
    the rate."""
    if runs.duplicated([*keys]).any():
        return "test accuracy (held out)", ""
    return "test accuracy (best rate)", "at the best rate, chosen by the same seed"


def mixer_handles(looks: Mapping[str, Look], names: Mapping[str, str]) -> dict[str, Artist]:
    return {names[label]: look.handle for label, look in looks.items()}


def broken(text: str, inches: float) -> str:
    """A text in lines that go into so many inches, broken behind a comma or before a bracket rather
    than elsewhere."""
    width = max(8, int(inches / LETTER))

    def together(part: str) -> str:
        return part.replace(" ", "\N{NO-BREAK SPACE}") if len(part) <= width else part

    lines = []
    for line in text.split("\n"):
        parts = map(together, line.split(", "))
        whole = ", ".join(" (".join(map(together, part.split(" ("))) for part in parts)
        lines += textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def with_seeds(axis: Axes, x: Any, mean: Any, each: Any, look: Look) -> None:
    """A line through means and a mark for each seed; `each` has a list for each of `x`."""
    at = [place for place, values in zip(x, each, strict=True) for _ in values]
    values = [value for values in each for value in values]
    axis.plot(x, mean, **look.line, zorder=2)
    axis.plot(at, values, linestyle="", **look.seeds, clip_on=False, zorder=3)


def save(figure: Figure, path: Path, style: str = "") -> None:
    """Write a figure, whole or not at all, in the format of the path's ending where no other is
    given. Raises UserError where that is none of `FORMATS`."""
    style = style or path.suffix.lstrip(".").lower()
    if style not in FORMATS:
        raise UserError(f"{path}: a figure's name ends with .png, .pdf or .svg")
    # without the time of writing, equal figures are equal files
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format=style, metadata=dates.get(style))
