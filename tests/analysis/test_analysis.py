"""Accuracy of settings, intervals over seeds, and ablations, on runs with known answers."""

import numpy as np
import pandas as pd
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.ablations import ablations, verdicts
from zoorecall.analysis.accuracy import accuracies, best_accuracies
from zoorecall.analysis.bootstrap import (
    Estimate,
    mean_difference,
    mean_over_seeds,
    pair_seeds,
    seed_weights,
)

SEEDS = (42, 123, 777)
PINNED = [[0, 2, 1], [2, 0, 1], [1, 1, 1], [1, 0, 2]]


def test_resamples_weigh_whole_seeds_and_are_pinned():
    weights = seed_weights(3)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[0], 1 / 3)
    assert set((weights[1:] * 3).round(9).ravel()) == {0, 1, 2, 3}
    assert (weights[1:5] * 3).round().astype(int).tolist() == PINNED


def test_the_interval_of_three_seeds_is_their_range():
    found = mean_over_seeds(pd.Series([0.2, 0.5, 0.9], index=SEEDS))
    np.testing.assert_allclose(found, (1.6 / 3, 0.2, 0.9))


def test_intervals_of_many_seeds_match_the_standard_error():
    values = pd.Series(np.random.default_rng(0).normal(size=400))
    found = mean_over_seeds(values)
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * values.std() / 20, rtol=0.1)


def test_one_seed_has_no_interval_and_no_verdict():
    runs = made_up_runs(lambda *_: 1.0, mixers=("attention", "hyena"), seeds=(42,))
    best = best_accuracies(runs)
    assert (best["accuracy"] == 1).all() and (best["verdict"] == "undecided").all()
    table = ablations(runs, {"mixer": "attention"})
    names = ["accuracy_low", "accuracy_high", "difference_low", "difference_high"]
    assert best[["accuracy_low", "accuracy_high", "held_out"]].isna().all(axis=None)
    assert table[names].isna().all(axis=None)
    assert verdicts(runs)["verdict"].tolist() == ["undecided"] * 2


def test_differences_pair_the_seeds_that_both_have():
    noise = pd.Series([0.0, 0.3, 0.6], index=SEEDS)
    first, second = noise + 0.1, pd.concat([noise, pd.Series([5.0], index=[9])])
    found, pairing = mean_difference(first, second)
    assert pairing.paired and pairing.num_seeds == 3
    np.testing.assert_allclose(found, (0.1, 0.1, 0.1))  # the seeds' own ups and downs cancel

    apart, pairing = mean_difference(first, noise.set_axis([1, 2, 3]))
    assert not pairing.paired and apart.low < 0 < apart.high
    np.testing.assert_allclose(apart.value, 0.1)


def test_pairing_ignores_the_order_of_seeds():
    first, second = pd.Index([3, 1, 2]), pd.Index([2, 3, 1])
    pairing = pair_seeds(first, second)
    np.testing.assert_array_equal(
        pd.DataFrame(pairing.first, columns=first)[[1, 2, 3]],
        pd.DataFrame(pairing.second, columns=second)[[1, 2, 3]],
    )


def test_the_best_rate_is_that_of_the_mean_not_of_the_luckiest_run():
    def accuracy(mixer, layers, width, length, x, seed):
        lucky = x == pytest.approx(-2) and seed == 42
        return 1.0 if lucky else 0.6 * hat(x, -3.1, -2.9)

    best = best_accuracies(made_up_runs(accuracy)).iloc[0]
    assert best["best_rate"] == pytest.approx(1e-3)
    assert best["accuracy"] == pytest.approx(0.6)
    assert best["verdict"] == "does not solve"


def test_held_out_accuracy_does_not_profit_from_the_choice_of_rate():
    noise = np.random.default_rng(1).uniform(size=(60, 17, 3))
    rates = iter(noise.ravel())
    runs = made_up_runs(lambda *_: next(rates), widths=range(1, 61))
    best = best_accuracies(runs)
    assert best["accuracy"].mean() > 0.75  # the best of 17 means of pure noise around 0.5
    np.testing.assert_allclose(best["held_out"].mean(), 0.5, atol=0.05)


def test_a_missing_run_changes_no_other():
    runs = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -2) * s / 1000)
    at_best = (runs["train.learning_rate"] - 1e-3).abs() < 1e-9
    one = accuracies(runs[~(at_best & (runs["seed"] == 123))])[0]
    assert one.at_best.notna().all()
    assert one.table.isna().to_numpy().sum() == 1 and not np.isnan(one.resampled()).any()
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
        spread = 0.0 if mixer == "mamba" else 0.01
        np.testing.assert_allclose(row["difference_high"], -LOST[mixer] + spread, atol=1e-9)
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
    assert found.loc["mamba", "solved"] == 1 and found.loc["mamba", "settings"] == 2


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
    assert (
        Estimate(*table.loc[("hyena", 64), ["accuracy", "accuracy_low", "accuracy_high"]]).low > 0
    )
