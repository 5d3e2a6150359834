"""Figures: one function each, from tables to a matplotlib figure; `save` writes it."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .analysis.windows import SOLVED, by_learning_rate, setting_columns
from .results import replacing

ZOOLOGY_RATES = (1e-4, 10 ** (-10 / 3), 10 ** (-8 / 3), 1e-2)
"""The four learning rates of Zoology's figure 2: logspace(-4, -2, 4)."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette, which people of any colour vision can tell apart, less its yellow."""
MARKERS = "osD^vPX*"
TITLES = {"model.num_layers": "layer", "model.d_model": "width", "task.seq_len": "length"}


def accuracy_by_learning_rate(runs: pd.DataFrame) -> Figure:
    """Test accuracy against learning rate: a panel a setting, a line a mixer, the mean over seeds
    with their range shaded; dashed are Zoology's four rates (Okpekpe and Orvieto 2025, figure 1).
    """
    curves = by_learning_rate(runs)
    panel_keys = setting_columns(runs)[1:]
    panels = list(curves.groupby(panel_keys, sort=True, dropna=False))
    mixers = sorted(runs["mixer"].unique())
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(0.8 + 4.2 * columns, 0.9 + 3.1 * rows), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for axis, (key, panel) in zip(axes.flat, panels, strict=False):
        for rate in ZOOLOGY_RATES:
            axis.axvline(rate, color="0.6", linestyle="--", linewidth=0.9, zorder=0)
        axis.axhline(SOLVED, color="0.85", linewidth=0.9, zorder=0)
        for mixer, line in panel.groupby("mixer"):
            _seed_line(axis, line, mixers.index(mixer), str(mixer))
        axis.set_title(panel_title(dict(zip(panel_keys, key, strict=True))), fontsize=10)
        axis.set_xscale("log")
        axis.set_ylim(-0.03, 1.03)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("learning rate (dashed: Zoology's four)", fontsize=10)
    figure.supylabel("test accuracy", fontsize=10)
    handles = {
        text: handle
        for axis in axes.flat
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center",
        ncols=min(len(handles), 3 if columns > 1 else 2), frameon=False, fontsize=9,
    )
    return figure


def _seed_line(axis: Axes, line: pd.DataFrame, index: int, label: str) -> None:
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
    x = line["train.learning_rate"]
    axis.plot(x, line["mean"], color=color, marker=marker, markersize=4, linewidth=1.6, label=label)
    axis.fill_between(x, line["min"], line["max"], color=color, alpha=0.2, linewidth=0)


def panel_title(setting: dict[str, object]) -> str:
    """A setting in words: `1 layer, width 64, length 64`."""
    layers = setting.pop("model.num_layers")
    words = [f"{layers} layer{'' if layers == 1 else 's'}"]
    words += [f"{TITLES.get(name, name.rpartition('.')[2])} {value}" for name, value in setting.items()]
    return ", ".join(words)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format=path.suffix.lstrip(".") or "png")
    plt.close(figure)
