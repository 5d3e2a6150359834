"""Searches by ask and tell, on landscapes that are known; storage, budgets, and going on after a
kill."""

import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
from malformed_grids import write_grid
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import Trial

from zoorecall.config import RunConfig
from zoorecall.errors import UserError
from zoorecall.grid import Space, load_space
from zoorecall.search import PRUNERS, SAMPLERS, Search
from zoorecall.search.storage import open_storage

SMALL = {
    "task": {"vocab_size": 32, "seq_len": 12, "num_kv_pairs": 2},
    "model": {"d_model": 8},
    "train": {"train_examples": 64, "batch_size": 16, "epochs": 4, "evaluations": 3},
}
RATES = {"train.learning_rate": {"log": [1e-5, 1e-1]}}
TWO = {"seed": [1, 2, 3], "model.num_layers": [1, 2], **RATES}
SEVERAL = {
    "seed": [1, 2],
    "train.learning_rate": {"log": [1e-4, 1e-1]},
    "model.mlp_ratio": {"int": [1, 4]},
    "train.schedule": {"choices": ["cosine", "linear"]},
    "train.betas": {"choices": [[0.9, 0.999], [0.9, 0.95]]},
}

Accuracy = Callable[[RunConfig], float]


def solves(run: RunConfig) -> float:
    """A window from 1e-4 to 1e-2 with one layer, from 1e-3 with two."""
    x = math.log10(run.train.learning_rate)
    return 0.99 if -5 + run.model.num_layers - 0.01 <= x <= -1.99 else 0.25


def space(tmp_path: Path, axes: dict[str, Any]) -> Space:
    return load_space(write_grid(tmp_path / "grid.yaml", {"base": SMALL, "axes": axes}))


@pytest.fixture
def two(tmp_path) -> Space:
    return space(tmp_path, TWO)


def make(asked: Space, **settings: Any) -> Search:
    return Search(asked, **{"storage": InMemoryStorage(), "folder": "results/x", **settings})


def train(search: Search, run: RunConfig, accuracy: Accuracy = solves) -> int:
    """One run, evaluated as its config says; the step at which it ends."""
    for step in run.train.evaluation_steps:
        if pruned := search.evaluated(run.run_id, step, {"test_accuracy": accuracy(run)}):
            break
    search.ended(run.run_id, accuracy(run), pruned)
    return step


def search_all(search: Search, accuracy: Accuracy = solves, slots: int = 4) -> list[RunConfig]:
    """Every run that it asks for."""
    found: list[RunConfig] = []
    while not search.finished:
        runs = search.ask(slots)
        assert 0 < len(runs) <= slots
        found += runs
        for run in runs:
            train(search, run, accuracy)
    assert search.ask(slots) == []
    return found


def rates(runs: list[RunConfig], layers: int = 1) -> set[float]:
    return {run.train.learning_rate for run in runs if run.model.num_layers == layers}


def test_a_window_is_found_in_each_setting_with_runs_of_the_grid_of_four_a_decade(two):
    search = make(two)
    runs = search_all(search)
    assert len(runs) == len({run.run_id for run in runs}) < 30
    edges = {5.6234132519e-05, 1e-4, 1e-2, 0.0177827941004}
    assert edges <= rates(runs) and not {1.77827941004e-05, 1e-3 * 3.16} & rates(runs)
    assert {5.6234132519e-4, 1e-3} <= rates(runs, 2)
    (one, deep) = search.answers()
    assert one.values["train.learning_rate"] == 1e-3 and one.accuracy == 0.99
    assert 1e-3 < deep.values["train.learning_rate"] < 1e-2
    assert one.setting.startswith("attention, layers 1, ") and one.runs + deep.runs == len(runs)
    assert (one.window.low, one.window.high, one.window.outer) == (1e-4, 1e-2, pytest.approx(2.5))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "window"])
