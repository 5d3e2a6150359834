"""How often the intervals that the project prints cover the truth, on simulated seeds.

At least 90 times in a hundred where 95 % is said. Where an interval promises less, by the words of
`analysis.intervals`, what it does is counted as well.
"""

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_runs

from zoorecall.analysis.accuracy import accuracies
from zoorecall.analysis.intervals import mean_difference, mean_over_seeds, share
from zoorecall.analysis.sparse_grids import miss_rates
from zoorecall.analysis.windows import window_differences, windows_of

TRIALS = 400


def covered(low, value, high):
    return low <= value <= high


def seeds(values):
    return pd.Series(values, index=range(len(values)))


@pytest.mark.parametrize("number", [2, 3, 5, 10])
def test_t_intervals_of_means_and_differences(number):
    rng = np.random.default_rng(number)
    found = {"mean": [], "paired": [], "independent": []}
    for _ in range(TRIALS):
        shared, one, other = rng.normal(size=(3, number))
        mean = mean_over_seeds(seeds(0.7 + 0.1 * one))
        found["mean"].append(covered(mean.low, 0.7, mean.high))
        first, second = seeds(0.3 + shared + 0.1 * one), seeds(shared + 0.1 * other)
        gap, pairing = mean_difference(first, second)
        assert pairing.paired
        found["paired"].append(covered(gap.low, 0.3, gap.high))
        apart, pairing = mean_difference(first, second.set_axis(range(100, 100 + number)))
        found["independent"].append(covered(apart.low, 0.3, apart.high))
    assert min(np.mean(x) for x in found.values()) >= 0.9, found


@pytest.mark.parametrize("number", [3, 5, 10])
def test_wilson_intervals_cover_on_average_over_shares_and_at_worst_as_said(number):
    rng = np.random.default_rng(0)
    shares = np.linspace(0.01, 0.99, 99)
    intervals = [share(hits, number) for hits in range(number + 1)]
    hits = rng.binomial(number, shares, size=(4000, len(shares)))
    low, high = np.array([x[1:] for x in intervals])[hits].transpose(2, 0, 1)
    each = ((low <= shares) & (shares <= high)).mean(axis=0)
    assert each.mean() >= 0.93
    assert 0.81 <= each.min() <= 0.91  # what the docstring of `intervals` says of the worst


def test_t_intervals_of_seeds_that_solve_or_fail_promise_less_and_say_so():
    rng = np.random.default_rng(0)
    three = rng.binomial(1, 0.8, size=(TRIALS, 3)).astype(float)
    found = [mean_over_seeds(seeds(values)).within(0, 1) for values in three]
    assert 0.4 < np.mean([covered(x.low, 0.8, x.high) for x in found]) < 0.6


def runs_of(accuracy, seeds, rates, mixers=("attention",)):
    """Runs of `accuracy[mixer][trial, seed, rate]`, a trial a width."""
    place = {round(float(np.log10(rate)), 9): i for i, rate in enumerate(rates)}
    return made_up_runs(
        lambda mixer, n, trial, length, x, s: accuracy[mixer][trial, s, place[round(float(x), 9)]],
        mixers=mixers,
        widths=range(len(accuracy[mixers[0]])),
        rates=tuple(rates),
        seeds=range(seeds),
    )


def held_out(top, number, noise):
    """How often the interval covers what a further seed has at the rate that one seed fewer would
    choose, and how much better the best rate looks by the seeds that choose it."""
    rng, rates = np.random.default_rng(number), len(top)
    made = top + noise * rng.normal(size=(200, number, rates))
    chosen = top + noise * rng.normal(size=(number - 1, 20_000, rates)).mean(axis=0)
    truth = top[chosen.argmax(axis=1)].mean()
    found = accuracies(runs_of({"attention": made}, number, np.logspace(-4, -2, rates)))
    cover = np.mean([covered(x.accuracy.low, truth, x.accuracy.high) for x in found])
    return cover, np.mean([x.at_best.mean() for x in found]) - truth


@pytest.mark.parametrize("number", [3, 5])
def test_held_out_accuracy_where_the_best_rate_is_clear(number):
    cover, _ = held_out(np.array([0.2, 0.5, 0.8, 0.7, 0.3]), number, noise=0.03)
    assert cover >= 0.9


def test_held_out_accuracy_where_all_rates_are_equally_good_covers_less_and_says_so():
    cover, optimism = held_out(np.full(9, 0.7), 5, noise=0.05)
    assert 0.78 < cover < 0.9  # what `intervals` says
    assert optimism > 0.02  # by the same seeds


RATES = np.logspace(-5, -1, 17)
X = np.log10(RATES)


def solving(rng, width, spread, trials=150, number=3):
    """Accuracies of 0 and 1 in windows of so many decades in the mean, which differ from seed to
    seed and begin anywhere between two rates."""
    start = rng.uniform(-4, -3.75, size=(trials, 1))
    low, more = start + spread * rng.normal(size=(2, trials, number))
    high = more + width
    return ((low[..., None] <= X) & (high[..., None] >= X)).astype(float)


@pytest.mark.parametrize(("width", "spread"), [(0.2, 0.05), (1.1, 0.2)])
def test_the_width_of_a_window_and_what_sparser_grids_miss(width, spread):
    rng, spacing = np.random.default_rng(3), 2.0
    runs = runs_of({"attention": solving(rng, width, spread)}, 3, RATES)
    decades = [windows_of(one).decades for one in accuracies(runs)]
    assert np.mean([covered(x.low, width, x.high) for x in decades]) >= 0.9
    missed = miss_rates(runs, spacing).dropna(subset="missed_most")
    truth = 1 - width / spacing
    assert len(missed) > 20 and missed["missed_low"].le(truth).mean() >= 0.9
    assert (missed["missed_low"].le(truth) & missed["missed_high"].ge(truth)).mean() >= 0.9


@pytest.mark.parametrize("gap", [0.0, 1.2])
def test_the_difference_of_two_windows(gap):
    rng = np.random.default_rng(4)
    made = {"attention": solving(rng, 1.1, 0.1), "mamba": solving(rng, 1.1 + gap, 0.1)}
    runs = runs_of(made, 3, RATES, mixers=tuple(made))
    found = window_differences(runs, {"mixer": "attention"})
    assert (found["wider_low"].le(gap) & found["wider_high"].ge(gap)).mean() >= 0.9
    wider = (found["verdict"] == "wider").mean()
    assert wider > 0.2 if gap else wider < 0.05
