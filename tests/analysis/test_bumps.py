"""Transitions in loss curves, on labelled curves (`made_up.labelled_curves`) and by hand."""

import numpy as np
import pandas as pd
import pytest
from made_up import KINDS, labelled_curves, slowing_curves

from zoorecall.analysis.bumps import classify, find_transitions, transitions

STEPS = np.round(6000 * (np.arange(61) / 60) ** 2)


def logistic(at, width):
    return 1 / (1 + np.exp((STEPS - at) / width))


def test_each_kind_is_recognized_with_precision_and_recall():
    runs, curves, kinds = labelled_curves(200, seed=2025)
    found = classify(runs, curves).set_index("run_id")["kind"]
    for kind in KINDS:
        right = ((found == kind) & (kinds == kind)).sum()
        assert right / (found == kind).sum() >= 0.94, f"precision of {kind}"
        assert right / (kinds == kind).sum() >= 0.94, f"recall of {kind}"


def test_smooth_curves_raise_an_alarm_in_fewer_than_one_of_a_hundred():
    runs, curves, _ = labelled_curves(600, seed=7, kinds=("smooth",))
    assert transitions(runs, curves)["run_id"].nunique() / len(runs) < 0.01


@pytest.mark.parametrize(("correlation", "most"), [(0.0, 0.01), (0.8, 0.05), (0.9, 0.1)])
def test_noise_of_five_percent_that_lasts_raises_as_many_alarms_as_the_docstring_says(
    correlation, most
):
    runs, curves = slowing_curves(300, 11, noise=0.05, correlation=correlation)
    assert transitions(runs, curves)["run_id"].nunique() / len(runs) <= most


def test_a_transition_is_where_the_loss_fell_with_depth_steepness_and_accuracy():
    noise = 0.02 * np.random.default_rng(0).normal(size=61)
    fall = logistic(at=2400, width=80)
    (found,) = find_transitions(STEPS, 3 + 5 * fall + noise, 0.9 * (1 - fall))
    assert 1900 < found.start < 2400 < found.end < 2900
    assert found.depth == pytest.approx(5, rel=0.2)
    assert found.steepness == pytest.approx(found.depth / (found.end - found.start))
    assert found.gain == pytest.approx(0.9, abs=0.15)


def test_two_steps_are_two_transitions_in_order():
    loss = 1 + 3 * logistic(800, 20) + 4 * logistic(3500, 60)
    first, second = find_transitions(STEPS, loss, np.zeros(61))
    assert first.start < 800 < first.end < second.start < 3500 < second.end
    assert second.depth > first.depth


@pytest.mark.parametrize("time", [30, 300, 3000])
def test_a_loss_that_is_ever_slower_to_fall_has_none(time):
    assert find_transitions(STEPS, 9 * np.exp(-STEPS / time), np.zeros(61)) == []


def test_waiting_for_the_warmup_is_no_plateau():
    warmup = 1500
    warm = np.minimum(STEPS, warmup)
    learned = STEPS - warm + warm**2 / (2 * warmup)
    loss = 9 * np.exp(-learned / 300)
    assert find_transitions(STEPS, loss, np.zeros(61))  # on the clock of steps it is one
    assert find_transitions(STEPS, loss, np.zeros(61), warmup_steps=warmup) == []


def test_recovery_from_a_spike_is_no_transition():
    loss = 2 + 6 * np.exp(-STEPS / 800)
    loss[30:34] += 6
    assert find_transitions(STEPS, loss, np.zeros(61)) == []


def test_the_way_down_from_a_rise_is_no_transition_though_it_ends_a_little_lower():
    loss = 8 - 2 * STEPS / STEPS[30]
    loss[30:39], loss[39:] = np.linspace(6, 12, 9), 4.5
    assert find_transitions(STEPS, loss, np.zeros(61)) == []


def test_a_fall_between_two_evaluations_is_found_there():
    (found,) = find_transitions(STEPS, np.where(STEPS < 2000, 8.0, 3.0), np.zeros(61))
    before, after = STEPS[STEPS < 2000][-1], STEPS[STEPS >= 2000][0]
    assert (found.start, found.end, found.depth) == (before, after, 5.0)


def test_noise_alone_is_smooth():
    noise = np.random.default_rng(0).normal(size=61)
    assert classify(*one_run(6 + 0.6 * noise))["kind"].tolist() == ["smooth"]


