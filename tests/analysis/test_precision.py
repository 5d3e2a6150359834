"""Precisions of training against a reference, on made-up curves whose differences are known."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.intervals import Estimate
from zoorecall.analysis.precision import (
    SMALLER,
    in_all_precisions,
    precision_differences,
    within_spread,
)

SEEDS = (42, 123, 777)
RATES = tuple(np.logspace(-5, -1, 17))


def spread(seed):
    """A range of 0.004 over three seeds, of mean 0."""
    return {42: -0.002, 123: 0.0, 777: 0.002}[seed]


def trained(accuracy, precision, **axes):
    """Runs of `accuracy(x, seed)` in one precision, x being the log10 of the learning rate."""
    made = made_up_runs(lambda m, n, d, length, x, s: accuracy(x, s), **axes)
    return made.assign(**{"train.precision": precision})


def both(bf16, fp32, **axes):
    return pd.concat([trained(bf16, "bf16", **axes), trained(fp32, "fp32", **axes)])


def difference(bf16, fp32, **axes):
    table = precision_differences(both(bf16, fp32, **axes))
    assert table["train.precision"].tolist() == ["bf16"]
    return table.iloc[0]


def inside(x, seed):
    """A window of a decade and two ends that the grid of 17 rates has inside."""
    return hat(x, -3.5, -2.5, slope=0.25) * (0.98 + spread(seed))


def verdicts(row):
    return row[["accuracy_within", "window_within", "within_seed_spread"]].tolist()


def test_equal_curves_do_not_differ():
    row = difference(inside, inside)
    zero = ["accuracy_difference", "window_difference", "largest_difference"]
    assert not row[zero].any() and verdicts(row) == ["yes", "yes", "yes"]
    assert row["seeds"] == 3 and row["rates"] == 17


def test_a_tenth_of_a_percent_is_no_difference_even_where_the_seeds_agree():
    def exact(x, seed):
        return hat(x, -3.5, -2.5, slope=0.25)

    assert difference(lambda x, s: exact(x, s) * 0.9991, exact)["accuracy_within"] == "yes"
    assert difference(lambda x, s: exact(x, s) * 0.9989, exact)["accuracy_within"] == "no"


def test_accuracies_come_with_their_ranges_and_a_loss_beyond_them_is_one():
    row = difference(lambda x, s: inside(x, s) - 0.01, inside)
    names = ["accuracy", "accuracy_min", "accuracy_max"]
    np.testing.assert_allclose(row[names].tolist(), [0.97, 0.968, 0.972])
    reference = [f"reference_{name}" for name in names]
    np.testing.assert_allclose(row[reference].tolist(), [0.98, 0.978, 0.982])
    ends = [f"accuracy_difference{end}" for end in ("", "_low", "_high")]
    np.testing.assert_allclose(row[ends].tolist(), [-0.01] * 3)  # the same of every seed
    assert row["accuracy_within"] == row["within_seed_spread"] == "no"


@pytest.mark.parametrize(("loss", "verdict"), [(0.003, SMALLER), (0.004, SMALLER), (0.005, "no")])
def test_a_difference_on_which_all_seeds_agree_is_not_within_the_spread(loss, verdict):
    row = difference(lambda x, s: inside(x, s) - loss, inside)
    assert row["accuracy_difference_high"] < 0
    assert verdicts(row) == [verdict, "yes", verdict]


def test_a_gain_beyond_the_seed_range_is_a_difference_too():
    assert difference(lambda x, s: inside(x, s) + 0.01, inside)["accuracy_within"] == "no"


@pytest.mark.parametrize(
    ("estimate", "within"),
    [
        (Estimate(0.2, -0.1, 0.5), "yes"),  # the interval has 0
        (Estimate(-0.2, -0.3, 0.0), "yes"),
        (Estimate(0.01, 0.005, 0.015), "yes"),  # as good as equal
        (Estimate(0.1, 0.05, 0.15), SMALLER),  # at most the range
        (Estimate(-0.1, -0.15, -0.05), SMALLER),
        (Estimate(0.2, 0.1, 0.3), "no"),
        (Estimate(-0.2, -0.3, -0.1), "no"),
        (Estimate(0.0, np.nan, np.nan), "undecided"),  # one seed
    ],
)
def test_within_is_by_the_interval_and_what_is_certain_by_the_range(estimate, within):
    assert within_spread(estimate, larger=0.1, equal=0.01) == within


def test_a_narrower_window_is_a_difference_at_equal_best_accuracy():
    def wide(x, seed):
        return hat(x, -4.0, -2.5, slope=0.25) * (0.98 + spread(seed))

    def narrower(x, seed):
        return hat(x, -3.0, -2.5, slope=0.25) * (0.98 + spread(seed))

    row = difference(narrower, wide)
    np.testing.assert_allclose(row["window_difference"], -1.0)
    np.testing.assert_allclose([row["reference_inner"], row["inner"]], [1.5, 0.5])
    assert row["window_difference_low"] == pytest.approx(-1.5)  # room for a step at four ends
    assert row["edge"] == row["reference_edge"] == ""
    assert verdicts(row) == ["yes", "no", "no"]


def test_windows_that_differ_by_less_than_the_steps_of_the_grid_are_within_the_spread():
    row = difference(lambda x, s: hat(x, -3.5, -2.75, 0.25), lambda x, s: hat(x, -3.5, -2.5, 0.25))
    assert row["reference_inner"] - row["inner"] == pytest.approx(0.25)
    assert row["window_within"] == "yes"


def test_windows_whose_seeds_differ_more_than_their_means_are_within_the_spread():
    def shifted(x, seed):
        return hat(x, -4 + 0.5 * SEEDS.index(seed), -2, slope=0.25)

    def other_seed(x, seed):
        return shifted(x, SEEDS[SEEDS.index(seed) - 1])

    row = difference(shifted, other_seed)
    np.testing.assert_allclose([row["inner_min"], row["inner_max"]], [1, 2])
    assert row["window_within"] == "yes"


@pytest.mark.parametrize(
    ("bf16", "fp32", "verdict"),
    [
        ((-6, 0), (-6, 0), "undecided"),  # both may end anywhere beyond
        ((-6, -2), (-6, -2), "undecided"),
        ((-3.5, -2), (-6, -2), "no"),  # the wider can only be wider still
        ((-6, -2), (-3.5, -2), "no"),
        ((-6, -4), (-3.5, -2), "undecided"),  # the narrower may be as wide
        ((-3.5, -2), (-6, -4), "undecided"),
    ],
)
def test_what_the_edge_of_the_grid_hides_is_not_decided(bf16, fp32, verdict):
    row = difference(lambda x, s: hat(x, *bf16), lambda x, s: hat(x, *fp32))
    edges = {True: "low", False: ""}
    both_ends = {(-6, 0): "low+high"}
    assert row["edge"] == both_ends.get(bf16, edges[bf16[0] < -5])
    assert row["reference_edge"] == both_ends.get(fp32, edges[fp32[0] < -5])
    assert row["window_within"] == row["within_seed_spread"] == verdict


def test_a_window_within_the_spread_of_one_that_touches_the_edge_is_not_decided():
    def touching(x, seed):
        return hat(x, -6, -3.5 + 0.25 * (SEEDS.index(seed) - 1), slope=0.25)

    for row in difference(inside, touching), difference(touching, inside):
        assert {row["edge"], row["reference_edge"]} == {"", "low"}
        larger = max(row[f"{x}inner_max"] - row[f"{x}inner_min"] for x in ("", "reference_"))
        assert abs(row["window_difference"]) < larger and row["window_within"] == "undecided"


@pytest.mark.parametrize(("low", "verdict"), [(-4, SMALLER), (-6, "undecided")])
def test_a_decade_that_every_seed_loses_is_certain_unless_the_edge_hides_more(low, verdict):
    def up_to(high):
        return lambda x, seed: hat(x, low, high + 0.75 * SEEDS.index(seed), slope=0.25)

    row = difference(up_to(-3.75), up_to(-2.75))
    assert row["window_difference"] == pytest.approx(-1)
    assert row["inner_max"] - row["inner_min"] == pytest.approx(1.5)
    assert row["window_within"] == verdict


def test_the_largest_difference_at_one_rate_is_found_with_its_sign_and_range():
    def dented(x, seed):
        return inside(x, seed) - 0.4 * np.isclose(x, -3.75) * (1 + spread(seed)) + 0.01

    row = difference(dented, lambda x, s: inside(x, s) + 0.5 * np.isclose(x, -3.75))
    np.testing.assert_allclose(row["largest_difference"], 0.01 - 0.4 - 0.5)
    np.testing.assert_allclose(row["largest_rate"], 10**-3.75)
    np.testing.assert_allclose(row["largest_range"], 0.4 * 0.004)


def test_of_one_seed_nothing_is_decided():
    row = difference(inside, lambda x, s: inside(x, s) - 0.5, seeds=(123,))
    assert row["accuracy_difference"] == pytest.approx(0.5) and row["seeds"] == 1
    assert verdicts(row) == ["undecided"] * 3


def test_only_rates_and_seeds_of_both_precisions_count():
    few = {"rates": RATES[4:13], "seeds": (42, 777)}
    fp32 = trained(inside, "fp32", **few)
    more = pd.concat(
        [trained(lambda x, s: 1.0 if s == 123 or x > -2 else inside(x, s), "bf16"), fp32]
    )
    mamba = trained(inside, "bf16", mixers=("mamba",))
    kept = in_all_precisions(pd.concat([more, mamba]))
    assert len(kept) == 2 * 9 * 2 and set(kept["mixer"]) == {"attention"}
    table = precision_differences(pd.concat([more, mamba]))
    row = table.iloc[0]
    assert len(table) == 1 and (row["rates"], row["seeds"]) == (9, 2)
    assert row["accuracy_difference"] == 0 and verdicts(row) == ["yes", "yes", "yes"]


def test_one_precision_is_compared_with_nothing():
    runs = trained(inside, "bf16")
    assert in_all_precisions(runs).empty and precision_differences(runs).empty


def test_every_mixer_and_precision_has_a_row_of_its_own():
    mixers = {"mixers": ("attention", "delta_net")}
    tf32 = trained(lambda x, s: inside(x, s) - 0.1, "tf32", **mixers)
    table = precision_differences(pd.concat([both(inside, inside, **mixers), tf32]))
    of = table.set_index(["mixer", "train.precision"])["accuracy_difference"].to_dict()
    expected = {(m, p): d for m in mixers["mixers"] for p, d in (("bf16", 0), ("tf32", -0.1))}
    assert of == pytest.approx(expected)


def test_without_the_reference_it_says_so():
    runs = pd.concat([trained(inside, "bf16"), trained(inside, "tf32")])
    with pytest.raises(ValueError, match=r"no runs of the baseline train\.precision = fp32"):
        precision_differences(runs)
