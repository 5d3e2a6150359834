"""What must hold of packed training, for every mixer."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import small_run

from zoorecall.model.model import build_model
from zoorecall.tasks import TASKS, make_task
from zoorecall.training.data import Feed
from zoorecall.training.outcome import RunResult
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")
RATES = (1e-3, 3e-3, 1e-2)
BOTH = {"name": "key_value_sum", "recall": "both"}


def trained(runs, states=()) -> PackTrainer:
    """A trainer of runs that have ended; `states` are those from which the first go on."""
    trainer = PackTrainer(runs, CPU)
    for slot, state in zip(trainer.running, states, strict=False):
        trainer.restore(slot, state)
    while not trainer.finished:
        trainer.advance()
    return trainer


def results_of(trainer: PackTrainer) -> list[RunResult]:
    return [trainer.result(slot) for slot in trainer.ended]


def train(runs) -> list[RunResult]:
    return results_of(trained(runs))


def test_a_pack_starts_from_the_parameters_of_its_solo_runs(mixer):
    runs = [small_run(mixer, seed=seed) for seed in (1, 2, 1)]
    pack = PackTrainer(runs, CPU).pack
    for r, run in enumerate(runs):
        solo = dict(build_model(run).named_parameters())
        for name, parameter in pack.model.named_parameters():
            assert torch.equal(parameter[r], solo[name][0]), name
    assert torch.equal(pack.flat[0], pack.flat[2])
    assert not torch.equal(pack.flat[0], pack.flat[1])


def test_a_run_that_diverges_leaves_its_neighbours_untouched_and_says_when():
    calm, wild = (small_run(task=BOTH, learning_rate=1e-3, seed=seed) for seed in (1, 2))
    trainer, undisturbed = PackTrainer([calm, wild], CPU), PackTrainer([calm, wild], CPU)
    for each in (trainer, undisturbed):
        each.advance()
        each.advance()
    with torch.no_grad():
        trainer.pack.flat[1, 0] = math.nan
    at = trainer.running[1].step
    for each in (trainer, undisturbed):
        while not each.finished:
            each.advance()
    assert torch.equal(trainer.pack.flat[0], undisturbed.pack.flat[0])
    ours, diverged = results_of(trainer)
    assert diverged.diverged_at == at and diverged.test_accuracy == 0.0
    assert math.isnan(diverged.test_loss)
    assert diverged.slice_test_accuracy == {"AR": 0.0, "non-AR": 0.0}
    curve = diverged.curve
    for losses in (curve.test_loss, curve.train_loss, curve.max_loss, curve.max_grad_norm):
        assert math.isnan(losses[-1]) and math.isfinite(losses[1])
    assert ours.diverged_at is None and ours == results_of(undisturbed)[0]


def test_a_run_that_its_last_update_breaks_has_diverged():
    run = small_run(task=BOTH, learning_rate=1e38, epochs=0.2, evaluations=1)
    (result,) = train([run])
    assert result.diverged_at == run.train.num_steps == 1 and result.curve.step == [0, 1]
    assert result.test_accuracy == 0.0 and math.isnan(result.test_loss)
    assert math.isnan(result.train_loss) and math.isnan(result.curve.train_loss[-1])


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_every_measurement_has_the_precision_of_its_run(precision, monkeypatch):
    trainer, seen = PackTrainer([small_run(precision=precision, epochs=0.2)], CPU), []
    measure = trainer.evaluator.measure

    def spy(*arguments):
        seen.append(torch.get_float32_matmul_precision())
        return measure(*arguments)

    monkeypatch.setattr(trainer.evaluator, "measure", spy)
    while not trainer.finished:
        trainer.advance()
    results_of(trainer)
    assert len(seen) == 3 and {*seen} == {"high" if precision == "tf32" else "highest"}


def test_a_state_stays_as_it_is_while_its_run_goes_on():
    trainer = PackTrainer([small_run()], CPU)
    trainer.advance()
    state = trainer.state(trainer.running[0])
    trainer.advance()
    assert state["curve"]["step"] == [0] and trainer.running[0].curve.step == [0, 1]


@pytest.mark.parametrize("optimizer", ["sgd", "lion", "muon"])
def test_with_any_optimizer_a_run_learns_as_it_does_alone_and_goes_on_where_it_was(optimizer):
    rates = (3e-3, 1e-2, 1e38)  # the last diverges at once
    runs = [small_run(optimizer=optimizer, clip_norm=1.0, learning_rate=rate) for rate in rates]
    through, stopped = trained(runs), PackTrainer(runs, CPU)
    stopped.advance()
    stopped.advance()
    states = [stopped.state(slot) for slot in stopped.running[:2]]
    again = trained(runs, states)
    assert torch.equal(through.pack.flat[:2], again.pack.flat[:2])
    *calm, wild = results_of(through)
    assert calm == results_of(again)[:2] and wild.diverged_at is not None
    for result, run in zip(calm, runs, strict=False):
        assert train([run]) == [result]
        assert result.curve.train_loss[-1] < result.curve.train_loss[1]


def test_the_first_loss_is_that_of_guessing(mixer):
    run = small_run(mixer)
    trainer = PackTrainer([run], CPU)
    trainer.advance()
    (slot,) = trainer.running
    assert slot.step == 0
    assert slot.curve.test_loss[0] == pytest.approx(math.log(run.task.vocab_size), abs=0.3)


def test_a_run_stops_at_the_given_accuracy():
    run = small_run(stop_at_accuracy=0.01, epochs=40, learning_rate=1e-2)
    trainer = PackTrainer([run], CPU)
    while not trainer.finished:
        trainer.advance()
    result = results_of(trainer)[0]
    assert result.stopped_at == result.curve.step[-1] < run.train.num_steps
    assert result.test_accuracy >= 0.01


@pytest.mark.parametrize("task", [*({"name": name} for name in TASKS), BOTH], ids=str)
def test_shuffled_labels_give_chance_where_a_run_has_learned_the_true_ones(task):
    settings = {"epochs": 30, "train_examples": 400, "test_examples": 200, "batch_size": 20}
    trainer = trained([small_run(task=task, learning_rate=1e-2, **settings)])
    (slot,) = trainer.ended
    examples = trainer.feed.tests(slot.run)
    labels = examples.targets
    count = labels.numel()
    shuffled = labels.flatten()[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    labels.copy_(shuffled.view_as(labels))
    most_frequent = float(labels.flatten().bincount().max()) / count
    chance = most_frequent + 4 * math.sqrt(most_frequent * (1 - most_frequent) / count)
    assert trainer.measure(slot, examples)[0] < chance
    assert results_of(trainer)[0].test_accuracy > chance


def test_the_accuracy_of_a_slice_is_that_of_its_queries_alone():
    trainer = trained([small_run(seed=s, epochs=20, learning_rate=1e-2) for s in (1, 2)])
    trainer.evaluator.num_slices, count = 2, 21  # not a multiple of the batch size
    for slot in trainer.ended:
        examples = trainer.feed.tests(slot.run)
        examples.slices = (examples.targets % 3 - 1).to(torch.int8)  # a third in none
        first = examples.of_place(0, count)
        accuracy, _, _, *by_slice = trainer.measure(slot, first).tolist()
        parts = (examples.tokens, examples.positions, examples.targets)
        tokens, positions, targets = (part[:, :count] for part in parts)
        with trainer.pack.alone(slot.place) as model:
            x = model.through_layers(model.embed(tokens, torch.float32), positions.long())
            correct = model.losses(x, targets)[1].flatten()
        assert accuracy == pytest.approx(float(correct.double().mean()))
        of_query = examples.slices[0, :count].flatten()
        expected = [float(correct[of_query == i].double().mean()) for i in range(2)]
        assert by_slice == pytest.approx(expected)
        assert len({accuracy, *expected}) == 3


def test_a_curve_has_the_accuracy_of_each_slice_at_each_evaluation():
    runs = [small_run(task=BOTH, learning_rate=rate) for rate in RATES]
    for result in train(runs):
        by_slice = result.curve.slice_test_accuracy
        variants = make_task(result.run.task).examples(24, result.run.seed, "test").slices[:, 0]
        shares = np.bincount(variants) / 24
        mean = shares @ np.array([by_slice["AR"], by_slice["non-AR"]])
        assert mean.tolist() == pytest.approx(result.curve.test_accuracy)
        assert result.slice_test_accuracy == {s: a[-1] for s, a in by_slice.items()}
    assert train([small_run()])[0].slice_test_accuracy == {}


def test_a_curve_has_the_largest_loss_and_gradient_norm_of_the_steps_before():
    runs = [small_run(learning_rate=0.1, clip_norm=clip) for clip in (None, 0.1)]
    trainer, seen = PackTrainer(runs, CPU), []
    update = trainer.do_step._update

    def spy(loss, grads):
        squares = sum(grad.flatten(1).double().square().sum(1) for grad in grads)
        seen.append(torch.stack([loss.double(), squares.sqrt()]))
        update(loss, grads)

    trainer.do_step._update = spy
    while not trainer.finished:
        trainer.advance()
    for r, curve in enumerate(slot.curve for slot in trainer.ended):
        assert len(curve.max_loss) == len(curve.max_grad_norm) == len(curve.step) > 3
        assert math.isnan(curve.max_loss[0]) and math.isnan(curve.max_grad_norm[0])
        for i, (start, end) in enumerate(itertools.pairwise(curve.step), 1):
            loss, norm = torch.stack(seen[start:end])[:, :, r].amax(0).tolist()
            assert curve.max_loss[i] == pytest.approx(loss)
            assert curve.max_grad_norm[i] == pytest.approx(norm) and norm > 0.1


def test_one_step_computes_no_logits_but_at_the_queries():
    run = small_run()
    trainer = PackTrainer([run], CPU)
    trainer.advance()
    shapes = []
    original = torch.bmm

    def spy(a, b):
        out = original(a, b)
        if out.shape[-1] == run.task.vocab_size:
            shapes.append(out.shape)
        return out

    torch.bmm, kept = spy, torch.bmm
    try:
        trainer.do_step()
    finally:
        torch.bmm = kept
    assert {shape[1] for shape in shapes} == {run.train.batch_size * run.task.num_queries}


def test_fresh_data_never_shows_an_example_twice_and_fixed_data_does():
    for data, repeats in (("fixed", True), ("fresh", False)):
        run, seen = small_run(data=data), []
        feed = Feed(run, 1, CPU)
        for epoch in (0, 1):
            feed.load(0, run, epoch)
            seen.append({tuple(row) for row in feed.of_slot(0, 40).tokens[0].tolist()})
        assert (seen[0] == seen[1]) is repeats
