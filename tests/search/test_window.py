"""The search for a window, on landscapes whose window is known."""

import numpy as np
import pytest

from zoorecall.analysis.windows import learning_rate_window
from zoorecall.search.window import best, next_runs

RATES = np.linspace(-5, -1, 17)


def landscape(*windows: tuple[float, float], failing: float = 0.25) -> np.ndarray:
    """Accuracies [P, S] of seeds that solve between two rates each, `failing` elsewhere."""
    solves = [(low - 1e-9 <= RATES) & (high + 1e-9 >= RATES) for low, high in windows]
    return np.where(np.transpose(solves), 1.0, failing)


def searched(truth: np.ndarray, cost_of_failing: float = 0.6) -> tuple[np.ndarray, float]:
    """What a search saw of it, and how many whole runs that took."""
    seen, spent = np.full(truth.shape, np.nan), 0.0
    while runs := next_runs(seen, spent):
        assert len({*runs}) == len(runs) and all(np.isnan(seen[run]) for run in runs)
        for run in runs:
            seen[run] = truth[run]
            spent += 1 if truth[run] >= 0.5 else cost_of_failing
    return seen, spent


def spans(accuracy: np.ndarray) -> tuple[float, float]:
    """Inner and outer span of the mean's window."""
    known = np.isfinite(accuracy).any(axis=1)
    found = learning_rate_window(10 ** RATES[known], np.nanmean(accuracy[known], axis=1))
    return found.inner, found.outer


def middle(accuracy: np.ndarray) -> float:
    return sum(spans(accuracy)) / 2


@pytest.mark.parametrize("low", RATES[:-1])
def test_a_window_of_half_a_decade_or_more_is_found_with_both_edges(low):
    for high in RATES[(low + 0.4 < RATES) & (RATES - low < 3.9)]:
        truth = landscape(*3 * [(low, high)])
        seen, spent = searched(truth)
        assert spans(seen) == pytest.approx(spans(truth)), (low, high)
        assert spent <= 0.25 * truth.size, (low, high)


def test_a_wide_window_takes_a_quarter_of_the_grid_with_seeds_and_less_without():
    truth = landscape(*3 * [(-4.0, -2.0)])
    _, spent = searched(truth)
    assert 0.2 < spent / truth.size <= 0.25
    one, alone = searched(truth[:, :1])
    assert alone <= 10 and middle(one) == pytest.approx(middle(truth))


def test_where_nothing_solves_half_decades_are_tried_and_no_further_seed():
    seen, _ = searched(landscape(*3 * [(0.0, 0.0)]))
    known = RATES[np.isfinite(seen[:, 0])]
    assert np.diff(known).max() <= 0.5 and np.isnan(seen[:, 1:]).all()


def test_a_peak_that_does_not_solve_is_found_to_a_step():
    truth = np.repeat(0.8 - 0.2 * abs(RATES + 2.25)[:, None], 3, axis=1)
    seen, spent = searched(truth)
    known = np.isfinite(seen).any(axis=1)
    x = RATES[known]
    assert x[best(x, np.nanmean(seen[known], axis=1))] == -2.25 and spent <= 0.25 * truth.size


def test_seeds_are_added_only_at_edges_and_move_them():
    truth = landscape((-4, -1.5), (-4, -2), (-4, -2))  # the first seed solves for longer
    seen, _ = searched(truth)
    more = RATES[np.isfinite(seen[:, 1:]).any(axis=1)]
    assert len(more) and all(min(abs(x + 4), abs(x + 1.75)) < 0.6 for x in more)
    assert abs(middle(seen) - middle(truth)) <= 0.25 + 1e-9
    first = learning_rate_window(10**RATES, truth[:, 0])
    assert abs((first.inner + first.outer) / 2 - middle(truth)) > 0.25


def test_a_failing_rate_gets_a_seed_only_if_its_mean_could_solve():
    for failing, wanted in ((0.84, [4, 12]), (0.9, [3, 4, 12, 13])):
        seen = np.full((17, 3), np.nan)
        seen[:, 0] = landscape((-4, -2), failing=failing)[:, 0]
        assert sorted(run.rate for run in next_runs(seen, 0.0)) == wanted
        assert {run.seed for run in next_runs(seen, 0.0)} == {1}
        assert next_runs(seen, 0.25 * seen.size) == []


def test_windows_of_seeds_that_scatter_are_found_to_a_quarter_of_a_decade():
    random = np.random.default_rng(0)
    off, spent = [], []
    for _ in range(300):
        low, width = random.uniform(-4.8, -2.5), random.uniform(0.8, 2.5)
        each = random.normal((low, low + width), 0.12, (3, 2))
        truth = landscape(*each)
        seen, cost = searched(truth)
        off.append(abs(middle(seen) - middle(truth)))
        spent.append(cost / truth.size)
    assert np.mean(np.array(off) <= 0.25 + 1e-9) > 0.95
    assert np.mean(spent) < 0.23 and max(spent) < 0.29


def test_the_best_of_a_flat_stretch_is_its_middle_and_of_a_peak_the_peak():
    x = np.array([-5, -4, -3, -2.5, -2, -1.0])
    assert x[best(x, np.array([0.2, 0.999, 1.0, 0.998, 0.997, 0.3]))] == -3
    assert x[best(x, np.array([0.2, 0.5, 0.6, 0.9, 0.7, 0.3]))] == -2.5


def test_a_coarse_pass_that_was_cut_short_is_gone_on_with():
    seen = np.full((17, 3), np.nan)
    seen[[0, 4], 0] = 0.1
    assert [run.rate for run in next_runs(seen, 2.0)] == [8, 12, 16]
    assert [run.rate for run in next_runs(np.full((2, 1), np.nan), 0.0)] == [0, 1]
