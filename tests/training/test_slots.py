"""A run comes to the same whichever slot it has, whoever trains beside it, whenever it enters, and
however often it is interrupted: to the byte on a CPU, where each run has a multiple of 32 numbers
in every tensor (the last few of a tensor are rounded otherwise), else to rounding."""

import gc

import pytest
import torch
from conftest import small_run
from torch.testing import assert_close

from zoorecall.config import RunConfig
from zoorecall.model.pack import Pack
from zoorecall.training.trainer import PackTrainer, UnusableState

CPU = torch.device("cpu")


def alone(run, device=CPU):
    """What a run comes to in a pack of its own: its weights and its result."""
    trainer = PackTrainer([run], device)
    while not trainer.finished:
        trainer.advance()
    return trainer.pack.flat[0], trainer.result(trainer.ended[0])


EVEN = {"mamba": {"d_state": 4}, "s6": {"d_state": 4}, "h3": {"d_state": 16}}
"""Options with which each run has a multiple of 32 numbers in every tensor."""


def different(mixer, options=None, **settings):
    """Runs with settings, lengths and endings of their own."""
    runs = [
        small_run(mixer, seed=1, learning_rate=1e-2, epochs=2, **settings),
        small_run(mixer, seed=2, learning_rate=3e-3, epochs=1, schedule="linear", **settings),
        small_run(mixer, seed=1, learning_rate=1e-3, epochs=1.4, warmup=0.5, **settings),
        small_run(mixer, seed=3, betas=(0.8, 0.9), epochs=1, evaluations=2, **settings),
    ]
    for run in (configs := [run.model_dump() for run in runs]):
        run["model"]["mixer"] |= options or {}
    return [RunConfig.model_validate(config) for config in configs]


def in_two_slots(runs, every=3, interrupted=lambda advances: False, device=CPU):
    """Train runs in two slots, stopping every few steps; yields each that ended and its weights."""
    trainer, waiting = PackTrainer(runs[:1], device, slots=2), list(runs[1:])
    advances = steps = 0

    def pause():
        nonlocal steps
        steps += 1
        return steps % every == 0

    while trainer.running or waiting:
        if trainer.free and waiting and advances:
            trainer.enter(waiting.pop(0))
        trainer.advance(pause)
        advances += 1
        if trainer.running and interrupted(advances):
            slot = trainer.running[-1]
            state = trainer.state(slot)
            trainer.leave(slot)
            trainer.restore(trainer.enter(slot.run), state)
        for slot in trainer.ended:
            yield slot, trainer.pack.flat[slot.place].clone(), trainer.result(slot)
            trainer.leave(slot)


@pytest.mark.parametrize("data", ["fixed", "fresh"])
def test_a_run_comes_to_the_same_alone_and_wherever_it_enters(mixer, data):
    runs = different(mixer, EVEN.get(mixer), data=data)
    seen = set()
    for slot, flat, result in in_two_slots(runs):
        expected, by_itself = alone(slot.run)
        assert torch.equal(flat, expected) and result == by_itself
        seen.add(slot.run.run_id)
    assert seen == {run.run_id for run in runs}


