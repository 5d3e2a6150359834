"""The search in one setting: an Optuna study, whose trials are runs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from .. import columns
from ..config import RunConfig
from ..grid import Range, Searched
from .pruners import NUM_STEPS

FOLDER = "folder"
"""The attribute of a trial that says by which results folder's search its run is trained."""


class Tried(NamedTuple):
    """A run of a study, of this process or of any other: its values by path, its seed, and where it
    is over its accuracy, that of the last evaluation if it was pruned, and 0 if it failed or was
    refused."""

    values: dict[str, Any]
    seed: int
    accuracy: float | None
    cost: float
    """What of its steps it took, as a share."""
    run_id: str | None
    """None where it was refused: its values cannot go together, or it was in training already."""


def key(values: Mapping[str, Any], seed: int) -> str:
    """Equal for values and a seed that are one run."""
    return repr((seed, sorted(values.items())))


class Study:
    """Starts runs of one setting, and knows what they came to."""

    def __init__(
        self,
        study: optuna.Study,
        setting: Searched,
        folder: str | None,
        sampler: Callable[[int], BaseSampler] | None,
    ):
        """`folder` is that of the search whose runs these are, None where the study has no other.
        `sampler` makes what chooses values, from a seed: not that of an earlier process, whose
        draws it would repeat; None where all values are given."""
        self.setting, self._folder = setting, folder
        self._study = study
        if sampler:
            study.sampler = sampler(self.started)
        self._distributions = {path: _distribution(x) for path, x in setting.ranges.items()}
        self._live: dict[str, Trial] = {}
        self._reported: dict[str, set[int]] = {}

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def running(self) -> int:
        """How many runs are started and not over, also those of other processes."""
        return sum(one.accuracy is None for one in self.tried())

    @property
    def started(self) -> int:
        """How many runs were ever started."""
        return len(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        """All but those whose search was killed before they were a run, or refused."""
        return [
            x
            for x in self._study.get_trials(deepcopy=False)
            if columns.RUN_ID in x.user_attrs
            or (columns.SEED in x.user_attrs and x.state.is_finished())
        ]

    def _own(self) -> list[FrozenTrial]:
        """Those of searches into this folder that are runs."""
        return [
            x
            for x in self._trials()
            if columns.RUN_ID in x.user_attrs and self._folder in (None, x.user_attrs.get(FOLDER))
        ]

    def tried(self) -> list[Tried]:
        return [self._tried(trial) for trial in self._trials()]

    def _tried(self, trial: FrozenTrial) -> Tried:
        steps = max(trial.intermediate_values, default=trial.user_attrs.get(NUM_STEPS, 0))
        over = trial.state.is_finished()
        return Tried(
            values={path: self._value(path, x) for path, x in trial.params.items()},
            seed=trial.user_attrs[columns.SEED],
            accuracy=(trial.value or 0.0) if over else None,
            cost=steps / trial.user_attrs.get(NUM_STEPS, 1) if over else 1.0,
            run_id=trial.user_attrs.get(columns.RUN_ID),
        )

    def accuracy_of(self, run_id: str) -> float | None:
        """What a run has come to, in this process or any other; None where it is not over."""
        found = [x.accuracy for x in self.tried() if x.run_id == run_id and x.accuracy is not None]
        return found[0] if found else None

    def _run(self, trial: FrozenTrial) -> RunConfig:
        one = self._tried(trial)
        return self.setting.run(one.values, one.seed)

    def _value(self, path: str, value: Any) -> Any:
        """A choice that is no plain value is kept by its text."""
        found = self.setting.ranges[path]
        if found.kind != "choices":
            return value
        return found.values[[_text(one) for one in found.values].index(value)]

    def interrupted(self) -> list[RunConfig]:
        """The runs that an earlier search into this folder had started and not ended."""
        found = []
        for trial in self._own():
            if trial.state == TrialState.RUNNING:
                run = self._run(trial)
                self._live[run.run_id] = Trial(self._study, trial._trial_id)
                self._reported[run.run_id] = {*trial.intermediate_values}
                found.append(run)
        return found

    def runs(self) -> list[RunConfig]:
        """All runs that searches into this folder have started."""
        return [self._run(trial) for trial in self._own()]

    def start(self, seed: int, values: Mapping[str, Any] | None) -> RunConfig | None:
        """A new run with these values, or with those that the study's sampler has; None where they
        cannot go together or their run is in training already, here or elsewhere."""
        sampler = self._study.sampler
        if values is not None:
            self._study.sampler = _Given(values)
        try:
            trial = self._study.ask(self._distributions)
        finally:
            self._study.sampler = sampler
        trial.set_user_attr(columns.SEED, seed)
        found = {path: self._value(path, value) for path, value in trial.params.items()}
        try:
            run = self.setting.run(found, seed)
            if any(one.run_id == run.run_id and one.accuracy is None for one in self.tried()):
                raise ValueError(f"run {run.run_id} is being trained")
        except ValueError as error:
            trial.set_user_attr("fault", str(error))
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr(columns.MIXER, run.model.mixer.label)
        trial.set_user_attr(NUM_STEPS, run.train.num_steps)
        if self._folder is not None:
            trial.set_user_attr(FOLDER, self._folder)
        trial.set_user_attr(columns.RUN_ID, run.run_id)  # last: with it the trial counts
        self._live[run.run_id] = trial
        self._reported[run.run_id] = set()
        return run

    def evaluated(self, run_id: str, step: int, accuracy: float) -> bool:
        """Note an evaluation; whether the run should end here. A step that was told before, by a
        process that was killed since, is not told again."""
        trial = self._live[run_id]
        if step not in self._reported[run_id]:
            self._reported[run_id].add(step)
            trial.report(accuracy, step)
        return trial.should_prune()

    def ended(self, run_id: str, accuracy: float | None, pruned: bool) -> None:
        """Note a run's end; an accuracy of None is that of a run that failed."""
        trial = self._live.pop(run_id)
        if accuracy is None or accuracy != accuracy:
            self._study.tell(trial, state=TrialState.FAIL)
        elif pruned and self._reported[run_id]:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, accuracy)


class _Given(BaseSampler):
    """Gives a trial the values that were decided elsewhere."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        value = self._values[param_name]
        return _text(value) if isinstance(param_distribution, CategoricalDistribution) else value


def _distribution(searched: Range) -> BaseDistribution:
    if searched.kind == "choices":
        return CategoricalDistribution([_text(value) for value in searched.values])
    low, high = searched.values
    if searched.kind == "int":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=searched.kind == "log")


def _text(value: Any) -> Any:
    """A choice as Optuna keeps it."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
