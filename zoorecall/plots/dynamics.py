"""Training dynamics with marked transitions (Okpekpe and Orvieto 2025, arXiv 2508.19029,
figure 5)."""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .. import words
from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.bumps import KINDS, classify, transitions
from ..columns import DEPTH, RATE, short_labels
from .style import (
    GRAY,
    LARGE,
    NORMAL,
    SMALL,
    accuracy_axis,
    legend,
    mixer_looks,
    panels,
    rows_and_columns,
)


def training_dynamics(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Loss above accuracy over training at each setting's best learning rate, a line a seed, with
    the transitions of `analysis.bumps` shaded and the kinds of training counted in the title.

    The axis of steps is linear: on a logarithm or a root even a smooth descent has a knee.
    """
    keys, rate = setting_columns(runs), RATE
    best = best_accuracies(runs).rename(columns={"best_rate": rate})[[*keys, rate]]
    settings = list(runs.merge(best).groupby(keys, dropna=False))
    blocks, columns = rows_and_columns(len(settings))
    looks = mixer_looks(runs)
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
        setting = words.setting(dict(zip(keys[1:], key[1:], strict=True)))
        text = f"{setting}\nlearning rate {group[rate].iloc[0]:.1e}\n{kinds}"
        pair[0].set_title(key[0], fontsize=LARGE, color=color, fontweight="bold", pad=36)
        pair[0].text(0.5, 1.03, text, transform=pair[0].transAxes, ha="center", fontsize=SMALL)
        if column == 0:
            pair[0].set_ylabel("loss (nats)", fontsize=NORMAL)
            pair[1].set_ylabel("test accuracy", fontsize=NORMAL)
    figure.supxlabel("training step", fontsize=NORMAL)
    legend(figure, _handles())
    return figure


def curves_by_kind(runs: pd.DataFrame, curves: pd.DataFrame, each: int = 10) -> Figure:
    """Runs of every kind of `analysis.bumps.classify`, a row of panels a kind: loss above accuracy
    over training, up to where nothing more happens, with the transitions shaded.

    Of a kind with more than `each` runs those with the smallest run ids are drawn: the ids are
    hashes, so the choice has nothing to do with what a run shows, and is the same every time.
    """
    kinds = classify(runs, curves).sort_values("run_id")
    counts = kinds["kind"].value_counts()
    shown = [kind for kind in KINDS if kind in counts]
    looks, by_id = mixer_looks(runs), runs.set_index("run_id", drop=False)
    names = short_labels(looks)
    figure, axes = panels(3 * len(shown), each, 1.75, 0.95, height_ratios=[0.4, 3, 2] * len(shown))
    for axis in axes.flat:
        axis.axis("off")
    for kind, (top, *rows) in zip(shown, axes.reshape(len(shown), 3, each), strict=True):
        for column, run_id in enumerate(kinds.loc[kinds["kind"] == kind, "run_id"].head(each)):
            pair, run = [row[column] for row in rows], by_id.loc[[run_id]]
            curve = curves[curves["run_id"] == run_id]
            label, layers, rate = run[["mixer", DEPTH, RATE]].iloc[0]
            _draw(pair[0], pair[1], curve, transitions(run, curve), looks[label].color)
            for axis in pair:
                axis.set_xlim(0, _over(curve))
                axis.locator_params(axis="x", nbins=3)
            lines = [*names[label].split(" ", 1), f"{words.setting({DEPTH: layers})}, {rate:.1e}"]
            pair[0].set_title("\n".join(lines), fontsize=SMALL)
        for row, text in zip(rows, ("loss (nats)", "test accuracy"), strict=True):
            row[0].set_ylabel(text, fontsize=SMALL)
        heading = f"{kind}: {min(each, counts[kind])} of {counts[kind]} runs"
        top[0].text(0, 0, heading, fontsize=LARGE, fontweight="bold", in_layout=False)
    figure.supxlabel("training step", fontsize=NORMAL)
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