def test_every_sampler_ends_with_a_rate_near_the_best_or_as_good(sampler, two):
    search = make(two, sampler=sampler)
    runs = search_all(search)
    assert {run.seed for run in runs} == {1, 2, 3}
    assert [x.accuracy for x in search.answers()] == pytest.approx([0.99, 0.99])
    assert len(runs) == (2 * 17 * 3 if sampler == "grid" else 24)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "grid", None])
def test_several_settings_are_searched_together(sampler, tmp_path):
    search = make(space(tmp_path, SEVERAL), sampler=sampler, runs=10)
    runs = search_all(search, lambda run: 0.5 + run.model.mlp_ratio / 10)
    assert len(runs) == 10 and all(run.train.betas[0] == 0.9 for run in runs)
    assert all(type(run.model.mlp_ratio) is int for run in runs)
    best = search.answers()[0]
    assert best.accuracy == max(0.5 + run.model.mlp_ratio / 10 for run in runs)
    assert best.values["train.betas"] in ([0.9, 0.999], [0.9, 0.95])


def test_what_is_asked_for_is_no_more_than_is_free_and_nothing_while_the_answers_are_awaited(two):
    search = make(two)
    first = search.ask(3)
    rest = search.ask(100)
    assert len(first) == 3 and len(rest) == 7  # a coarse pass of five rates in two settings
    assert search.ask(100) == [] and not search.finished
    for run in (*first, *rest):
        train(search, run)
    assert search.ask(100)


def test_the_settings_take_turns(two):
    layers = [run.model.num_layers for run in make(two).ask(6)]
    assert sorted(layers) == [1, 1, 1, 2, 2, 2]


def test_a_run_that_waits_for_ever_is_pruned_and_counts_as_one_that_fails(two):
    search, ends = make(two), []
    for run in (runs := search.ask(10)):
        ends.append(train(search, run, lambda run: 0.25))
    steps = runs[0].train.evaluation_steps
    assert {*ends} == {next(x for x in steps if x >= 0.6 * runs[0].train.num_steps)}
    assert search.answers()[0].accuracy == 0.25 and search.ask(1)[0].seed == 1
    search = make(two, pruner="none")
    (run,) = search.ask(1)
    assert train(search, run, lambda run: 0.25) == run.train.num_steps


def test_a_pruned_run_that_a_sweep_has_trained_to_its_end_counts_with_that(two, tmp_path):
    search = make(two, storage=tmp_path / "study.log")
    for run in (runs := search.ask(10)):
        train(search, run, lambda run: 0.25)
    known = {run.run_id: solves(run) for run in runs}
    again = make(two, storage=tmp_path / "study.log", known=known).answers()
    assert [x.accuracy for x in again] == [0.99, 0.99]


@pytest.fixture(autouse=True)
def fast_files(monkeypatch):
    """A journal that need not outlive a power cut."""
    monkeypatch.setattr("os.fsync", lambda file: None)


