"""Training dynamics with marked transitions (Okpekpe and Orvieto 2025, arXiv 2508.19029,
figure 5)."""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .. import words
from ..analysis.accuracy import best_accuracies
from ..analysis.bumps import KINDS, classify, transitions
from ..columns import DEPTH, MIXER, RATE
from ..words import mixer_names
from .style import (
    GRAY,
    LARGE,
    LINE,
    MARGIN,
    NORMAL,
    SMALL,
    WIDTH,
    accuracy_axis,
    broken,
    fitting,
    labels,
    legend,
    mixer_looks,
    places,
)


def training_dynamics(runs: pd.DataFrame, curves: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Loss above accuracy over training at each setting's best learning rate, a line a seed, with
    the transitions of `analysis.bumps` shaded and the kinds of training counted in the title.

    The axis of steps is linear: on a logarithm or a root even a smooth descent has a knee.
    """
    looks = mixer_looks(runs)
    shared, settings = places(runs)
    columns = fitting(len(settings), width, 1.6)
    blocks, inches = -(-len(settings) // columns), (width - MARGIN) / columns
    figure = Figure(layout="constrained")
    heights = [1.2, 0.8] * blocks
    axes = figure.subplots(2 * blocks, columns, squeeze=False, height_ratios=heights)
    lines = 1
    for axis in axes.flat:
        axis.axis("off")
    for place, one in enumerate(settings):
        block, column = divmod(place, columns)
        pair = axes[2 * block : 2 * block + 2, column]
        best = best_accuracies(one.runs)["best_rate"].iloc[0]
        group = one.runs[one.runs[RATE] == best]
        of_group = curves[curves["run_id"].isin(group["run_id"])]
        color = looks[one.values[MIXER]].color
        _draw(pair[0], pair[1], of_group, transitions(group, of_group), color)
        counts = classify(group, of_group)["kind"].value_counts()
        kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        title = broken(f"{one.told}\nlearning rate {words.rate(best)}\n{kinds}", inches)
        lines = max(lines, title.count("\n") + 1)
        pair[0].set_title(title, fontsize=NORMAL, parse_math=False)
        if column == 0:
            pair[0].set_ylabel("loss (nats)", fontsize=NORMAL)
            pair[1].set_ylabel("test accuracy", fontsize=NORMAL)
    figure.set_size_inches(width, 0.55 + blocks * (2.2 + LINE * lines))
    labels(figure, "training step", "", shared, "a line is a seed, at the best learning rate")
    legend(figure, _handles())
    return figure


def curves_by_kind(runs: pd.DataFrame, curves: pd.DataFrame, each: int = 10) -> Figure:
    """Runs of every kind of `analysis.bumps.classify`, a row of panels a kind: loss above accuracy
    over training, up to where nothing more happens, with the transitions shaded.

    Of a kind with more than `each` runs those with the smallest run ids are drawn: the ids are
    hashes, so the choice has nothing to do with what a run shows, and is the same every time. A
    figure for a screen, as wide as its panels need.
    """
    kinds = classify(runs, curves).sort_values("run_id")
    counts = kinds["kind"].value_counts()
    shown = [kind for kind in KINDS if kind in counts]
    looks, by_id, names = mixer_looks(runs), runs.set_index("run_id", drop=False), mixer_names(runs)
    size, heights = (0.7 + 1.75 * each, 0.9 + 2.85 * len(shown)), [0.4, 3, 2] * len(shown)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(3 * len(shown), each, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.axis("off")
    for kind, (top, *rows) in zip(shown, axes.reshape(len(shown), 3, each), strict=True):
        for column, run_id in enumerate(kinds.loc[kinds["kind"] == kind, "run_id"].head(each)):
            pair, run = [row[column] for row in rows], by_id.loc[[run_id]]
            curve = curves[curves["run_id"] == run_id]
            label, layers, rate = run[[MIXER, DEPTH, RATE]].iloc[0]
            _draw(pair[0], pair[1], curve, transitions(run, curve), looks[label].color)
            for axis in pair:
                axis.set_xlim(0, _over(curve))
                axis.locator_params(axis="x", nbins=3)
            title = f"{names[label]}\n{words.setting({DEPTH: layers})}, {words.rate(rate)}"
            pair[0].set_title(broken(title, 1.7), fontsize=SMALL, parse_math=False)
        for row, text in zip(rows, ("loss (nats)", "test accuracy"), strict=True):
            row[0].set_ylabel(text, fontsize=SMALL)
        heading = f"{kind}: {min(each, counts[kind])} of {counts[kind]} runs"
        top[0].text(0, 0, heading, fontsize=LARGE, fontweight="bold", in_layout=False)
    labels(figure, "training step", "")
    legend(figure, _handles())
    return figure


def _over(curve: pd.DataFrame) -> float:
    """Twice the steps after which the test loss stays within 5 % of its range from its end; at
    most all."""
    loss, last = curve["test_loss"].ffill(), float(curve["step"].iloc[-1])
    far = (loss - loss.iloc[-1]).abs() > 0.05 * (loss.max() - loss.min())
    return min(last, 2 * float(curve.loc[far, "step"].max())) if far.any() else last


def _handles() -> dict[str, Artist]:
    return {
        "test": Line2D([], [], color="black"),
        "train": Line2D([], [], color="black", alpha=0.35),
        "transition": Patch(color=GRAY, alpha=0.3, linewidth=0),
    }


def _draw(
    loss: Axes, accuracy: Axes, curves: pd.DataFrame, falls: pd.DataFrame, color: str
) -> None:
    """One setting: its loss, and its accuracy below."""
    last = max(1, int(curves["step"].max()))
    for axis in (loss, accuracy):
        axis.axis("on")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=SMALL)
        axis.set_xlim(0, last)
        axis.locator_params(axis="x", nbins=5)
        for start, end in falls[["start", "end"]].to_numpy():
            axis.axvspan(start, end, color=GRAY, alpha=0.2, linewidth=0)
    for _, curve in curves.groupby("run_id"):
        loss.plot(curve["step"], curve["train_loss"], color=color, alpha=0.35, linewidth=1)
        loss.plot(curve["step"], curve["test_loss"], color=color, linewidth=1.1)
        accuracy.plot(curve["step"], curve["test_accuracy"], color=color, linewidth=1.1)
    loss.set_ylim(bottom=0)
    loss.locator_params(axis="y", nbins=5)
    loss.tick_params(labelbottom=False)
    accuracy_axis(accuracy)
    accuracy.set_yticks([0, 0.5, 1])
