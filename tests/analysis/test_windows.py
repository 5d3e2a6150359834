"""Learning-rate windows and sparser grids, on curves whose windows are known."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.sparse_grids import ZOOLOGY_RATES, miss_rates, reported
from zoorecall.analysis.summary import Summary
from zoorecall.analysis.windows import (
    learning_rate_window,
    sensitivity,
    window_differences,
    windows,
)

RATES = np.logspace(-5, -1, 17)  # a quarter of a decade apart
X = np.log10(RATES)


def curve(low, high, slope=0.1):
    """1 from `low` to `high`, in decades; both on the grid or, with a wide slope, anywhere."""
    return np.array([hat(x, low, high, slope) for x in X])


def test_a_window_ends_where_the_line_between_rates_crosses_the_threshold():
    window = learning_rate_window(RATES, curve(-3.5, -2.25))
    cut = 0.05 * 0.25  # from 1 at the last rate inside to 0 at the next
    np.testing.assert_allclose(np.log10([window.low, window.high]), [-3.5 - cut, -2.25 + cut])
    np.testing.assert_allclose(window.decades, 1.25 + 2 * cut)
    assert window.edge == ""


def test_a_window_at_half_the_best_is_the_width_at_half_height():
    window = learning_rate_window(RATES, curve(-3, -3, slope=1.0), threshold=0.5)
    np.testing.assert_allclose(window.decades, 1.0)


def test_no_window_where_even_the_best_is_below():
    window = learning_rate_window(RATES, 0.94 * curve(-3, -2))
    assert window.decades == 0 and np.isnan(window.low) and window.edge == ""


def test_a_window_is_contiguous_and_around_the_best():
    y = curve(-4.5, -3.5)
    y[X > -2.6] = 0.96  # wider, but apart and not the best
    np.testing.assert_allclose(np.log10(learning_rate_window(RATES, y).high), -3.5, atol=0.05)


def test_of_equally_good_islands_the_widest_is_the_window():
    y = np.maximum(curve(-5, -4.75), curve(-3.5, -2))
    np.testing.assert_allclose(np.log10(learning_rate_window(RATES, y).low), -3.5, atol=0.05)


def test_a_single_rate_exactly_at_the_threshold_is_a_window_without_width():
    window = learning_rate_window(RATES, 0.95 * curve(-3, -3))
    assert window.decades == 0 and window.low == pytest.approx(1e-3) and window.edge == ""


@pytest.mark.parametrize(
    ("low", "high", "edge"), [(-6, -3, "low"), (-2, 0, "high"), (-6, 0, "low+high")]
)
def test_windows_that_reach_the_edge_of_the_grid_are_flagged(low, high, edge):
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, low, high))
    assert windows(runs).loc[0, "edge"] == edge
    assert Summary(runs, pd.DataFrame()).table().loc[0, "edge"] == edge


def test_without_a_window_the_edge_is_where_the_best_rate_lies():
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.5 * hat(x, -1, 0, 2.0))
    assert windows(runs).loc[0, ["decades", "edge"]].tolist() == [0, "high"]


def shifted(mixer, layers, width, length, x, seed):
    """A window of half a decade, 0.25 decades higher for each next seed."""
    return hat(x, -3.5 + 0.25 * (42, 123, 777).index(seed), -2)


def test_windows_come_with_intervals_over_seeds():
    row = windows(made_up_runs(shifted)).iloc[0]
    assert row["decades_low"] <= row["decades"] <= row["decades_high"]
    np.testing.assert_allclose(row["decades_low"], 1.0, atol=0.05)  # seed 777 alone
    np.testing.assert_allclose(row["decades_high"], 1.5, atol=0.05)  # seed 42 alone
    np.testing.assert_allclose(np.log10(row["centre"]), -2.5, atol=0.02)
    assert row["centre_low"] < row["centre_high"] and row["solved"] == 1
    again = windows(made_up_runs(shifted)).iloc[0]
    assert row.equals(again)


def test_one_seed_has_a_window_but_no_interval():
    row = windows(made_up_runs(shifted, seeds=(42,))).iloc[0]
    np.testing.assert_allclose(row["decades"], 1.5, atol=0.05)
    for name in ("decades", "centre", "half_decades", "area"):
        assert np.isnan(row[f"{name}_low"]) and np.isnan(row[f"{name}_high"])
    assert np.isnan(row["solved"])


def test_sensitivity_is_the_mean_accuracy_over_the_decades():
    np.testing.assert_allclose(sensitivity(X, np.ones((2, 17))), [1, 1])
    np.testing.assert_allclose(sensitivity(X, curve(-3, -3, slope=1.0)), 1 / 4)
    uneven = np.delete(X, [3, 4, 9])
    np.testing.assert_allclose(sensitivity(uneven, (uneven + 5) / 4), 0.5)


def test_a_mixer_that_never_learns_has_no_window_at_half_its_best():
    row = windows(made_up_runs(lambda *_: 0.0)).iloc[0]
    assert row["half_decades"] == 0 and row["area"] == 0


ENDS = {"narrow": (-3, -2.5), "wide": (-4, -2), "cut": (-4, 0)}


def test_a_wider_window_is_told_from_one_that_the_grid_cuts_off():
    def accuracy(mixer, layers, width, length, x, seed):
        low, high = ENDS[mixer]
        return hat(x, low, high)

    runs = made_up_runs(accuracy, mixers=tuple(ENDS))
    found = window_differences(runs, {"mixer": "wide"}).set_index("mixer")
    np.testing.assert_allclose(found["difference"], [1.0 - 0.0, -1.5], atol=0.05)
    assert found["verdict"].to_dict() == {"cut": "wider", "narrow": "narrower"}
    against_cut = window_differences(runs, {"mixer": "cut"})
    assert set(against_cut["verdict"]) == {"narrower"}


@pytest.mark.parametrize("baseline", ["cut", "wide"])
def test_a_narrower_window_at_the_edge_decides_nothing(baseline):
    def accuracy(mixer, layers, width, length, x, seed):
        return hat(x, -1.5, 0) if mixer == "cut" else hat(x, -4, -2)

    found = window_differences(made_up_runs(accuracy, mixers=("cut", "wide")), {"mixer": baseline})
    assert abs(found.loc[0, "difference"]) > 1  # but beyond the grid it may go on
    assert found["verdict"].tolist() == ["undecided"]


def test_four_rates_miss_a_window_between_them():
    def accuracy(mixer, layers, width, length, x, seed):
        return hat(x, *((-3.25, -3.0) if mixer == "mamba" else (-4, -2)), 0.2)

    runs = made_up_runs(accuracy, mixers=("attention", "mamba"), rates=np.logspace(-5, -1, 49))
    found = reported(runs, ZOOLOGY_RATES).set_index("mixer")
    assert found["missed"].to_dict() == {"attention": False, "mamba": True}
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


@pytest.mark.parametrize("spacing", [0.5, 2 / 3, 1.0, 2.0])
def test_the_miss_rate_is_that_of_every_shift_tried_by_hand(spacing):
    runs = made_up_runs(
        lambda m, n, d, length, x, s: hat(x, -3.3, -2.7), rates=np.logspace(-5, -1, 161)
    )
    found = miss_rates(runs, spacing).iloc[0]
    row = windows(runs).iloc[0]
    offsets = np.linspace(0, spacing, 4001)
    grids = offsets[:, None] + spacing * np.arange(-20, 1)
    y = np.interp(
        grids, np.linspace(-5, -1, 161), runs.groupby("train.learning_rate")["test_accuracy"].mean()
    )
    by_hand = (y.max(axis=1) < 0.95).mean()
    np.testing.assert_allclose(found["missed"], by_hand, atol=0.002)
    np.testing.assert_allclose(found["missed"], max(0, 1 - row["decades"] / spacing))
    np.testing.assert_allclose(found["expected"], y.max(axis=1).mean(), atol=0.01)
    np.testing.assert_allclose(found["worst"], y.max(axis=1).min(), atol=0.02)


def test_what_cannot_be_missed_has_no_miss_rate():
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.5 * hat(x, -3, -2))
    assert np.isnan(miss_rates(runs).loc[0, "missed"])
    with pytest.raises(ValueError, match="must be positive"):
        miss_rates(runs, 0.0)
