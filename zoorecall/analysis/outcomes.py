"""What a run came to: whether it solves its task, and if not, in which way it does not.

A run is of the first kind that fits:

- `diverged`: its loss or gradient was no longer finite.
- `solved`: it ends with a test accuracy of 95 % or more.
- `fell back`: it had that at an evaluation, and lost it again. Papers that stop a run where it
  reaches 99 % do not see it.
- `fits only`: it ends with a training accuracy of 99 % or more, but does not generalize.
- `undertrained`: its test accuracy still rises at the end, by more than `RISING` over the last
  fifth of its steps. (A learning rate that decays to zero ends every rise in time, so this is
  found too seldom rather than too often.)
- `does not fit`: it does not learn even its training examples.
- `fit unknown`: an early version trained it and did not measure its training accuracy.

How the loss went on the way is another question; see `bumps`.
"""

import numpy as np
import pandas as pd

from ..columns import RUN_ID, SOLVED

KINDS = {
    "solved": "ends with 95 % or more",
    "fell back": "had 95 % or more and lost it again",
    "fits only": "learns its training examples (99 % or more) and does not generalize",
    "undertrained": "still rises at the end",
    "does not fit": "does not learn its training examples either",
    "fit unknown": "does not solve; its training accuracy was not measured",
    "diverged": "its loss or gradient was no longer finite",
}
"""Of outcomes, in words and in the order in which tables count them."""

FITS = 0.99
"""The training accuracy from which a run fits its examples."""

RISING = 0.02
"""What a test accuracy must gain over the last fifth of the steps to be still rising."""

LAST = 0.2
"""The share of the steps over which that is asked."""


def outcomes(runs: pd.DataFrame, curves: pd.DataFrame, solved: float = SOLVED) -> pd.Series:
    """The kind of each run by its id, see above. A run without a curve is not `undertrained`."""
    names = ("test_accuracy", "best_test_accuracy", "train_accuracy", "diverged_at")
    test, best, train, diverged_at = (runs.get(name, runs[RUN_ID].map({})) for name in names)
    kinds = {
        "diverged": diverged_at.notna(),
        "solved": test >= solved,
        "fell back": best >= solved,
        "fits only": train >= FITS,
        "undertrained": runs[RUN_ID].map(_rises(runs, curves)) > RISING,
        "does not fit": train.notna(),
    }
    found = pd.Series("fit unknown", index=runs.index)
    for kind, holds in reversed(kinds.items()):
        found[holds] = kind
    return found.set_axis(runs[RUN_ID])


def _rises(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.Series:
    """What each run's test accuracy gains over the last fifth of its steps, by run id.

    Between two evaluations it is taken to rise evenly, so that a run of few evaluations is judged
    as well, and not by what it gained before that fifth.
    """
    if curves.empty:
        return pd.Series(dtype=float)
    starts = (1 - LAST) * runs.set_index(RUN_ID)["num_steps"]
    found = {}
    for run_id, curve in curves.sort_values("step").groupby(RUN_ID):
        steps, accuracy = curve["step"].to_numpy(), curve["test_accuracy"].to_numpy()
        found[run_id] = accuracy[-1] - np.interp(starts.get(run_id, np.nan), steps, accuracy)
    return pd.Series(found, dtype=float)


def counted(kinds: pd.Series) -> str:
    """`2 solved, 1 fell back`."""
    counts = kinds.value_counts()
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
