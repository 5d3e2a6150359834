"""Which runs to end before their last step.

On associative recall, a run often waits long with one pair recalled, or none, and then solves its
task within a few hundred steps. A rule that compares runs at one step, such as successive halving,
ends those that wait; `experiments/tune_replay.py` counts them.
"""

from collections.abc import Callable

from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from ..columns import SOLVED

NUM_STEPS = "num_steps"
"""The attribute of a trial that holds how many steps its run has."""

PATIENCE = 0.6
"""The share of its steps for which a run may wait."""

PROMISING = 0.5
"""The accuracy that a run must have had by then: half of the answers."""


class PlateauPruner(BasePruner):
    """Ends a run that has recalled half of the answers at none of its evaluations in the first
    `patience` of its steps. A run that had, and fell back, goes on: it may come again when its
    learning rate has fallen. Other runs do not count."""

    def __init__(self, patience: float = PATIENCE, promising: float = PROMISING):
        self.patience, self.promising = patience, promising

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        values = trial.intermediate_values
        late = bool(values) and max(values) >= self.patience * trial.user_attrs[NUM_STEPS]
        return late and max(values.values()) < self.promising


class HalvingPruner(BasePruner):
    """Successive halving by Optuna, asynchronous: of the runs that come to a rung, the best 1 in
    `factor` go on. The rungs are at `1 / factor` of a run's steps, and that of these. A run that
    solves its task already goes on whatever others do."""

    def __init__(self, factor: int = 4, rungs: int = 2):
        self.factor, self.rungs = factor, rungs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        values = trial.intermediate_values
        first = max(1, trial.user_attrs[NUM_STEPS] // self.factor**self.rungs)
        halving = SuccessiveHalvingPruner(first, self.factor)
        return halving.prune(study, trial) and values[max(values)] < SOLVED


PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "plateau": PlateauPruner,
    "halving": HalvingPruner,
    "none": NopPruner,
}
"""By name, the default first."""