def test_a_database_is_a_storage_too_and_gone_on_with(two, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    first = make(two, storage=storage)
    over, running = first.ask(2)
    train(first, over)
    assert {run.run_id for run in make(two, storage=storage).ask(1)} == {running.run_id}


@pytest.mark.parametrize("killed_after", [0, 4, 11])
def test_after_a_kill_the_runs_that_were_not_over_are_asked_for_again_and_no_other(
    killed_after, two, tmp_path
):
    storage = tmp_path / "study.log"
    whole = [run.run_id for run in search_all(make(two))]
    first = make(two, storage=storage)
    over, running = [], {}
    while len(over) < killed_after or not running:
        running |= {run.run_id: run for run in first.ask(4 - len(running))}
        if len(over) < killed_after:
            run = running.pop(next(iter(running)))
            train(first, run)
            over.append(run.run_id)
    for run in running.values():  # in the middle of which it is killed
        first.evaluated(run.run_id, 0, {"test_accuracy": 0.0})
    again = make(two, storage=storage)
    assert {run.run_id for run in again.ask(len(running))} == set(running)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a step may be told twice
        for run in running.values():
            train(again, run)
        rest = search_all(again) if not again.finished else []
    ids = [*over, *running, *(run.run_id for run in rest)]
    assert len(ids) == len(set(ids)) and set(ids) == set(whole)


def test_a_search_that_is_over_asks_for_nothing_when_it_is_begun_again(two, tmp_path):
    search_all(make(two, storage=tmp_path / "study.log"))
    again = make(two, storage=tmp_path / "study.log")
    assert again.finished and again.ask(9) == [] and len(again.answers()) == 2


def test_runs_of_a_search_into_another_folder_are_its_own(two, tmp_path):
    first = make(two, storage=tmp_path / "study.log", folder=tmp_path / "a")
    theirs = {run.run_id for run in first.ask(4)}
    other = make(two, storage=tmp_path / "study.log", folder=tmp_path / "b")
    assert not theirs & {run.run_id for run in other.ask(99)} and not other.finished


def test_a_results_folder_that_was_renamed_is_gone_on_with(two, tmp_path):
    asked = make(two, storage=tmp_path / "a" / "study.log", folder=None).ask(3)
    (tmp_path / "a").rename(tmp_path / "b")
    again = make(two, storage=tmp_path / "b" / "study.log", folder=None).ask(3)
    assert {run.run_id for run in again} == {run.run_id for run in asked}


def test_searches_in_one_storage_train_no_run_twice(tmp_path):
    one = space(tmp_path, {"seed": [1, 2, 3], **RATES})
    searches = [make(one, storage=tmp_path / "study.log", folder=x) for x in "ab"]
    found = []
    while not all(search.finished for search in searches):
        for search in searches:
            for run in search.ask(1):  # of what it planned before the other went on
                found.append(run)
                train(search, run)
    whole = {run.run_id for run in search_all(make(one))}
    assert len(found) == len({run.run_id for run in found})
    assert {run.run_id for run in found} == whole


@pytest.mark.parametrize("calls", [1, 4])
def test_a_kill_while_a_run_is_begun_leaves_nothing_to_wait_for(calls, two, tmp_path, monkeypatch):
    storage, left, write = tmp_path / "study.log", itertools.count(), Trial.set_user_attr

    def killed(*args):
        if next(left) == calls:
            raise KeyboardInterrupt
        write(*args)

    first = make(two, storage=storage)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trial, "set_user_attr", killed)
        first.ask(9)
    assert len(search_all(make(two, storage=storage))) == len(search_all(make(two)))


def test_optunas_samplers_do_not_repeat_their_draws_after_a_kill(two, tmp_path):
    runs = make(two, storage=tmp_path / "s.log", sampler="tpe", folder="a").ask(4)
    more = make(two, storage=tmp_path / "s.log", sampler="tpe", folder="b").ask(4)
    assert not rates(runs) & rates(more)


def test_runs_that_are_trained_already_are_not_asked_for(two):
    known = {run.run_id: solves(run) for run in search_all(make(two))}
    search = make(two, known=known)
    assert search.ask(9) == [] and search.finished
    assert [x.accuracy for x in search.answers()] == pytest.approx([0.99, 0.99])


FEW = {"model.mlp_ratio": {"int": [1, 2]}, "seed": [1, 2]}
"""So few runs that Optuna's samplers propose each again and again."""


def test_a_run_that_is_proposed_again_is_not_trained_again_not_even_one_that_failed(tmp_path):
    search, seen = make(space(tmp_path, FEW), sampler="tpe", runs=20), []
    while runs := search.ask(1):
        seen += [run.run_id for run in runs]
        search.ended(runs[0].run_id, None)
    assert len(seen) == len(set(seen)) <= 4 and search.finished


