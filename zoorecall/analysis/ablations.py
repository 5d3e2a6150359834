"""Ablations: what a change of one setting costs, and whether what is left solves the task.

Okpekpe and Orvieto 2025 (arXiv 2508.19029), table 1, marks a variant as solving where it reaches
95 % with any combination of length and width; `verdicts` is that mark, with a third answer for
what the seeds leave open.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..columns import DEPTH, MIXER
from .accuracy import accuracies, best_accuracies, with_baselines
from .intervals import Estimate, mean_difference


def ablations(runs: pd.DataFrame, baseline: Mapping[str, object]) -> pd.DataFrame:
    """One row a setting, the baselines among them: its accuracy and the difference from its
    baseline's, both held out and each with its t interval over seeds, and the verdict.

    The baseline has the values that `baseline` gives, such as {"mixer": "mamba"}, and agrees with
    the setting in all other columns. Seeds are `paired` where the two share two or more. The
    difference from a baseline that was not run is NaN. Raises ValueError where none was.
    """
    rows = []
    for one, other in with_baselines(accuracies(runs), baseline):
        difference, seeds, paired = Estimate(np.nan, np.nan, np.nan), 0, False
        if other is not None:
            difference, pairing = mean_difference(one.held_out, other.held_out)
            difference = difference.within(-1, 1)
            seeds, paired = pairing.num_seeds, pairing.paired
        rows.append(
            {
                **one.setting,
                "is_baseline": other is one,
                "best_rate": one.rates[one.best],
                "edge": one.edge,
                **one.accuracy.columns("accuracy"),
                **difference.columns("difference"),
                "seeds": seeds,
                "paired": paired,
                "verdict": one.verdict(),
            }
        )
    return pd.DataFrame(rows)


def verdicts(runs: pd.DataFrame, by: Sequence[str] = (MIXER, DEPTH)) -> pd.DataFrame:
    """One row a variant: whether it solves the task with any of its other settings.

    `solving` of `settings` solve; `accuracy` is the best one's, with its t interval.
    """
    settings, rows = best_accuracies(runs), []
    for key, group in settings.groupby(list(by), dropna=False):
        best: pd.Series = group.iloc[int(group["accuracy"].argmax())]
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "verdict": of_any(group["verdict"]),
                **{name: best[name] for name in ("accuracy", "accuracy_low", "accuracy_high")},
                "solving": int((group["verdict"] == "solves").sum()),
                "settings": len(group),
                "seeds": int(best["seeds"]),
            }
        )
    return pd.DataFrame(rows)


def of_any(verdicts: Iterable[str]) -> str:
    """The verdict on a variant from those on its settings: `solves` if one does, `does not solve`
    if none does, else `undecided`."""
    found = set(verdicts)
    if "solves" in found:
        return "solves"
    return "does not solve" if found == {"does not solve"} else "undecided"
