"""What a run came to: each kind on made-up runs, and the first kind that fits."""

import numpy as np
import pandas as pd
import pytest

from zoorecall.analysis.outcomes import KINDS, counted, outcomes


def kind(test, train=0.5, best=None, diverged=np.nan, accuracies=(0.1, 0.3, 0.3, 0.3)):
    """The kind of one run; its curve has these accuracies at 10, 60, 80 and 100 of 100 steps."""
    runs = pd.DataFrame(
        [
            {
                "run_id": "a",
                "test_accuracy": test,
                "best_test_accuracy": max(test, best or 0),
                "train_accuracy": train,
                "diverged_at": diverged,
                "num_steps": 100,
            }
        ]
    )
    steps = [10, 60, 80, 100]
    curves = pd.DataFrame({"run_id": "a", "step": steps, "test_accuracy": accuracies})
    return outcomes(runs, curves)["a"]


RISING = (0.1, 0.2, 0.3, 0.33)


@pytest.mark.parametrize(
    ("expected", "run"),
    [
        ("solved", {"test": 0.95}),
        ("solved", {"test": 1.0, "train": 1.0, "accuracies": RISING}),
        ("fell back", {"test": 0.3, "best": 0.96}),
        ("fell back", {"test": 0.3, "best": 0.96, "train": 1.0}),
        ("fits only", {"test": 0.94, "train": 0.99, "accuracies": RISING}),
        ("undertrained", {"test": 0.33, "accuracies": RISING}),
        ("does not fit", {"test": 0.3, "accuracies": (0.1, 0.2, 0.3, 0.315)}),
        ("does not fit", {"test": 0.3, "train": 0.98}),
        ("fit unknown", {"test": 0.3, "train": np.nan}),
        ("diverged", {"test": 0.96, "diverged": 7.0}),
    ],
)
def test_a_run_is_of_the_first_kind_that_fits(expected, run):
    assert kind(**run) == expected and expected in KINDS


def test_the_rise_is_that_of_the_last_fifth_whatever_the_order_of_rows():
    runs = pd.DataFrame({"run_id": list("ab"), "num_steps": [100, 1000], "test_accuracy": 0.5,
                         "best_test_accuracy": 0.5, "train_accuracy": 0.5,
                         "diverged_at": np.nan})  # fmt: skip
    curves = pd.DataFrame(
        {
            "run_id": ["a", "b", "a", "b", "b"],
            "step": [100, 1000, 70, 70, 790],
            "test_accuracy": [0.5, 0.5, 0.4, 0.1, 0.49],
        }
    )
    assert outcomes(runs, curves).to_dict() == {"a": "undertrained", "b": "does not fit"}
    nothing = outcomes(runs, curves.head(0))
    assert set(nothing) == {"does not fit"}


@pytest.mark.parametrize(
    ("steps", "accuracies", "expected"),
    [
        ((0, 50, 100), (0.1, 0.2, 0.24), "does not fit"),  # 0.016 of it in the last fifth
        ((0, 50, 100), (0.1, 0.2, 0.26), "undertrained"),
        ((0, 79, 81, 100), (0.1, 0.2, 0.3, 0.3), "undertrained"),
        ((0, 60), (0.1, 0.3), "does not fit"),  # nothing is known of the last fifth
    ],
)
def test_of_a_rise_since_before_the_last_fifth_a_share_counts(steps, accuracies, expected):
    runs = pd.DataFrame({"run_id": ["a"], "num_steps": 100, "test_accuracy": accuracies[-1],
                         "train_accuracy": 0.5})  # fmt: skip
    curves = pd.DataFrame({"run_id": "a", "step": steps, "test_accuracy": accuracies})
    assert outcomes(runs, curves)["a"] == expected


def test_what_an_early_version_did_not_measure_is_not_known():
    runs = pd.DataFrame({"run_id": list("ab"), "test_accuracy": [1.0, 0.5]})
    assert outcomes(runs, pd.DataFrame()).tolist() == ["solved", "fit unknown"]


def test_kinds_are_counted_in_one_order():
    kinds = pd.Series(["fits only", "solved", "does not fit", "solved"])
    assert counted(kinds) == "2 solved, 1 fits only, 1 does not fit"
