"""A search in every setting of a grid with ranges, by ask and tell."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.storages import BaseStorage

from .. import columns
from ..analysis.windows import Window, learning_rate_window
from ..config import RunConfig
from ..errors import UserError
from ..grid import Space
from . import window
from .pruners import PRUNERS
from .samplers import Proposed, Wanted, make_sampler
from .storage import open_storage
from .study import Study, Tried, key

MIXER_PATH = ("model", "mixer")


class Answer(NamedTuple):
    """What a setting's search has found: the best values, their accuracy (the mean over their
    seeds), and how many runs of the setting are over."""

    setting: str
    values: dict[str, Any]
    accuracy: float
    runs: int
    window: Window | None
    """Of all of them, pruned ones too, where learning rates alone are searched."""


class Search:
    """Which runs to train next, and which to end early.

    >>> search = Search(load_space(path), storage="results/NAME/study.log")
    >>> while not search.finished:
    ...     for run in search.ask(free=8):
    ...         for step, values in training(run):
    ...             if pruned := search.evaluated(run.run_id, step, values):
    ...                 break
    ...         search.ended(run.run_id, values["test_accuracy"], pruned)
    """

    def __init__(
        self,
        space: Space,
        *,
        storage: str | Path | BaseStorage,
        folder: str | Path | None = None,
        sampler: str | None = None,
        pruner: str = "plateau",
        runs: int | None = None,
        seconds: float | None = None,
        known: Mapping[str, float] | None = None,
    ):
        """`storage` is a journal's path or a database's URL, which other searches may use at the
        same time if each has a results `folder` of its own. It has at most so many `runs` in all,
        earlier ones included, and asks for none after so many `seconds`. `known` are the test
        accuracies of runs that are trained already, by run id, which are not asked for.

        Raises UserError where there is no such sampler, pruner or storage.
        """
        if pruner not in PRUNERS:
            raise UserError(f"there is no pruner {pruner!r}, should be one of {', '.join(PRUNERS)}")
        self._sampler = make_sampler(sampler, space.settings, runs)
        self._max_runs = sys.maxsize if runs is None else runs
        self._deadline = np.inf if seconds is None else time.monotonic() + seconds
        opened, names = open_storage(storage), study_names(space)
        optunas = self._sampler.optuna if isinstance(self._sampler, Proposed) else None
        self._studies = [
            Study(
                optuna.create_study(
                    storage=opened,
                    study_name=name,
                    direction="maximize",
                    pruner=PRUNERS[pruner](),
                    load_if_exists=True,
                ),
                setting,
                None if folder is None else str(Path(folder).resolve()),
                optunas,
            )
            for name, setting in zip(names, space.settings, strict=True)
        ]
        self._known = {
            str(one.run_id): one.accuracy
            for study in self._studies
            for one in study.tried()
            if one.accuracy is not None
        } | {**(known or {})}
        self._wanted: dict[str, list[Wanted]] = {}
        self._again = [(study, run) for study in self._studies for run in study.interrupted()]
        self._owners: dict[str, list[Study]] = {}  # of the runs in training: a run may be of two

    def ask(self, free: int) -> list[RunConfig]:
        """Up to `free` runs to train now, from the settings in turn; none where there are none
        before running ones have ended, or ever, which `finished` tells. Those that an earlier
        search into this folder had not ended come first."""
        found: list[RunConfig] = []
        while len(found) < free and (started := self._next()):
            study, run = started
            owners = self._owners.setdefault(run.run_id, [])
            owners.append(study)
            if len(owners) > 1:
                continue  # it is in training
            accuracy = self._known.get(run.run_id, study.accuracy_of(run.run_id))
            if accuracy is None:
                found.append(run)
            else:
                self.ended(run.run_id, accuracy)
        return found

    def _next(self) -> tuple[Study, RunConfig] | None:
        if self._again:
            return self._again.pop(0)
        while study := self._next_study():
            wanted = self._wanted[study.name].pop(0)
            if run := study.start(wanted.seed, wanted.values):
                return study, run
        return None

    def _next_study(self) -> Study | None:
        """The study with the fewest runs of those that want one, within the budget."""
        if self._spent:
            return None
        for study in sorted(self._studies, key=lambda study: study.started):
            tried = study.tried()
            there = {key(one.values, one.seed) for one in tried}

            def new(wanted: list[Wanted], there: set[str] = there) -> list[Wanted]:
                return [x for x in wanted if x.values is None or key(x.values, x.seed) not in there]

            self._wanted[study.name] = new(self._wanted.get(study.name, [])) or new(
                self._sampler.wanted(study.setting, tried)
            )
            if self._wanted[study.name]:
                return study
        return None

    @property
    def _spent(self) -> bool:
        """Whether its time is over, or all its runs are started."""
        started = sum(study.started for study in self._studies)
        return time.monotonic() >= self._deadline or started >= self._max_runs

    def evaluated(self, run_id: str, step: int, values: Mapping[str, float]) -> bool:
        """Note a run's evaluation after this step; whether it should end now, pruned."""
        accuracy = values["test_accuracy"]
        return all([x.evaluated(run_id, step, accuracy) for x in self._owners[run_id]])

    def ended(self, run_id: str, test_accuracy: float | None, pruned: bool = False) -> None:
        """Note a run's end, with the accuracy of its last evaluation; None if it failed."""
        for study in self._owners.pop(run_id):
            study.ended(run_id, test_accuracy, pruned)
        self._known[run_id] = test_accuracy or 0.0

    @property
    def expected_runs(self) -> list[int]:
        """About how many runs of each setting are still to come, before any budget of time."""
        most = [max(0, self._sampler.expected(x.setting) - x.started) for x in self._studies]
        left = max(0, self._max_runs - sum(study.started for study in self._studies))
        found = [0] * len(most)
        for given, i in enumerate(sorted(range(len(most)), key=most.__getitem__)):
            found[i] = min(most[i], left // (len(most) - given))  # they take turns
            left -= found[i]
        return found

    @property
    def finished(self) -> bool:
        """Whether it trains no run and will ask for none: its budget is spent, or no other search
        into the same storage trains one on which more could depend."""
        if self._again or self._owners:
            return False
        others = any(study.running for study in self._studies)
        return self._spent or not (others or self._next_study())

    def runs(self) -> list[RunConfig]:
        """All that searches into this folder have asked for, finished or not."""
        return [run for study in self._studies for run in study.runs()]

    def answers(self) -> list[Answer]:
        """The best of each setting that has a run which is over. A run that was pruned and has been
        trained to its end since is known by that."""
        return [answer for study in self._studies if (answer := _answer(study, self._known))]


def _answer(study: Study, known: Mapping[str, float]) -> Answer | None:
    runs = {
        x.run_id: x._replace(accuracy=known.get(x.run_id, x.accuracy))
        for x in study.tried()
        if x.run_id and x.accuracy is not None
    }
    if not runs:
        return None
    over: dict[str, list[Tried]] = {}
    for one in runs.values():
        over.setdefault(repr(sorted(one.values.items())), []).append(one)
    means = np.array([np.mean([one.accuracy for one in seeds]) for seeds in over.values()])
    each = [seeds[0].values for seeds in over.values()]
    best, found = int(means.argmax()), None
    if [*study.setting.ranges] == [columns.RATE]:
        order = np.argsort([values[columns.RATE] for values in each])
        rates = np.array([each[i][columns.RATE] for i in order])
        best = int(order[window.best(np.log10(rates), means[order])])
        found = learning_rate_window(rates, means[order])
    return Answer(study.name, each[best], float(means[best]), len(runs), found)


def study_names(space: Space) -> list[str]:
    """A name for the study of each setting, which holds for as long as setting and ranges do: its
    mixer, whatever else tells it from the others, and a hash."""
    told = [
        {".".join(path): node.value for path, node in setting.settings if path[:2] != MIXER_PATH}
        for setting in space.settings
    ]
    names = []
    for setting, axes in zip(space.settings, told, strict=True):
        varied = {key: x for key, x in axes.items() if any(one.get(key) != x for one in told)}
        words = [f"{columns.name(key)} {value}" for key, value in varied.items()]
        names.append(", ".join([setting.first.model.mixer.label, *words, setting.code]))
    return names
