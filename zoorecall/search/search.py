"""A search in every setting of a grid with ranges, by ask and tell."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.storages import BaseStorage

from .. import columns
from ..config import RunConfig
from ..errors import UserError
from ..grid import Space
from . import window
from .pruners import PRUNERS
from .samplers import Wanted, make_sampler
from .storage import open_storage
from .study import Study, Tried

MIXER_PATH = ("model", "mixer")


class Answer(NamedTuple):
    """What a setting's search has found: the best values, their accuracy (the mean over their
    seeds), and in how many runs."""

    setting: str
    values: dict[str, Any]
    accuracy: float
    runs: int


class Search:
    """Which runs to train next, and which to end early.

    >>> search = Search(load_space(path), storage="results/NAME/study.log", folder="results/NAME")
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
        folder: str | Path,
        sampler: str | None = None,
        pruner: str = "plateau",
        runs: int | None = None,
        seconds: float | None = None,
        known: Mapping[str, float] | None = None,
    ):
        """`storage` is a journal's path or a database's URL, which other searches may use at the
        same time, each with a results `folder` of its own. It has at most so many `runs` in all,
        earlier ones included, and asks for none after so many `seconds`. `known` are the test
        accuracies of runs that are trained already, by run id, which are not asked for.

        Raises UserError where there is no such sampler, pruner or storage.
        """
        if pruner not in PRUNERS:
            raise UserError(f"there is no pruner {pruner!r}, should be one of {', '.join(PRUNERS)}")
        self._sampler = make_sampler(sampler, space.settings, runs)
        self._known = {**(known or {})}
        self._max_runs = np.inf if runs is None else runs
        self._deadline = np.inf if seconds is None else time.monotonic() + seconds
        opened, names = open_storage(storage), study_names(space)
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
                str(Path(folder).resolve()),
                self._sampler.optuna,
            )
            for name, setting in zip(names, space.settings, strict=True)
        ]
        self._wanted: dict[str, list[Wanted]] = {}
        self._again = [(study, run) for study in self._studies for run in study.interrupted()]
        self._owner = {run.run_id: study for study, run in self._again}

    def ask(self, free: int) -> list[RunConfig]:
        """Up to `free` runs to train now, from the settings in turn; none where there are none
        before running ones have ended, or ever, which `finished` tells. Those that an earlier
        search into this folder had not ended come first."""
        found: list[RunConfig] = []
        while len(found) < free and (run := self._next()):
            if run.run_id in self._known:
                self.ended(run.run_id, self._known[run.run_id])
            else:
                found.append(run)
        return found

    def _next(self) -> RunConfig | None:
        if self._again:
            return self._again.pop(0)[1]
        while study := self._next_study():
            wanted = self._wanted[study.name].pop(0)
            run = study.start(wanted.seed, wanted.values, self._owner)
            if run is not None:
                self._owner[run.run_id] = study
                return run
        return None

    def _next_study(self) -> Study | None:
        """The study with the fewest runs of those that want one, within the budget."""
        done = {study.name: study.started for study in self._studies}
        if time.monotonic() >= self._deadline or sum(done.values()) >= self._max_runs:
            return None
        for study in sorted(self._studies, key=lambda study: done[study.name]):
            if not self._wanted.get(study.name):
                wanted = self._sampler.wanted(study.setting, study.tried())
                self._wanted[study.name] = wanted
            if self._wanted[study.name]:
                return study
        return None

    def evaluated(self, run_id: str, step: int, values: Mapping[str, float]) -> bool:
        """Note a run's evaluation after this step; whether it should end now, pruned."""
        return self._owner[run_id].evaluated(run_id, step, values["test_accuracy"])

    def ended(self, run_id: str, test_accuracy: float | None, pruned: bool = False) -> None:
        """Note a run's end, with the accuracy of its last evaluation; None if it failed."""
        self._owner.pop(run_id).ended(run_id, test_accuracy, pruned)
        if test_accuracy is not None:
            self._known[run_id] = test_accuracy

    @property
    def expected_runs(self) -> int:
        """About how many runs are still to come, before any budget of time."""
        left = [self._sampler.expected(x.setting) - x.started for x in self._studies]
        return int(min(sum(max(0, x) for x in left), self._max_runs))

    @property
    def finished(self) -> bool:
        """Whether no run is being trained, here or by another search into the same storage, and
        none will be asked for."""
        running = self._owner or any(study.running for study in self._studies)
        return not running and self._next_study() is None

    def answers(self) -> list[Answer]:
        """The best of each setting that has a run which is over."""
        return [answer for study in self._studies if (answer := _answer(study))]


def _answer(study: Study) -> Answer | None:
    over: dict[str, list[Tried]] = {}
    for one in study.tried():
        if one.accuracy is not None:
            over.setdefault(repr(sorted(one.values.items())), []).append(one)
    if not over:
        return None
    means = np.array([np.mean([one.accuracy for one in runs]) for runs in over.values()])
    each = [runs[0].values for runs in over.values()]
    best = int(means.argmax())
    if [*study.setting.ranges] == [columns.RATE]:
        order = np.argsort([values[columns.RATE] for values in each])
        x = np.log10([each[i][columns.RATE] for i in order])
        best = int(order[window.best(x, means[order])])
    return Answer(study.name, each[best], float(means[best]), sum(map(len, over.values())))


def study_names(space: Space) -> list[str]:
    """A name for the study of each setting, which holds for as long as setting and ranges do: its
    mixer, whatever else tells it from the others, and a hash."""
    firsts = [setting.first for setting in space.settings]
    told = [
        {".".join(path): node.value for path, node in setting.settings if path[:2] != MIXER_PATH}
        for setting in space.settings
    ]
    names = []
    for setting, run, axes in zip(space.settings, firsts, told, strict=True):
        varied = {key: x for key, x in axes.items() if any(one.get(key) != x for one in told)}
        ranges = {path: [x.kind, *x.values] for path, x in setting.ranges.items()}
        code = columns.digest({"run": run.run_id, "ranges": ranges})
        words = [f"{columns.name(key)} {value}" for key, value in varied.items()]
        names.append(", ".join([run.model.mixer.label, *words, code]))
    return names