@pytest.mark.parametrize(("followed", "kind"), [(0.6, "smooth"), (0.4, "memorization")])
def test_memorization_is_half_of_the_fall_that_test_does_not_follow(followed, kind):
    fall = 1 - np.exp(-STEPS / 1000)
    found = classify(*one_run(8 - 7 * followed * fall, train=8 - 7 * fall)).iloc[0]
    assert found["kind"] == kind and found["gap"] == pytest.approx(1 - followed, abs=1e-6)


def one_run(loss, train=None, accuracy=0.0):
    curves = pd.DataFrame({"run_id": "a", "mixer": "hyena", "step": STEPS, "test_loss": loss,
                           "train_loss": loss if train is None else train,
                           "test_accuracy": accuracy})  # fmt: skip
    runs = pd.DataFrame([{"run_id": "a", "mixer": "hyena", "num_steps": 6000, "train.warmup": 0.1}])
    return runs, curves


def test_a_run_that_overfits_after_a_bump_is_a_bump_and_says_how_far_test_is_from_train():
    fall = logistic(1500, 50)
    loss = 1.4 + 6.9 * fall + np.clip(STEPS - 2500, 0, None) / 1000
    train = np.where(STEPS > 2500, 0.01, loss)
    found = classify(*one_run(loss, train, accuracy=0.25 * (1 - fall)), min_gain=0.3).iloc[0]
    assert found["kind"] == "bump without gain"
    assert found["gap"] == pytest.approx((loss[-2] - 0.01) / (loss[0] - 0.01), rel=0.05)


def test_a_loss_that_never_was_finite_is_a_divergence():
    loss = np.full(len(STEPS), np.nan)
    assert classify(*one_run(loss))[["kind", "transitions"]].iloc[0].tolist() == ["divergence", 0]
    assert transitions(*one_run(loss)).empty


def test_a_loss_that_ends_above_its_beginning_has_diverged_though_it_is_finite():
    loss = 5 + 4 * (1 - logistic(3000, 200))
    assert classify(*one_run(loss))["kind"].tolist() == ["divergence"]


@pytest.mark.parametrize(
    ("given_back", "kind"), [(0.4, "bump with gain"), (0.6, "divergence"), (1.0, "divergence")]
)
def test_a_run_that_solved_and_gave_back_over_half_of_its_fall_has_diverged(given_back, kind):
    fall = np.where(STEPS < 4000, 1 - logistic(1000, 40), 1 - given_back)
    found = classify(*one_run(9 - 8.5 * fall, accuracy=fall)).iloc[0]
    assert found["kind"] == kind and found["transitions"] == 1
    assert found["given_back"] == pytest.approx(given_back, abs=0.01)


def test_a_test_loss_that_rises_back_while_the_training_loss_stays_low_is_no_divergence():
    fall = logistic(1000, 40)
    test = 1 + 8 * fall + 9 * np.clip(STEPS / 3000 - 1, 0, 1)
    found = classify(*one_run(test, train=1 + 8 * fall, accuracy=0.25 * (1 - fall))).iloc[0]
    assert test[-1] > test[0] and found["given_back"] == 0
    assert found["kind"] == "bump with gain" and found["gap"] > 1


@pytest.mark.parametrize(("depth", "kind"), [(1.0, "smooth"), (2.0, "divergence")])
def test_a_fall_too_small_to_count_cannot_be_given_back(depth, kind):
    loss = 9 - depth * np.exp(-STEPS / 500) * (1 - np.exp(-STEPS / 30)) / 0.8
    assert classify(*one_run(loss))["kind"].tolist() == [kind]


def test_a_late_spike_is_no_divergence():
    loss = 1 + 8 * np.exp(-STEPS / 500)
    loss[-3:-1] += (7, 0.1)
    assert classify(*one_run(loss))["kind"].tolist() == ["spike"]


def test_a_run_that_diverged_at_once_is_classified():
    runs, curves = one_run(np.full(61, 5.0))
    curves = curves.iloc[:2].assign(test_loss=[5.0, np.nan], train_loss=np.nan)
    assert classify(runs, curves)["kind"].tolist() == ["divergence"]


def test_no_transitions_make_an_empty_table_with_its_columns():
    table = transitions(*one_run(np.full(61, 5.0)))
    assert table.empty and {"run_id", "start", "end", "depth", "gain"} <= set(table)
