"""Rules that end runs, on curves as associative recall has them."""

from collections.abc import Mapping

import optuna
import pytest
from optuna.pruners import BasePruner

from zoorecall.search.pruners import NUM_STEPS, PRUNERS, HalvingPruner, PlateauPruner

Curve = Mapping[int, float]
STEPS = range(0, 1001, 50)


def curve(solves_at: float, plateau: float = 0.25, falls_back_at: float = 2000) -> Curve:
    """Accuracies of a run that waits on a plateau, then solves, and may fall back to nothing."""
    waiting = {step: min(plateau, step / 400) for step in STEPS}
    return {
        step: 0.0 if step >= falls_back_at else 1.0 if step >= solves_at else waiting[step]
        for step in STEPS
    }


def ended(pruner: BasePruner, *curves: Curve) -> list[int | None]:
    """The step at which each of some runs, side by side, is ended."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trials = [study.ask() for _ in curves]
    found: list[int | None] = [None] * len(curves)
    for trial in trials:
        trial.set_user_attr(NUM_STEPS, 1000)
    for step in STEPS:
        for i, (trial, one) in enumerate(zip(trials, curves, strict=True)):
            if found[i] is None:
                trial.report(one[step], step)
                found[i] = step if trial.should_prune() else None
    return found


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("plateau", (0.0, 0.05, 0.25))
def test_a_run_that_waits_long_and_then_solves_lives_and_one_that_waits_for_ever_does_not(plateau):
    found = ended(PlateauPruner(), curve(550, plateau), curve(5000, plateau), curve(100, plateau))
    assert found == [None, 600, None]


def test_a_run_that_fell_back_lives():
    assert ended(PlateauPruner(), curve(200, falls_back_at=300)) == [None]


def test_patience_is_a_share_of_the_runs_own_steps():
    assert ended(PlateauPruner(patience=0.3), curve(5000)) == [300]
    assert ended(PlateauPruner(patience=0.3), curve(350)) == [300]


def test_a_plateau_ends_no_run_by_what_others_do():
    slow, fast = curve(550), [curve(50 * i) for i in range(1, 9)]
    assert ended(PlateauPruner(), *fast, slow)[-1] is None
    assert ended(HalvingPruner(), *fast, slow)[-1] is not None  # why halving is not the default


def test_halving_keeps_the_best_and_what_has_solved():
    fast, slow = [curve(50)] * 6, [curve(5000, plateau=0.02 * i) for i in range(1, 7)]
    found = ended(HalvingPruner(factor=2), *fast, *slow)
    assert found[:6] == [None] * 6 and None not in found[6:9]


def test_every_pruner_can_be_made_and_ends_no_run_before_its_first_evaluation():
    for name, make in PRUNERS.items():
        study = optuna.create_study(direction="maximize", pruner=make())
        trial = study.ask()
        trial.set_user_attr(NUM_STEPS, 10)
        assert not trial.should_prune(), name
    assert ended(PRUNERS["none"](), curve(5000)) == [None]
