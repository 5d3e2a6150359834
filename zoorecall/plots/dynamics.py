"""Training dynamics with marked transitions (Okpekpe and Orvieto 2025, arXiv 2508.19029,
figure 5)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.bumps import classify, transitions
from .style import (
    GRAY,
    LARGE,
    NORMAL,
    SMALL,
    accuracy_axis,
    legend,
    mixer_looks,
    panel_title,
    panels,
)


def training_dynamics(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Loss above accuracy over training at each setting's best learning rate, a line a seed, with
    the transitions of `analysis.bumps` shaded and the kinds of training counted in the title.

    The axis of steps is linear: on a logarithm or a root even a smooth descent has a knee.
    """
    keys, rate = setting_columns(runs), "train.learning_rate"
    best = best_accuracies(runs).rename(columns={"best_rate": rate})[[*keys, rate]]
    settings = list(runs.merge(best).groupby(keys, dropna=False))
    columns = min(3, len(settings))
    blocks = -(-len(settings) // columns)
    looks = mixer_looks(runs["mixer"])
    figure, axes = panels(2 * blocks, columns, 3.5, 1.75, height_ratios=[3, 2] * blocks)
    for axis in axes.flat:
        axis.axis("off")
    for place, (key, group) in enumerate(settings):
        block, column = divmod(place, columns)
        pair = axes[2 * block : 2 * block + 2, column]
        of_group = curves[curves["run_id"].isin(group["run_id"])]
        color = looks[str(key[0])].color
        _draw(pair[0], pair[1], of_group, transitions(group, of_group), color)
        counts = classify(group, of_group)["kind"].value_counts()
        kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        setting = panel_title(dict(zip(keys[1:], key[1:], strict=True)))
        text = f"{setting}\nlearning rate {group[rate].iloc[0]:.1e}\n{kinds}"
        pair[0].set_title(key[0], fontsize=LARGE, color=color, fontweight="bold", pad=36)
        pair[0].text(0.5, 1.03, text, transform=pair[0].transAxes, ha="center", fontsize=SMALL)
        if column == 0:
            pair[0].set_ylabel("loss (nats)", fontsize=NORMAL)
            pair[1].set_ylabel("test accuracy", fontsize=NORMAL)
    figure.supxlabel("training step", fontsize=NORMAL)
    handles = {
        "test": Line2D([], [], color="black"),
        "train": Line2D([], [], color="black", alpha=0.35),
        "transition": Patch(color=GRAY, alpha=0.3, linewidth=0),
    }
    legend(figure, handles)
    return figure


def _draw(
    loss: Axes, accuracy: Axes, curves: pd.DataFrame, falls: pd.DataFrame, color: str
) -> None:
    """One setting: its loss, and its accuracy below."""
    last = int(curves["step"].max())
    for axis in (loss, accuracy):
        axis.axis("on")
        axis.set_xlim(0, last)
        axis.locator_params(axis="x", nbins=5)
        for start, end in falls[["start", "end"]].to_numpy():
            axis.axvspan(start, end, color=GRAY, alpha=0.2, linewidth=0)
    for _, curve in curves.groupby("run_id"):
        loss.plot(curve["step"], curve["train_loss"], color=color, alpha=0.35, linewidth=1)
        loss.plot(curve["step"], curve["test_loss"], color=color, linewidth=1.3)
        accuracy.plot(curve["step"], curve["test_accuracy"], color=color, linewidth=1.3)
    loss.set_ylim(bottom=0)
    loss.locator_params(axis="y", nbins=5)
    loss.tick_params(labelbottom=False)
    accuracy_axis(accuracy)
    accuracy.set_yticks([0, 0.5, 1])
