"""Intervals over seeds, against scipy's own tests and numbers of a table."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from zoorecall.analysis.intervals import Estimate, mean_difference, mean_over_seeds, share

SEEDS = (42, 123, 777)
RNG = np.random.default_rng(0)


def samples(*sizes):
    return [pd.Series(RNG.normal(i, i + 1, size=size)) for i, size in enumerate(sizes)]


def test_a_mean_has_its_t_interval():
    (values,) = samples(5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(mean_over_seeds(values), (values.mean(), *expected))


def test_differences_pair_the_seeds_that_both_have():
    first, second = samples(5, 5)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    more = pd.concat([second, pd.Series([5.0], index=[99])]).sample(frac=1, random_state=1)
    found, pairing = mean_difference(first, more)
    np.testing.assert_allclose(found[1:], expected)
    assert pairing.paired and pairing.num_seeds == 5


def test_seeds_that_are_not_shared_are_independent_samples():
    first, second = samples(5, 3)
    second.index = [7, 8, 9]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    found, pairing = mean_difference(first, second)
    np.testing.assert_allclose(found[1:], expected)
    assert not pairing.paired and pairing.num_seeds == 3


def test_a_seeds_own_ups_and_downs_cancel():
    noise = pd.Series([0.0, 0.3, 0.6], index=SEEDS)
    np.testing.assert_allclose(mean_difference(noise + 0.1, noise)[0], (0.1, 0.1, 0.1))
    equal, other = pd.Series([1.0, 1.0]), pd.Series([0.5, 0.5], index=[7, 8])
    np.testing.assert_allclose(mean_difference(equal, other)[0], (0.5, 0.5, 0.5))


def test_one_seed_has_no_interval():
    one = pd.Series([0.5], index=[42])
    for found in (mean_over_seeds(one), mean_difference(one, one + 1)[0]):
        assert np.isnan(found.low) and np.isnan(found.high) and not np.isnan(found.value)
    assert np.isnan(mean_over_seeds(pd.Series([], dtype=float))).all()


@pytest.mark.parametrize(("hits", "of"), [(3, 3), (0, 3), (2, 3), (5, 5), (1, 10)])
def test_a_share_of_seeds_has_its_wilson_interval(hits, of):
    expected = stats.binomtest(hits, of).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(share(hits, of), (hits / of, *expected), atol=1e-9)


def test_an_interval_is_cut_to_what_can_be():
    assert Estimate(0.98, 0.9, 1.06).within(0, 1) == (0.98, 0.9, 1.0)
    assert np.isnan(Estimate(0.98, np.nan, np.nan).within(0, 1).low)