@pytest.mark.parametrize("mixer", EVEN)
def test_with_odd_sizes_it_comes_to_the_same_but_for_rounding(mixer):
    for slot, flat, result in in_two_slots(different(mixer)):
        expected, by_itself = alone(slot.run)
        assert_close(flat, expected, rtol=1e-3, atol=1e-5)
        assert result.test_loss == pytest.approx(by_itself.test_loss, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon"])
def test_a_run_that_is_interrupted_between_any_steps_goes_on_as_if_it_were_not(optimizer):
    runs = [
        small_run("delta_net", seed, optimizer=optimizer, drop_last=False, train_examples=42)
        for seed in (1, 2, 3)
    ]
    for slot, flat, result in in_two_slots(runs, 2, interrupted=lambda advances: True):
        expected, by_itself = alone(slot.run)
        assert torch.equal(flat, expected) and result == by_itself


def test_what_ends_a_run_is_its_own():
    endings = [
        {"epochs": 40, "stop_at_accuracy": 0.01, "learning_rate": 1e-2},
        {"epochs": 1, "learning_rate": 1e38},
        {"epochs": 1},
    ]
    runs = [small_run(**ending) for ending in endings]
    assert len({run.pack_key for run in runs}) == 1
    found = {slot.run.run_id: result for slot, _, result in in_two_slots(runs)}
    stopped, diverged, whole = (found[run.run_id] for run in runs)
    assert stopped.stopped_at == stopped.curve.step[-1] < runs[0].train.num_steps
    assert diverged.diverged_at is not None and diverged.test_accuracy == 0.0
    assert whole.stopped_at is whole.diverged_at is None
    assert whole.curve.step[-1] == runs[2].train.num_steps


def test_a_slot_that_is_entered_again_has_nothing_of_the_run_before():
    first, second = small_run(seed=1, learning_rate=1.0), small_run(seed=2)
    trainer, fresh = PackTrainer([first], CPU), PackTrainer([second], CPU)
    while not trainer.finished:
        trainer.advance()
    trainer.leave(trainer.ended[0])
    trainer.enter(second)
    for name, rows in trainer.do_step.of_runs().items():
        assert torch.equal(rows, fresh.do_step.of_runs()[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon"])
def test_a_slot_that_no_run_has_entered_keeps_its_weights(optimizer):
    trainer = PackTrainer([small_run(optimizer=optimizer)], CPU, slots=2)
    before = trainer.pack.flat.clone()
    for _ in range(2):
        trainer.advance()
    kept = (trainer.pack.flat == before).all(dim=1)
    assert kept.tolist() == [False, True]


def test_slots_are_refilled_two_hundred_times_in_the_same_memory():
    def tensors():
        gc.collect()
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    runs = [small_run(seed=seed, epochs=0.2, train_examples=40) for seed in range(3)]
    trainer, counts, addresses = PackTrainer(runs[:2], CPU), [], set()
    for i in range(200):
        while not trainer.ended:
            trainer.advance()
        trainer.leave(trainer.ended[0])
        trainer.enter(runs[i % 3])
        step = trainer.do_step
        addresses.add((trainer.pack.flat.data_ptr(), step.optimizer.by_step.data_ptr()))
        if i in (20, 199):
            counts.append(tensors())
    assert counts[1] <= counts[0] and len(addresses) == 1


def test_a_step_makes_no_new_program_when_a_run_enters():
    from torch._dynamo.utils import counters  # it takes a second

    runs = different("attention")
    trainer = PackTrainer(runs[:2], CPU)
    trainer.do_step.compile(backend="eager")
    trainer.do_step()
    before = counters["stats"]["unique_graphs"]
    trainer.leave(trainer.running[0])
    trainer.enter(runs[2])
    trainer.do_step()
    assert counters["stats"]["unique_graphs"] == before


def test_runs_of_one_seed_share_their_examples_and_a_place_is_free_when_none_is_there():
    runs = [small_run(seed=seed, data="fresh", epochs=3) for seed in (1, 1, 2)]
    trainer = PackTrainer(runs, CPU)
    feed = trainer.feed
    assert feed.place.tolist() == [0, 0, 1]
    feed.load(0, runs[0], 1)  # the first goes on to its second epoch
    assert feed.place.tolist() == [2, 0, 1]
    trainer.leave(trainer.running[1])
    trainer.enter(small_run(seed=3, data="fresh"))
    assert feed.place.tolist() == [2, 0, 1]
    tokens, *_ = feed.batch()
    assert len({tuple(x.flatten().tolist()) for x in tokens}) == 3


def test_a_state_of_another_run_or_with_numbers_that_cannot_be_is_none():
    run, other = small_run(seed=1), small_run(seed=2)
    trainer = PackTrainer([run, other], CPU)
    trainer.advance()
    trainer.advance()
    one, two = trainer.running
    state = trainer.state(one)
    spoiled = {
        "of another run": trainer.state(two),
        "NaN": state | {"flat": torch.full_like(state["flat"], torch.nan)},
        "lacks": {name: x for name, x in state.items() if name != "exp_avg"},
        "shape": state | {"flat": state["flat"][1:]},
        "type": state | {"flat": state["flat"].double()},
        "step": state | {"step": state["step"] + 100},
        "curve": state | {"curve": {**state["curve"], "test_loss": []}},
    }
    for what, bad in spoiled.items():
        with pytest.raises(UnusableState):
            trainer.restore(one, bad)
            pytest.fail(what)
    trainer.restore(one, state)


def test_a_run_is_evaluated_alone(monkeypatch):
    """With no more work than one run has, whoever trains beside it."""
    seen = []
    through = Pack.alone

    def spy(self, r):
        seen.append(r)
        return through(self, r)

    monkeypatch.setattr(Pack, "alone", spy)
    runs = [small_run(epochs=2, evaluations=count) for count in (1, 5)]
    trainer = PackTrainer(runs, CPU)
    seen.clear()
    while not trainer.finished:
        trainer.advance()
    counts = [len(run.train.evaluation_steps) for run in runs]
    assert seen.count(0) == counts[0] + 1  # the first also tells whether it looks ahead
    assert seen.count(1) == counts[1] > counts[0]


@pytest.mark.gpu
@pytest.mark.parametrize("data", ["fixed", "fresh"])
def test_on_a_gpu_a_captured_program_goes_on_with_whoever_enters(mixer, data):
    """To what a run differs from itself there, as sums are taken in another order each time."""
    gpu = torch.device("cuda", 0)
    runs = different(mixer, EVEN.get(mixer), data=data, test_examples=200)
    for slot, _, result in in_two_slots(runs, interrupted=lambda n: n % 3 == 0, device=gpu):
        _, by_itself = alone(slot.run, gpu)
        assert result.curve.step == by_itself.curve.step
        assert result.curve.test_loss == pytest.approx(by_itself.curve.test_loss, rel=0.01)
        assert result.train_loss == pytest.approx(by_itself.train_loss, rel=0.01)


@pytest.mark.gpu
def test_on_a_gpu_the_last_steps_of_all_may_be_what_a_run_goes_on_with():
    gpu = torch.device("cuda", 0)
    run = small_run("delta_net", epochs=1, evaluations=5)
    through = PackTrainer([run], gpu)
    while through.slots[0].step < 3:
        through.advance()
    again = PackTrainer([run], gpu)
    again.restore(again.slots[0], through.state(through.slots[0]))
    for trainer in (through, again):
        while not trainer.finished:
            trainer.advance()
    assert through.slots[0].step == again.slots[0].step == run.train.num_steps == 5
    torch.testing.assert_close(through.pack.flat, again.pack.flat, rtol=1e-3, atol=1e-5)
