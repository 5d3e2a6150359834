"""Learning-rate windows and sparser grids, on curves whose windows are known."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.accuracy import accuracies
from zoorecall.analysis.sparse_grids import ZOOLOGY_RATES, miss_rates, reported
from zoorecall.analysis.summary import Summary
from zoorecall.analysis.windows import (
    learning_rate_window,
    window_differences,
    windows,
    windows_of,
)

RATES = np.logspace(-5, -1, 17)  # a quarter of a decade apart
X = np.log10(RATES)


def curve(low, high, slope=0.1):
    """1 from `low` to `high`, in decades; both on the grid or, with a wide slope, anywhere."""
    return np.array([hat(x, low, high, slope) for x in X])


def test_a_window_goes_from_its_first_to_its_last_rate_and_ends_before_the_next():
    window = learning_rate_window(RATES, curve(-3.5, -2.25))
    np.testing.assert_allclose(np.log10([window.low, window.high]), [-3.5, -2.25])
    np.testing.assert_allclose([window.inner, window.outer], [1.25, 1.75])
    assert window.edge == "" and window.islands == 1


def test_a_single_rate_between_two_failures_has_no_width_but_room_for_one():
    window = learning_rate_window(RATES, 0.95 * curve(-3, -3))
    np.testing.assert_allclose([window.inner, window.outer], [0, 0.5])
    assert window.low == window.high == pytest.approx(1e-3) and window.edge == ""


def test_no_window_where_even_the_best_is_below_but_a_step_in_which_one_may_hide():
    window = learning_rate_window(RATES, 0.94 * curve(-3, -2))
    assert (window.inner, window.islands) == (0, 0) and np.isnan(window.low) and window.edge == ""
    assert window.outer == pytest.approx(0.25)
    assert learning_rate_window(RATES, 0.94 * curve(-3, -2), solved=0.9).inner == pytest.approx(1)


def test_a_window_is_the_widest_island_and_islands_are_counted():
    y = 0.97 * curve(-4.5, -3.5)
    y[X > -1.1] = 0.999  # a rate alone at the end, and the best
    window = learning_rate_window(RATES, y)
    np.testing.assert_allclose(np.log10([window.low, window.high]), [-4.5, -3.5])
    assert window.islands == 2 and window.edge == ""


def test_of_equally_wide_islands_that_of_the_best_is_the_window():
    y = np.maximum(0.96 * curve(-4.5, -4), 0.98 * curve(-3, -2.5))
    np.testing.assert_allclose(np.log10(learning_rate_window(RATES, y).low), -3)


def test_a_seed_at_one_rate_has_no_window_and_one_that_rises_to_the_end_may_have_it_beyond():
    def accuracy(m, n, d, length, x, seed):
        return hat(x, -3, -2) if seed != 777 else 0.2 * (x + 5)

    runs = made_up_runs(accuracy)
    (whole,) = map(windows_of, accuracies(runs))
    assert whole.edge == "high" and whole.inner.tolist() == pytest.approx([1, 1, 0])
    one_rate = runs[
        (runs["seed"] != 777) | (runs["train.learning_rate"] == runs.iloc[0]["train.learning_rate"])
    ]
    (two,) = map(windows_of, accuracies(one_rate))
    assert two.edge == "" and two.inner.to_dict() == pytest.approx({42: 1, 123: 1})


def test_uneven_steps_count_as_they_are():
    rates = RATES[[0, 4, 8, 9, 16]]  # 1e-5, 1e-4, 1e-3, 1.8e-3, 1e-1
    window = learning_rate_window(rates, np.array([0, 1, 1, 0, 0]))
    np.testing.assert_allclose([window.inner, window.outer], [1, 2.25])


@pytest.mark.parametrize(
    ("low", "high", "edge"), [(-6, -3, "low"), (-2, 0, "high"), (-6, 0, "low+high")]
)
def test_windows_that_reach_the_edge_of_the_grid_are_flagged(low, high, edge):
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, low, high))
    assert windows(runs).loc[0, "edge"] == edge
    assert Summary(runs, pd.DataFrame()).table().loc[0, "edge"] == edge


def test_the_edge_that_one_seed_touches_counts():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -1 if s == 42 else -2))
    (one,) = accuracies(runs)
    found = windows_of(one)
    assert found.mean.edge == "" and found.each[42].edge == found.edge == "high"


def test_without_a_window_the_edge_is_where_the_best_rate_lies():
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.5 * hat(x, -1, 0, 2.0))
    assert windows(runs).loc[0, ["inner", "islands", "edge"]].tolist() == [0, 0, "high"]
    table = Summary(runs, pd.DataFrame()).table()
    assert table.loc[0, ["inner", "outer"]].isna().all()


def shifted(mixer, layers, width, length, x, seed):
    """A window of 1 to 1.5 decades, 0.25 decades narrower for each next seed."""
    return hat(x, -3.5 + 0.25 * (42, 123, 777).index(seed), -2)


def test_a_window_comes_with_the_interval_of_the_seeds_own_and_room_for_the_steps():
    row = windows(made_up_runs(shifted)).iloc[0]
    half = 4.302653 * 0.25 / np.sqrt(3)
    np.testing.assert_allclose(row["decades"], 1.25 + 0.25)
    np.testing.assert_allclose(row["decades_low"], 1.25 - half, rtol=1e-6)
    np.testing.assert_allclose(row["decades_high"], 1.75 + half, rtol=1e-6)
    np.testing.assert_allclose(row[["inner", "outer"]].astype(float), [1, 1.5])


def test_the_interval_of_a_window_at_the_grids_end_has_no_upper_end():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -2, -1 if s == 42 else -1.5))
    row = windows(runs).iloc[0]
    assert row["edge"] == "high" and 0 <= row["decades_low"] < row["decades"]
    assert np.isposinf(row["decades_high"])
    assert np.isnan(windows(runs[runs["seed"] == 42]).loc[0, "decades_high"])


def test_a_seed_that_solves_nowhere_counts_with_the_step_in_which_a_window_may_hide():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -2) * (0.5 if s == 42 else 1))
    (one,) = accuracies(runs)
    found = windows_of(one)
    np.testing.assert_allclose(found.inner, [0, 1, 1])
    np.testing.assert_allclose(found.outer, [0.25, 1.5, 1.5])


def test_one_seed_has_a_window_but_no_interval():
    row = windows(made_up_runs(shifted, seeds=(42,))).iloc[0]
    np.testing.assert_allclose(row["inner"], 1.5)
    assert np.isnan(row["decades_low"]) and np.isnan(row["decades_high"])


def test_a_seeds_window_is_that_of_the_rates_it_was_run_at():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -4, -2))
    few = runs[(runs["seed"] != 42) | (runs["train.learning_rate"] > 5e-4)]
    (one,) = accuracies(few)
    assert windows_of(one).each[42].edge == "low" and windows_of(one).each[123].edge == ""


ENDS = {"narrow": (-2.75, -2.5), "wide": (-4, -2), "cut": (-4, 0)}


def test_a_wider_window_is_told_from_one_that_the_grid_cuts_off():
    def accuracy(mixer, layers, width, length, x, seed):
        low, high = ENDS[mixer]
        return hat(x, low, high)

    runs = made_up_runs(accuracy, mixers=tuple(ENDS))
    found = window_differences(runs, {"mixer": "wide"}).set_index("mixer")
    # inner and outer spans: narrow 0.25 and 0.75, wide 2 and 2.5, cut 3 and 3.25
    np.testing.assert_allclose(
        found.loc["narrow", ["wider_low", "wider_high"]].astype(float), [-2.25, -1.25]
    )
    np.testing.assert_allclose(
        found.loc["cut", ["wider_low", "wider_high"]].astype(float), [0.5, 1.25]
    )
    assert found["verdict"].to_dict() == {"cut": "wider", "narrow": "narrower"}
    against_cut = window_differences(runs, {"mixer": "cut"})
    assert set(against_cut["verdict"]) == {"narrower"}


@pytest.mark.parametrize("baseline", ["cut", "wide"])
def test_a_narrower_window_at_the_edge_decides_nothing(baseline):
    def accuracy(mixer, layers, width, length, x, seed):
        return hat(x, -1.5, 0) if mixer == "cut" else hat(x, -4, -2)

    found = window_differences(made_up_runs(accuracy, mixers=("cut", "wide")), {"mixer": baseline})
    assert abs(found.loc[0, "wider"]) > 1  # but beyond the grid it may go on
    assert found["verdict"].tolist() == ["undecided"]


def test_four_rates_miss_a_window_between_them():
    def accuracy(mixer, layers, width, length, x, seed):
        return hat(x, *((-3.25, -3.0) if mixer == "mamba" else (-4, -2)), 0.2)

    runs = made_up_runs(accuracy, mixers=("attention", "mamba"), rates=np.logspace(-5, -1, 49))
    found = reported(runs, ZOOLOGY_RATES).set_index("mixer")
    assert found["missed"].to_dict() == {"attention": False, "mamba": True}
    assert (found["accuracy_low"] <= found["accuracy"]).all()
    assert not found["interpolated"].any()  # every twelfth of a decade was trained
    np.testing.assert_allclose(found.loc["mamba", "accuracy"], 1 - (10 / 3 - 3.25) / 0.2)
    np.testing.assert_allclose(found.loc["mamba", "best_rate"], 10 ** (-10 / 3))
    np.testing.assert_allclose(found.loc["mamba", "lost"], (10 / 3 - 3.25) / 0.2)
    assert found.loc["mamba", "full"] == 1 and found.loc["attention", "lost"] == 0
    unsolved = runs.assign(test_accuracy=runs["test_accuracy"] * 0.9)
    assert not reported(unsolved, ZOOLOGY_RATES)["missed"].any()  # there is nothing to miss


def test_rates_that_were_not_trained_are_interpolated_and_those_beyond_left_out():
    runs = made_up_runs(lambda m, n, d, length, x, s: (x + 5) / 4)
    found = reported(runs, (10**-2.1, 10.0)).iloc[0]
    np.testing.assert_allclose(found["accuracy"], 2.9 / 4)
    assert found["interpolated"]
    assert reported(runs, (10.0,)).empty


def test_a_seed_that_lacks_a_rate_is_not_read_off_by_those_of_others():
    runs = made_up_runs(lambda m, n, d, length, x, seed: 0.0 if seed == 777 else 0.9)
    far = runs["train.learning_rate"] > 10**-3.9
    found = reported(runs[(runs["seed"] != 777) | ~far], ZOOLOGY_RATES).iloc[0]
    assert sorted(found["each"]) == [0.0, 0.9, 0.9]


@pytest.mark.parametrize("spacing", [0.25, 0.5, 2 / 3, 1.0, 2.0])
def test_the_miss_rate_is_that_of_every_shift_tried_by_hand(spacing):
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3.3, -2.7, 1e-9),
                        rates=np.logspace(-5, -1, 41))  # fmt: skip
    found = miss_rates(runs, spacing).iloc[0]
    offsets = np.linspace(0, spacing, 4001)
    grids = offsets[:, None] + spacing * np.arange(-30, 1)
    inside = (grids >= -3.3) & (grids <= -2.7)
    by_hand = 1 - inside.any(axis=1).mean()
    assert found["missed_least"] - 0.002 <= by_hand <= found["missed_most"] + 0.002
    room = found["missed_most"] - found["missed_least"]
    assert room <= 0.2 / spacing + 1e-9  # two steps of the trained grid
    assert (found["missed_low"], found["missed_high"]) == pytest.approx(
        (found["missed_least"], found["missed_most"])
    )  # all seeds have the same window


def test_what_cannot_be_missed_has_no_miss_rate():
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.5 * hat(x, -3, -2))
    assert np.isnan(miss_rates(runs).loc[0, "missed_most"])
    with pytest.raises(ValueError, match="must be positive"):
        miss_rates(runs, 0.0)
