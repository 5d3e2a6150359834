"""The table of ablations as a figure (Okpekpe and Orvieto 2025, arXiv 2508.19029, table 1)."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .. import words
from ..analysis.ablations import ablations, of_any
from ..analysis.accuracy import num_pairs, setting_columns
from ..columns import MIXER, NUM_PAIRS
from ..words import mixer_names
from .style import LETTER, LINE, NORMAL, SMALL, WIDTH, broken, labels, legend

COLORS = {"solves": "#56B4E9", "undecided": "#F2F2F2", "does not solve": "#F0B860"}
CELL, ROW = 1.02, 0.32
"""Inches of a cell."""


def against_baseline(runs: pd.DataFrame, baseline: str, width: float = WIDTH) -> Figure:
    """`ablation_table` of all mixers against the one of this label, with the numbers of pairs."""
    table, keys = ablations(runs, {MIXER: baseline}), setting_columns(runs)
    pairs = runs.assign(**{NUM_PAIRS: num_pairs(runs)}).groupby(keys, dropna=False)[NUM_PAIRS]
    table = table.merge(pairs.first().astype("Int64").reset_index(), on=keys, how="left")
    table.insert(list(table).index("is_baseline"), NUM_PAIRS, table.pop(NUM_PAIRS))
    return ablation_table(table, names=mixer_names(runs), width=width)


def ablation_table(
    table: pd.DataFrame,
    variant: str = MIXER,
    names: Mapping[str, str] | None = None,
    width: float = WIDTH,
) -> Figure:
    """What `analysis.ablations.ablations` found: a row a variant, the baseline first; a column a
    setting, in several blocks where they are many, and one for any of them; the colour is the
    verdict. `names` says what to call the variants.

    In a cell stand the accuracy and, but for the baseline, the difference from it, both in per
    cent with their 95 % t intervals over seeds.
    """
    columns = list(table.columns[: list(table).index("is_baseline")])
    columns.remove(variant)
    shared = {x: table[x].iloc[0] for x in columns if table[x].nunique(dropna=False) == 1}
    columns = [name for name in columns if name not in shared]
    keys = list(dict.fromkeys(_keys(table.sort_values(columns), columns))) if columns else [()]
    order = table.sort_values("is_baseline", ascending=False, kind="stable")[variant].unique()
    called = {x: str(x) if names is None else names[x] for x in order}
    left = min(1.9, 0.1 + LETTER * max(map(len, called.values())))
    most = max(1, int((width - left) / CELL - 1.1))
    blocks = [keys[i : i + most] for i in range(0, len(keys), most)]
    heads = [[broken(words.setting(dict(zip(columns, key, strict=True))).replace(", ", "\n"), CELL)
              for key in block] for block in blocks]  # fmt: skip
    lines = max(head.count("\n") + 1 for block in heads for head in block)
    height = ROW * len(order) + LINE * (lines + 1)
    figure = Figure(figsize=(width, 0.4 + height * len(blocks)), layout="constrained")
    axes = figure.subplots(len(blocks), 1, squeeze=False)[:, 0]
    for axis, block, titles in zip(axes, blocks, heads, strict=True):
        last = block == blocks[-1]
        for y, label in enumerate(order):
            rows = table[table[variant] == label]
            name = broken(called[label], left)
            weight = "bold" if rows["is_baseline"].any() else "normal"
            axis.text(-0.1, y + 0.5, name, ha="right", va="center", fontsize=NORMAL,
                      fontweight=weight, parse_math=False)  # fmt: skip
            for key, row in zip(_keys(rows, columns), rows.to_dict("records"), strict=True):
                if key in block:
                    _cell(axis, block.index(key), y, _text(row), row["verdict"])
            if last:
                found = of_any(rows["verdict"])
                _cell(axis, len(block) + 0.1, y, found, found)
        for x, title in enumerate(titles + (["any setting"] if last else [])):
            middle = x + (0.6 if x == len(block) else 0.5)
            axis.text(middle, -0.12, title, ha="center", va="bottom", fontsize=NORMAL)
        axis.set_xlim(0, min(most, len(keys)) + 1.1)
        axis.set_ylim(len(order), 0)
        axis.axis("off")
    labels(figure, "", "", words.setting(shared), "accuracy, and difference from the first row, in "
           "per cent; [95 % t interval over seeds]")  # fmt: skip
    legend(figure, {text: Patch(color=color) for text, color in COLORS.items()})
    return figure


def _keys(table: pd.DataFrame, columns: list[str]) -> list[tuple]:
    """The setting of each row."""
    rows = table[columns].itertuples(index=False, name=None) if columns else ((),) * len(table)
    return [tuple(None if words.missing(x) else x for x in row) for row in rows]


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
