"""What training says of a run: its curve, and what that came to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..config import RunConfig


@dataclass
class Curve:
    """One run's evaluations; lists of equal length."""

    step: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    """Mean over the steps since the evaluation before, nats a query; NaN at step 0."""
    max_loss: list[float] = field(default_factory=list)
    """The largest loss of a step since the evaluation before; NaN at step 0."""
    max_grad_norm: list[float] = field(default_factory=list)
    """The largest gradient norm of such a step, before clipping; NaN at step 0."""
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    test_sequence_accuracy: list[float] = field(default_factory=list)
    slice_test_accuracy: dict[str, list[float]] = field(default_factory=dict)
    """Token accuracy by slice of the task; NaN for a slice without a test query, but 0 from where
    the run has diverged."""

    def is_whole(self, slices: Sequence[str]) -> bool:
        """Whether it has an evaluation, of each the same numbers, and these slices."""
        lists = dict(vars(self))
        by_slice = lists.pop("slice_test_accuracy")
        values = [*lists.values(), *by_slice.values()]
        numbers = all(isinstance(x, int | float) for of_name in values for x in of_name)
        whole = bool(self.step) and {*map(len, values)} == {len(self.step)}
        return whole and numbers and [*by_slice] == [*slices]


@dataclass
class RunResult:
    """What training says of one run: the last evaluation, the best, and how it got there.

    A diverged run (a loss or gradient that is not finite) has accuracy 0 and loss NaN from there.
    """

    run: RunConfig
    curve: Curve
    test_accuracy: float
    test_sequence_accuracy: float
    test_loss: float
    train_accuracy: float
    train_sequence_accuracy: float
    train_loss: float
    best_test_accuracy: float
    best_step: int
    steps_to_solve: int | None
    diverged_at: int | None
    stopped_at: int | None
    slice_test_accuracy: dict[str, float]
