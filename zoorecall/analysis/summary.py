"""What a table of runs comes to, computed once: settings, accuracies, windows, kinds of training.

Terminal, page, figures and notebooks show a `Summary`; they only put it into words and pictures.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .. import words
from ..columns import MIXER, RATE, RUN_ID, SEED, SOLVED, name, short_labels
from ..results import Results
from ..tables import interval
from .accuracy import Accuracies, accuracies, by_learning_rate, setting_columns, with_pairs
from .bumps import classify, transitions
from .floors import without_recall
from .intervals import Estimate, share
from .outcomes import counted, outcomes
from .windows import Windows, windows_of


@dataclass(frozen=True)
class Setting:
    """What one setting came to: `one` has its accuracies, `outcomes` the kind of each of its runs,
    a row a seed and a column a learning rate."""

    mixer: str
    """its mixer, as a grid names it"""
    title: str
    """what people call that"""
    place: str
    """the setting but for its mixer, as a panel is called"""
    one: Accuracies
    windows: Windows
    outcomes: pd.DataFrame
    floor: float

    @property
    def values(self) -> dict[str, object]:
        """The value of each column that tells settings apart."""
        return self.one.setting

    @property
    def accuracy(self) -> Estimate:
        """Held out, with its t interval over seeds."""
        return self.one.accuracy

    @property
    def diverged(self) -> tuple[float, ...]:
        """The learning rates of its diverged runs."""
        return self.one.diverged

    @property
    def slices(self) -> dict[str, float]:
        """Accuracy by slice of the task, the mean over seeds, each at its rate of `accuracy`."""
        at = self.one.held_out_at.items()
        return {
            name: pd.Series([table[rate][seed] for seed, rate in at], dtype=float).mean()
            for name, table in self.one.slices.items()
        }

    @property
    def solved(self) -> int:
        """How many seeds solve, each at the learning rate that is best for the others."""
        return int((self.one.held_out >= SOLVED).sum())

    @property
    def solves(self) -> bool:
        """Whether the mean over seeds does, at any learning rate."""
        return self.windows.mean.islands > 0

    @property
    def at_best(self) -> pd.Series:
        """The kind of each run at the best learning rate."""
        return self.outcomes.iloc[:, self.one.best].dropna()

    @property
    def outcome(self) -> str:
        """The verdict; with one seed, whether that `reaches` or `stays below`."""
        if len(self.one.held_out) > 1:
            return self.one.verdict()
        return "reaches" if self.solves else "stays below"


class Summary:
    """A table of runs, and what it comes to.

    `runs` are ordered by setting, learning rate and seed; `columns` tell one setting from another,
    the mixer first; `names` says how a grid names each mixer, `titles` what people call it.
    """

    def __init__(self, runs: pd.DataFrame, curves: pd.DataFrame):
        self.columns = setting_columns(runs)
        order = [*self.columns, RATE, SEED]
        self.runs, self.curves = runs.sort_values(order, ignore_index=True), curves
        self.names = short_labels(self.runs[MIXER].sort_values())
        self.titles = words.mixer_names(self.runs)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting, ordered by mixer, layers, width, length."""
        kinds = self.runs.assign(
            kind=self.runs[RUN_ID].map(self.outcomes), floor=without_recall(self.runs)
        )
        by_setting = dict(iter(kinds.groupby(self.columns, dropna=False)))
        return tuple(
            Setting(
                mixer=self.names[str(one.setting[MIXER])],
                title=self.titles[str(one.setting[MIXER])],
                place=words.setting(
                    with_pairs({key: one.setting[key] for key in self.columns[1:]}, group)
                ),
                one=one,
                windows=windows_of(one),
                outcomes=group.pivot(index=SEED, columns=RATE, values="kind"),
                floor=float(group["floor"].iloc[0]),
            )
            for one, group in zip(accuracies(self.runs), by_setting.values(), strict=True)
        )

    @cached_property
    def by_rate(self) -> pd.DataFrame:
        """The accuracy of every setting at every learning rate."""
        return by_learning_rate(self.runs, self.columns)

    @cached_property
    def outcomes(self) -> pd.Series:
        """What each run came to, by run id; see `outcomes.KINDS`."""
        return outcomes(self.runs, self.curves)

    @cached_property
    def kinds(self) -> pd.Series:
        """The kind of training of each run, by run id; see `bumps.classify`."""
        return classify(self.runs, self.curves).set_index(RUN_ID)["kind"]

    @cached_property
    def transitions(self) -> pd.DataFrame:
        """The sudden falls of each run's loss; see `bumps.transitions`."""
        return transitions(self.runs, self.curves)

    def table(self) -> pd.DataFrame:
        """One row a setting, for people. `accuracy` is held out, with its t interval, and `floor`
        what it would be without recall; `solved` of the seeds do, with the Wilson interval of their
        share; `runs there` says what those at the best learning rate came to. `inner` and `outer`
        are the spans of the window of the mean, in decades, and `edge` says where a window, or the
        best learning rate where there is none, lies at the grid's end, so that more may be beyond.
        `attrs["settings"]` names the columns that tell settings apart.
        """
        parts = dict.fromkeys(part for setting in self.settings for part in setting.slices)
        rows = [self._row(setting, parts) for setting in self.settings]
        found = pd.DataFrame(rows).astype({"state size": "Int64"})
        found.attrs["settings"] = [name(column) for column in self.columns]
        return found

    def for_paper(self) -> pd.DataFrame:
        """`table` as a paper prints it: mixers by their titles, what all settings share left out,
        sizes, and the numbers with their intervals."""
        table = self.table().assign(
            mixer=[one.title for one in self.settings],
            parameters=[one.one.parameters for one in self.settings],
        )
        told = table.attrs["settings"]
        varying = [x for x in told if x == "mixer" or table[x].nunique(dropna=False) > 1]
        numbers = ("best learning rate", *interval("accuracy"), *interval("solved"), "seeds")
        names = [*varying, "parameters", "state size", *numbers, "inner", "outer"]
        return table[[x for x in names if table[x].notna().any()]]

    @staticmethod
    def _row(setting: Setting, parts: dict[str, None]) -> dict[str, object]:
        one, window = setting.one, setting.windows.mean
        seeds = len(one.held_out)
        of_seeds = share(setting.solved, seeds)
        return {name(column): value for column, value in setting.values.items()} | {
            "mixer": setting.mixer,
            "best learning rate": one.rates[one.best],
            **setting.accuracy.columns("accuracy"),
            **(parts | setting.slices),
            "floor": setting.floor,
            "solved": setting.solved,
            "solved_low": of_seeds.low,
            "solved_high": of_seeds.high,
            "seeds": seeds,
            "runs there": counted(setting.at_best),
            "inner": window.inner if window.islands else np.nan,
            "outer": window.outer if window.islands else np.nan,
            "islands": window.islands,
            "edge": setting.windows.edge,
            "rates": len(one.rates),
            "diverged": len(one.diverged),
            "state size": one.state_size,
        }


def summarize(results: Results) -> Summary:
    """What a sweep's results come to."""
    return Summary(results.runs, results.curves)
