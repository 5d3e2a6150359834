"""Accuracy of settings and ablations, on runs with known answers."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.ablations import ablations, verdicts
from zoorecall.analysis.accuracy import EQUAL, accuracies, best_accuracies, best_index

SEEDS = (42, 123, 777)


def test_one_seed_has_no_interval_and_no_verdict():
    runs = made_up_runs(lambda *_: 1.0, mixers=("attention", "hyena"), seeds=(42,))
    best = best_accuracies(runs)
    assert (best["accuracy"] == 1).all() and (best["verdict"] == "undecided").all()
    table = ablations(runs, {"mixer": "attention"})
    names = ["accuracy_low", "accuracy_high", "difference_low", "difference_high"]
    assert best[["accuracy_low", "accuracy_high"]].isna().all(axis=None)
    assert table[names].isna().all(axis=None)
    assert verdicts(runs)["verdict"].tolist() == ["undecided"] * 2


def test_the_best_rate_is_that_of_the_mean_not_of_the_luckiest_run():
    def accuracy(mixer, layers, width, length, x, seed):
        lucky = x == pytest.approx(-2) and seed == 42
        return 1.0 if lucky else 0.6 * hat(x, -3.1, -2.9)

    best = best_accuracies(made_up_runs(accuracy)).iloc[0]
    assert best["best_rate"] == pytest.approx(1e-3)
    assert best["at_best"] == pytest.approx(0.6)


def test_rates_that_differ_by_less_than_can_be_told_are_equal_and_the_middle_one_is_best():
    assert best_index(np.array([0.2, 0.999, 0.9995, 1.0, 0.9985])) == 2
    assert best_index(np.array([0.2, 1 - EQUAL, 0.5, 1.0])) == 1
    assert best_index(np.array([1.0, 0.2, 0.2])) == 0


def test_held_out_accuracy_does_not_profit_from_the_choice_of_rate():
    noise = np.random.default_rng(1).uniform(size=(60, 17, 3))
    rates = iter(noise.ravel())
    runs = made_up_runs(lambda *_: next(rates), widths=range(1, 61))
    best = best_accuracies(runs)
    assert best["at_best"].mean() > 0.75  # the best of 17 means of pure noise around 0.5
    np.testing.assert_allclose(best["accuracy"].mean(), 0.5, atol=0.05)


def test_a_rate_is_chosen_by_the_other_seeds():
    steady, lucky = {42: 0.97, 123: 0.96, 777: 0.98}, {42: 0.99, 123: 0.99, 777: 0.0}
    runs = made_up_runs(
        lambda m, n, d, length, x, s: (steady if x < -2.5 else lucky)[s], rates=(1e-3, 1e-2)
    )
    (one,) = accuracies(runs)
    assert one.at_best.to_dict() == pytest.approx(steady)
    assert one.held_out.to_dict() == pytest.approx({42: 0.97, 123: 0.96, 777: 0.0})
    best = best_accuracies(runs).iloc[0]
    assert best["accuracy"] == pytest.approx(1.93 / 3) and best["verdict"] == "undecided"
    assert (best["solved"], best["seeds"]) == (2, 3)


def test_a_seed_is_held_out_among_the_rates_that_it_was_run_at():
    runs = made_up_runs(lambda m, n, d, length, x, s: 1 + x / 10 if s == 42 else 0.5 - x / 10)
    few = runs[(runs["seed"] != 42) | (runs["train.learning_rate"] > 0.05)]
    (one,) = accuracies(few)
    assert one.held_out[42] == one.table.loc[42].dropna().iloc[0]
    apart = few[(few["seed"] == 42) | (few["train.learning_rate"] < 0.01)]
    apart = apart[apart["seed"].isin([42, 123])]
    (one,) = accuracies(apart)  # no rate has two seeds
    assert one.held_out.equals(one.at_best) and np.isnan(one.accuracy.low)


def test_a_missing_run_changes_no_other():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -2) * s / 1000)
    at_best = (runs["train.learning_rate"] - 1e-3).abs() < 1e-9
    one = accuracies(runs[~(at_best & (runs["seed"] == 123))])[0]
    assert one.at_best.notna().all() and one.held_out.notna().all()
    assert one.table.isna().to_numpy().sum() == 1
    column = int(np.argmin(abs(one.rates - 1e-3)))
    np.testing.assert_allclose(one.mean[column], (42 + 777) / 2000)


@pytest.mark.parametrize(
    ("low", "high", "edge"),
    [(-3, -2, ""), (-1.2, 0, "high"), (-9, -4.9, "low"), (-9, 9, "")],
)
def test_a_best_rate_at_the_edge_is_flagged_unless_the_inside_is_as_good(low, high, edge):
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.9 * hat(x, low, high, 1.0))
    best = best_accuracies(runs).iloc[0]
    assert best["edge"] == edge
    assert best["verdict"] == ("undecided" if edge else "does not solve")


@pytest.mark.parametrize(("gain", "edge"), [(0.005, ""), (0.02, "high")])
def test_a_hair_of_accuracy_at_the_edge_is_no_reason_to_look_beyond(gain, edge):
    runs = made_up_runs(lambda m, n, d, length, x, s: 0.25 + gain * (x > -1.1))
    assert best_accuracies(runs).loc[0, "edge"] == edge


LOST = {"mamba": 0.0, "mamba (gate=False)": 0.025, "mamba (conv=False)": 0.5, "hyena": 0.1}


def ablated(mixer, layers, width, length, x, seed):
    spread = 0.0 if mixer == "mamba" else {42: -0.01, 123: 0.0, 777: 0.01}[seed]
    return hat(x, -3, -2) * (0.98 - LOST[mixer] + spread - (width == 32) * 0.3)


def test_ablations_give_difference_interval_and_verdict():
    runs = made_up_runs(ablated, mixers=tuple(LOST), widths=(32, 64))
    table = ablations(runs, {"mixer": "mamba"}).set_index(["mixer", "model.d_model"])
    for (mixer, width), row in table.iterrows():
        np.testing.assert_allclose(row["difference"], -LOST[mixer], atol=1e-9)
        half = 0.0 if mixer == "mamba" else 4.302653 * 0.01 / np.sqrt(3)
        np.testing.assert_allclose(row["difference_high"], -LOST[mixer] + half, atol=1e-6)
        assert row["is_baseline"] == (mixer == "mamba") and row["paired"]
        assert row["verdict"] == (
            "does not solve" if width == 32 or LOST[mixer] > 0.05
            else "undecided" if LOST[mixer] else "solves"
        )  # fmt: skip


def test_a_variant_solves_if_any_of_its_settings_does():
    runs = made_up_runs(ablated, mixers=tuple(LOST), widths=(32, 64))
    found = verdicts(runs).set_index("mixer")
    assert found["verdict"].to_dict() == {
        "mamba": "solves",
        "mamba (gate=False)": "undecided",
        "mamba (conv=False)": "does not solve",
        "hyena": "does not solve",
    }
    assert found.loc["mamba", "solving"] == 1 and found.loc["mamba", "settings"] == 2


def test_an_ablation_can_be_of_another_column_than_the_mixer():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -2), mixers=("a", "b"))
    without = runs.assign(test_accuracy=runs["test_accuracy"] * 0.75)
    both = pd.concat([runs.assign(**{"model.positions": "learned"}),
                      without.assign(**{"model.positions": "none"})])  # fmt: skip
    table = ablations(both, {"model.positions": "learned"})
    changed = table[~table["is_baseline"]]
    assert changed["mixer"].tolist() == ["a", "b"]
    np.testing.assert_allclose(changed["difference"], -0.25)


def test_a_baseline_that_was_not_run_is_an_error_and_one_without_partner_is_nan():
    runs = made_up_runs(ablated, mixers=("mamba", "hyena"), widths=(32, 64))
    with pytest.raises(ValueError, match="no runs of the baseline mixer = based"):
        ablations(runs, {"mixer": "based"})
    partial = runs[(runs["mixer"] == "hyena") | (runs["model.d_model"] == 32)]
    table = ablations(partial, {"mixer": "mamba"}).set_index(["mixer", "model.d_model"])
    assert np.isnan(table.loc[("hyena", 64), "difference"])