def test_in_an_answer_each_run_weighs_once_and_one_that_was_refused_not_at_all(tmp_path):
    search = make(space(tmp_path, FEW), sampler="tpe", runs=30)
    runs = search.ask(30)  # of which the others are in training then, and so refused
    accuracy = {(1, 1): 0.2, (1, 2): 0.4, (2, 1): 0.5, (2, 2): 0.9}
    for run in runs:
        train(search, run, lambda run: accuracy[run.model.mlp_ratio, run.seed])
    (answer,) = search.answers()
    assert (answer.accuracy, answer.runs) == (pytest.approx(0.7), len(runs)) == (0.7, 4)


def test_a_run_of_two_settings_is_trained_once_and_counts_in_both(tmp_path):
    narrow = {"train.learning_rate": {"log": [1e-4, 1e-1]}, "seed": 1}
    grid = {"base": SMALL, "axes": {**RATES, "seed": 1}, "include": [narrow]}
    search = make(load_space(write_grid(tmp_path / "grid.yaml", grid)))
    runs = search_all(search)
    assert len(runs) == len({run.run_id for run in runs})
    one, other = search.answers()
    assert one.accuracy == other.accuracy == 0.99 and one.runs + other.runs > len(runs)
    assert (one.window.low, one.window.high) == (other.window.low, other.window.high)


def test_failed_runs_count_as_failing_and_are_not_asked_for_again(two):
    search = make(two)
    seen: list[str] = []
    while not search.finished:
        for run in search.ask(4):
            seen.append(run.run_id)
            search.ended(run.run_id, None)
    assert len(seen) == len(set(seen)) and search.answers()[0].accuracy == 0


def test_budgets_of_runs_and_of_time(two, monkeypatch):
    assert len(search_all(make(two, runs=7))) == 7
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    search = make(two, seconds=60)
    (run,) = search.ask(1)
    now[0] = 61
    assert search.ask(5) == [] and not search.finished
    train(search, run)
    assert search.finished


def test_a_spent_budget_lets_a_search_go_while_others_train(two, tmp_path):
    storage = tmp_path / "study.log"
    assert len(make(two, storage=storage, folder="a").ask(4)) == 4
    for budget in ({"runs": 4}, {"seconds": 0}):
        assert make(two, storage=storage, folder="b", **budget).finished
    assert not make(two, storage=storage, folder="b", runs=5).finished


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_how_many_runs_are_expected_is_about_how_many_there_are(sampler, two):
    search = make(two, sampler=sampler)
    expected = search.expected_runs
    assert abs(len(search_all(search)) - sum(expected)) <= (6 if sampler == "window" else 0)
    assert make(two, sampler=sampler, runs=19).expected_runs == [9, 10]
    assert make(two, sampler=sampler, runs=1).expected_runs == [0, 1]


def test_a_trial_says_which_run_it_is(two, tmp_path):
    storage = tmp_path / "study.log"
    runs = {run.run_id: run for run in search_all(make(two, storage=storage))}
    opened = open_storage(storage)
    names = [one.study_name for one in optuna.get_all_study_summaries(opened)]
    assert len(names) == 2
    for trial in (
        x for name in names for x in optuna.load_study(study_name=name, storage=opened).trials
    ):
        run = runs[trial.user_attrs["run_id"]]
        assert trial.user_attrs["seed"] == run.seed
        assert trial.user_attrs["mixer"] == run.model.mixer.label
        assert trial.params["train.learning_rate"] == run.train.learning_rate


def test_a_run_that_cannot_be_is_left_out_and_told_why(tmp_path):
    axes = {**RATES, "model.mixer": [{"name": "attention", "num_heads": 4}]}
    axes |= {"model.d_model": {"int": [4, 8]}}
    storage = InMemoryStorage()
    search = make(space(tmp_path, axes), sampler="grid", storage=storage)
    runs = search_all(search)
    assert {run.model.d_model for run in runs} == {4, 8} and len(runs) == 34
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert any("d_model" in trial.user_attrs.get("fault", "") for trial in trials)


