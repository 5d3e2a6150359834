"""The two forms of key-value-sum side by side."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.key_value_sum import (
    AR,
    EACH,
    FORM,
    NON_AR,
    NOTHING,
    ONE,
    OPERANDS,
    PAIRS,
    TRAINED_ON,
    at_best_rate,
    by_form,
    having,
    main_size,
    size_columns,
)
from zoorecall.tasks.key_value_sum import best_guess

RATES = (1e-3, 1e-2)


def runs_on(recall, accuracy=1.0, pairs=10, operands=3, **axes):
    """Runs that are best at 1e-3, trained on one form of the task or on both."""
    axes = {"layers": (2,), "lengths": (2 * pairs + operands + 2,), "rates": RATES, **axes}
    runs = made_up_runs(lambda *x: accuracy * hat(x[4], -4, -2.9, 2), **axes)
    options = {"num_pairs": pairs, "num_operands": operands, "num_values": 10, "recall": recall}
    return runs.assign(**{f"task.{name}": x for name, x in options.items()})


@pytest.mark.parametrize("as_text", [False, True])
def test_a_form_is_told_as_a_truth_value_or_as_the_text_that_a_table_with_both_holds(as_text):
    values = ("true", "false") if as_text else (True, False)
    runs = pd.concat([runs_on(values[0], 0.5), runs_on(values[1])], ignore_index=True)
    found = by_form(runs).groupby(FORM)["test_accuracy"].max()
    assert found.to_dict() == {AR: 0.5, NON_AR: 1.0}


def test_a_run_on_both_forms_counts_in_each_by_its_slice():
    both = runs_on("both").assign(
        **{"slice.AR.test_accuracy": 0.3, "slice.non-AR.test_accuracy": 0.9}
    )
    alone = runs_on("true", 0.5).assign(**{"slice.AR.test_accuracy": np.nan})
    found = by_form(pd.concat([both, alone], ignore_index=True))
    of = found.groupby([FORM, TRAINED_ON])["test_accuracy"].max()
    assert of.to_dict() == {(AR, EACH): 0.3, (NON_AR, EACH): 0.9, (AR, ONE): 0.5}
    assert len(found) == 2 * len(both) + len(alone)


def test_runs_of_another_task_have_no_forms():
    assert by_form(made_up_runs(lambda *_: 1.0, rates=RATES)).empty


def test_every_seed_stands_at_the_best_rate_of_its_setting():
    forms = by_form(pd.concat([runs_on(True, 0.5), runs_on(False)], ignore_index=True))
    found = at_best_rate(forms)
    assert set(found["train.learning_rate"]) == {1e-3} and len(found) == 2 * 3
    assert found.groupby(FORM)["accuracy"].mean().to_dict() == {AR: 0.5, NON_AR: 1.0}
    assert (found[NOTHING] == best_guess(10, 3, 10)).all()


def test_what_goes_with_a_length_is_a_size_too_and_the_main_one_has_the_most_rows():
    parts = [runs_on(True), runs_on(True, pairs=20), runs_on(True, operands=1, seeds=(42,))]
    rows = at_best_rate(by_form(pd.concat(parts, ignore_index=True)))
    names = size_columns(rows)
    assert names == ["model.num_layers", "model.d_model", OPERANDS]
    assert main_size(rows, names) == {"model.num_layers": 2, "model.d_model": 64, OPERANDS: 3}
    assert set(having(rows, main_size(rows, names))[PAIRS]) == {10, 20}
