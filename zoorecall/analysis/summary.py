"""What a table of runs comes to, computed once: settings, accuracies, windows, kinds of training.

Terminal, page, figures and notebooks show a `Summary`; they only put it into words and pictures.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .. import words
from ..columns import MIXER, RATE, RUN_ID, SEED, name, short_labels
from ..results import Results
from .accuracy import Accuracies, accuracies, by_learning_rate, setting_columns, verdict
from .bootstrap import Estimate, mean_over_seeds
from .bumps import classify, transitions
from .windows import Window, learning_rate_window, window_numbers


@dataclass(frozen=True)
class Setting:
    """What one setting came to: `accuracy` at its best learning rate, `decades` of its window."""

    mixer: str
    """what to call its mixer"""
    one: Accuracies
    accuracy: Estimate
    window: Window
    decades: Estimate
    edge: str
    """which of the grid's ends the window touches; without a window, the best rate"""

    @property
    def values(self) -> dict[str, object]:
        """The value of each column that tells settings apart."""
        return self.one.setting

    @property
    def place(self) -> str:
        """The setting but for its mixer, as a panel is called."""
        return words.setting({name: x for name, x in self.values.items() if name != MIXER})

    @property
    def diverged(self) -> tuple[float, ...]:
        """The learning rates of its diverged runs."""
        return self.one.diverged

    @property
    def slices(self) -> dict[str, float]:
        """Accuracy at the best learning rate by slice of the task, the mean over seeds."""
        return {name: x.iloc[:, self.one.best].mean() for name, x in self.one.slices.items()}

    @property
    def solves(self) -> bool:
        return not np.isnan(self.window.low)

    @property
    def outcome(self) -> str:
        """The verdict; with one seed, whether that `reaches` or `stays below`."""
        if len(self.one.at_best) > 1:
            return verdict(self.accuracy, self.one.edge)
        return "reaches" if self.solves else "stays below"


class Summary:
    """A table of runs, and what it comes to.

    `runs` are ordered by setting, learning rate and seed; `columns` tell one setting from another,
    the mixer first; `names` says what to call each mixer.
    """

    def __init__(self, runs: pd.DataFrame, curves: pd.DataFrame):
        self.columns = setting_columns(runs)
        order = [*self.columns, RATE, SEED]
        self.runs, self.curves = runs.sort_values(order, ignore_index=True), curves
        self.names = short_labels(self.runs[MIXER].sort_values())

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting, ordered by mixer, layers, width, length."""
        found = []
        for one in accuracies(self.runs):
            numbers = window_numbers(one)
            found.append(
                Setting(
                    mixer=self.names[str(one.setting[MIXER])],
                    one=one,
                    accuracy=mean_over_seeds(one.at_best),
                    window=learning_rate_window(one.rates, one.mean),
                    decades=Estimate(*(numbers["decades" + end] for end in ("", "_low", "_high"))),
                    edge=numbers["edge"],
                )
            )
        return tuple(found)

    @cached_property
    def by_rate(self) -> pd.DataFrame:
        """The accuracy of every setting at every learning rate."""
        return by_learning_rate(self.runs, self.columns)

    @cached_property
    def kinds(self) -> pd.Series:
        """The kind of training of each run, by run id; see `bumps.classify`."""
        return classify(self.runs, self.curves).set_index(RUN_ID)["kind"]

    @cached_property
    def transitions(self) -> pd.DataFrame:
        """The sudden falls of each run's loss; see `bumps.transitions`."""
        return transitions(self.runs, self.curves)

    def table(self) -> pd.DataFrame:
        """One row a setting, for people: best learning rate, accuracy over seeds there, window,
        size. `edge` says where a window, or the best learning rate where there is no window, lies
        at the grid's end, so that more may be beyond."""
        parts = dict.fromkeys(part for setting in self.settings for part in setting.slices)
        return pd.DataFrame(
            [
                {name(column): value for column, value in setting.values.items()}
                | {
                    "mixer": setting.mixer,
                    "best learning rate": setting.one.rates[setting.one.best],
                    "accuracy": setting.one.at_best.mean(),
                    **(parts | setting.slices),
                    "min": setting.one.at_best.min(),
                    "max": setting.one.at_best.max(),
                    "window": setting.window.decades,
                    "edge": setting.edge,
                    "rates": len(setting.one.rates),
                    "seeds": len(setting.one.at_best),
                    "diverged": len(setting.one.diverged),
                    "state size": setting.one.state_size,
                }
                for setting in self.settings
            ]
        ).astype({"state size": "Int64"})


def summarize(results: Results) -> Summary:
    """What a sweep's results come to."""
    return Summary(results.runs, results.curves)