def test_a_run_that_is_being_trained_is_not_begun_twice(tmp_path):
    asked = space(tmp_path, {"model.mlp_ratio": {"int": [1, 2]}, "seed": [1]})
    runs = make(asked, sampler="tpe").ask(12)
    assert len(runs) == len({run.run_id for run in runs}) <= 2


def test_half_a_line_that_a_kill_left_in_the_journal_is_cut_off(two, tmp_path):
    storage = tmp_path / "study.log"
    first = make(two, storage=storage)
    asked = {run.run_id for run in first.ask(3)}
    with storage.open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert {run.run_id for run in make(two, storage=storage).ask(3)} == asked
    assert [json.loads(line) for line in storage.read_text().splitlines()]


@pytest.mark.parametrize("line", ["not JSON", "3", "{}"])
@pytest.mark.parametrize("behind", [1, None])  # the last line, too
def test_a_damaged_line_of_the_journal_is_named(two, tmp_path, behind, line):
    storage = tmp_path / "study.log"
    make(two, storage=storage).ask(3)
    lines = storage.read_text().splitlines()
    at = len(lines[:behind])
    storage.write_text("\n".join([*lines[:at], line, *lines[at:]]) + "\n")
    with pytest.raises(UserError, match=f"{storage} cannot be opened: line {at + 1} is damaged"):
        make(two, storage=storage)


@pytest.mark.parametrize(
    "content", [b"my thesis", b"two\nlines", b"SQLite format 3\x00\n\xff", b"\n"]
)
def test_another_file_is_no_storage_and_stays_as_it_is(two, tmp_path, content):
    storage = tmp_path / "notes.txt"
    storage.write_bytes(content)
    with pytest.raises(UserError, match="cannot be opened: it is no journal of a search"):
        make(two, storage=storage)
    assert storage.read_bytes() == content


def test_a_lock_that_a_killed_process_left_is_taken_away(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = make(two, storage="x/study.log")
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(JournalFileSymlinkLock, "release", Mock(side_effect=KeyboardInterrupt))
        first.ask(1)
    assert Path("x/study.log.lock").is_symlink()
    clock = itertools.count(step=4)
    monkeypatch.setattr("optuna.storages.journal._file.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("optuna.storages.journal._file.time.sleep", lambda seconds: None)
    assert len(make(two, storage="x/study.log").ask(1)) == 1
    assert not Path("x/study.log.lock").is_symlink()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sampler": "tp"}, "no sampler 'tp', should be one of window, tpe, gp, grid"),
        ({"pruner": "media"}, "no pruner 'media', should be one of plateau, halving, none"),
        ({"storage": "nosuch://host/x"}, "storage nosuch://host/x cannot be opened: "),
        ({"storage": "sqlite:////no/such/folder/x.db"}, "cannot be opened: "),
        ({"storage": "/tmp"}, "storage /tmp cannot be opened: Is a directory"),
    ],
)
def test_what_a_user_gives_wrong_is_one_line(settings, says, two):
    with pytest.raises(UserError) as caught:
        make(two, **settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["hello\nworld", "1", "[]", "{}", "null", '"op"', '{"op_code": 99}']
)
def test_a_damaged_journal_is_one_line(line, two, tmp_path):
    (tmp_path / "study.log").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"study\.log cannot be opened: ") as caught:
        make(two, storage=tmp_path / "study.log")
    assert "\n" not in str(caught.value)


def test_window_is_for_rates_alone_and_every_pruner_goes_with_every_sampler(tmp_path):
    several = space(tmp_path, SEVERAL)
    with pytest.raises(UserError, match=r"window searches train.learning_rate alone"):
        make(several, sampler="window")
    for sampler in SAMPLERS[1:]:
        for pruner in PRUNERS:
            search = make(several, sampler=sampler, pruner=pruner, runs=3)
            assert len(search_all(search)) == 3
