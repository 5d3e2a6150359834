"""The table of ablations as a figure (Okpekpe and Orvieto 2025, arXiv 2508.19029, table 1)."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .. import words
from ..analysis.ablations import of_any
from .style import NORMAL, SMALL, legend

COLORS = {"solves": "#56B4E9", "undecided": "#F2F2F2", "does not solve": "#F0B860"}


def ablation_table(table: pd.DataFrame, variant: str = "mixer") -> Figure:
    """What `analysis.ablations.ablations` found: a row a variant, the baseline first; a column a
    setting, and one for any of them; the colour is the verdict.

    In a cell stand the accuracy and, but for the baseline, the difference from it, both in per
    cent with their 95 % t intervals over seeds.
    """
    names = list(table.columns[: list(table).index("is_baseline")])
    names.remove(variant)
    shared = {name: table[name].iloc[0] for name in names if table[name].nunique() == 1}
    names = [name for name in names if name not in shared]
    columns = sorted(set(table[names].itertuples(index=False, name=None)))
    order = table.sort_values("is_baseline", ascending=False, kind="stable")[variant].unique()
    labels = 0.2 + 0.08 * max(map(len, order))  # inches
    size = (labels + 1.25 * (len(columns) + 1.15), 1.3 + 0.42 * len(order))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for y, label in enumerate(order):
        rows = table[table[variant] == label]
        baseline = bool(rows["is_baseline"].any())
        axis.text(-0.1, y + 0.5, label, ha="right", va="center", fontsize=NORMAL,
                  fontweight="bold" if baseline else "normal")  # fmt: skip
        for row in rows.to_dict("records"):
            x = columns.index(tuple(row[name] for name in names))
            _cell(axis, x, y, _text(row), row["verdict"])
        _cell(axis, len(columns) + 0.15, y, of_any(rows["verdict"]), of_any(rows["verdict"]))
    for x, key in enumerate(columns):
        title = words.setting(dict(zip(names, key, strict=True))).replace(", ", "\n")
        axis.text(x + 0.5, -0.12, title, ha="center", va="bottom", fontsize=NORMAL)
    axis.text(len(columns) + 0.65, -0.12, "any setting", ha="center", va="bottom", fontsize=NORMAL)
    axis.set_xlim(0, len(columns) + 1.15)
    axis.set_ylim(len(order), 0)
    axis.axis("off")
    brackets = "[95 % t interval over seeds]"
    figure.supxlabel("; ".join(filter(None, [words.setting(shared), brackets])), fontsize=NORMAL)
    legend(figure, {text: Patch(color=color) for text, color in COLORS.items()})
    return figure


def _cell(axis: Axes, x: float, y: float, text: str, verdict: str) -> None:
    axis.add_patch(
        Rectangle((x, y), 1, 1, facecolor=COLORS[verdict], edgecolor="white", linewidth=2)
    )
    axis.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=SMALL)


def _text(row: dict) -> str:
    lines = [_estimate(row, "accuracy", "")]
    if not row["is_baseline"] and not math.isnan(row["difference"]):
        lines.append(_estimate(row, "difference", "+"))
    return "\n".join(lines)


def _estimate(row: dict, name: str, sign: str) -> str:
    value, low, high = (100 * row[name + end] for end in ("", "_low", "_high"))
    interval = "one seed" if math.isnan(low) else f"{low:{sign}.0f}, {high:{sign}.0f}"
    return f"{value:{sign}.1f} [{interval}]".replace("-", "\N{MINUS SIGN}")
