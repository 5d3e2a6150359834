"""How many runs train at once: from two measured packs, and in a sweep that measures them."""

import gc
import json
import math
import sys
import weakref
from pathlib import Path

import pytest
import torch
from conftest import DOES, finished_runs, small_run

from zoorecall import display, load_grid, sweep
from zoorecall.display import print_plan
from zoorecall.results import load_results
from zoorecall.sweeps import sizing, sweeper
from zoorecall.sweeps.events import Measuring, Started, SweepEvent
from zoorecall.sweeps.plan import MAX_RUNS, SAMPLE_SIZES, RunGroup
from zoorecall.sweeps.sizing import Sample, best_size, measured_size, sample
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")


def samples(a: float, b: float, c: int = 0, d: int = 0) -> tuple[Sample, Sample]:
    """Two packs whose steps take a + b R seconds and c + d R bytes."""
    small, large = (Sample(R, a + b * R, c + d * R) for R in SAMPLE_SIZES)
    return small, large


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [
        (0.95, 1.0, 10),
        (1.95, 1.0, 20),
        (0.95, 0.2, 48),
        (0.0, 1.0, SAMPLE_SIZES[0]),
        (0.1, 1.0, SAMPLE_SIZES[0]),
        (1.0, 1e-9, MAX_RUNS),
    ],
)
def test_a_pack_is_as_small_as_its_overhead_allows(a, b, size):
    assert best_size(*samples(a, b), math.inf) == size
    assert best_size(*samples(a / 1000, b / 1000), math.inf) == size


def test_a_pack_trains_long_enough_for_others_to_be_compiled():
    assert best_size(*samples(0.01, 1.0), math.inf, step_seconds=12.5) == 13
    assert best_size(*samples(0.95, 1.0), math.inf, step_seconds=2) == 10
    assert best_size(*samples(0.01, 1.0), math.inf, step_seconds=1e9) == MAX_RUNS


@pytest.mark.parametrize(
    ("memory", "size"),
    [(10**9, 10), (95, 10), (94, 9), (79, 8), (50, 5), (25, 2), (15, 1), (3, 1), (0, 1)],
)
def test_a_pack_fits_into_memory_whatever_its_speed(memory, size):
    assert best_size(*samples(0.95, 1.0, c=5, d=9), memory) == size


def test_noise_gives_a_size_that_is_safe():
    no_slower = Sample(2, 1.0, 10), Sample(6, 0.9, 10)
    assert best_size(*no_slower, math.inf) == MAX_RUNS
    assert best_size(Sample(2, 1.0, 10), Sample(6, 1.0, 50), 75) == 8  # equal times, 5 runs a 50
    no_overhead = Sample(2, 1.0, 10), Sample(6, 3.5, 10)
    assert best_size(*no_overhead, math.inf) == 2
    less_memory = Sample(2, 2.95, 20), Sample(6, 6.95, 10)
    assert best_size(*less_memory, 5) == 10


def test_a_sample_is_one_step_of_the_whole_pack():
    run = small_run(batch_size=64, train_examples=6400)
    small, large = sample(run, 1, CPU), sample(run, 12, CPU)
    assert (small.runs, large.runs, small.bytes, large.bytes) == (1, 12, 0, 0)
    assert 0 < small.seconds < large.seconds < 12 * 10 * small.seconds


def test_a_measurement_makes_few_examples_and_leaves_nothing_in_memory(monkeypatch):
    made = []

    class Recorded(PackTrainer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(weakref.ref(self))
            assert len([ref for ref in made if ref() is not None]) == 1
            train = self.running[0].run.train
            assert train.train_examples == train.batch_size
            assert options == {"compiled": False}

    monkeypatch.setattr(sizing, "PackTrainer", Recorded)
    monkeypatch.setattr(sizing, "SAMPLE_SECONDS", 0)
    gc.disable()
    try:
        measured_size(small_run(train_examples=1000), CPU)
        assert len(made) == 2 and all(ref() is None for ref in made)
    finally:
        gc.enable()


@pytest.mark.parametrize(("runs_that_fit", "sizes"), [(100, (2, 6)), (4.5, (2, 4))])
def test_the_size_is_what_two_packs_that_fit_show(monkeypatch, runs_that_fit, sizes):
    run, sampled = small_run(epochs=200), []  # 1000 steps
    monkeypatch.setattr(sizing, "PACK_SECONDS", 0)
    monkeypatch.setattr(sizing, "pack_memory", lambda device: runs_that_fit)
    monkeypatch.setattr(sizing, "memory_bytes", lambda run: 1)

    def made_up(run, size, device):
        sampled.append(size)
        return Sample(size, 1.95 + size, 0)

    monkeypatch.setattr(sizing, "sample", made_up)
    assert measured_size(run, CPU) == 20
    assert tuple(sampled) == sizes
    monkeypatch.setattr(sizing, "PACK_SECONDS", 1000 * 40)
    assert measured_size(run, CPU) == 39


@pytest.mark.parametrize("runs_that_fit", [0.5, 2.9, 100])
def test_the_size_is_an_estimate_where_two_packs_do_not_fit(monkeypatch, runs_that_fit):
    sampled = []
    monkeypatch.setattr(sizing, "pack_memory", lambda device: runs_that_fit)
    monkeypatch.setattr(sizing, "memory_bytes", lambda run: 1)
    monkeypatch.setattr(sizing, "pack_size", lambda run, device: 77)

    def too_large(run, size, device):
        sampled.append(size)
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(sizing, "sample", too_large)
    assert measured_size(small_run(), CPU) == 77
    assert bool(sampled) == (runs_that_fit > SAMPLE_SIZES[0] + 1)


# ---- in a sweep, on a CPU core that passes for a GPU

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 40, test_examples: 24, epochs: 1, evaluations: 1}
axes:
  model.mixer: [attention, {name: "does_in_sizing:Does", options: {code: CODE}}]
  train.learning_rate: {logspace: [1e-3, 1e-1, 4]}
  seed: [1, 2]
include:
  - {model.mixer: hyena, seed: [1, 2]}
"""


@pytest.fixture
def sweep_that_measures(tmp_path, monkeypatch, in_this_process):
    """A sweep of `GRID` whose estimate is one run at a time and whose second mixer first does what
    it is given; returns its events."""

    def run(code: str) -> list[SweepEvent]:
        (tmp_path / "does_in_sizing.py").write_text(DOES)
        (tmp_path / "grid.yaml").write_text(GRID.replace("CODE", json.dumps(code)))
        events: list[SweepEvent] = []
        sweep(load_grid(tmp_path / "grid.yaml"), tmp_path / "out", on_event=events.append)
        return events

    monkeypatch.delitem(sys.modules, "does_in_sizing", raising=False)  # that of another test
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sweeper, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(sweeper, "check_fits", lambda runs, device: None)
    monkeypatch.setattr(sweeper, "places", lambda device: ["cpu"])
    monkeypatch.setattr(sweeper, "pack_size", lambda run, device: 1)
    monkeypatch.setattr(sizing, "SAMPLE_SECONDS", 0)
    return run


def slots(folder: Path, events: list[SweepEvent]) -> dict[str, int]:
    """Of each mixer how many runs were planned to train at once; that is how many did."""
    (started,) = (event for event in events if isinstance(event, Started))
    found = {group.runs[0].model.mixer.name: group.slots for group in started.groups}
    trained = load_results(folder).runs.groupby("mixer.name")["pack_size"].unique()
    assert found == {name: size for name, (size,) in trained.items()}
    return found


def test_a_sweep_measures_groups_that_may_be_too_large(sweep_that_measures, tmp_path):
    events = sweep_that_measures("pass")
    assert events[0] == Measuring(2, "cuda") and isinstance(events[1], Started)
    assert slots(tmp_path / "out", events) == {"attention": 8, "does_in_sizing:Does": 8, "hyena": 1}
    assert len(finished_runs(events)) == 18
    again = sweep_that_measures("pass")
    assert again == [Started(tmp_path / "out", "cuda", (), 18)]


def test_a_group_that_fits_is_not_measured(sweep_that_measures, monkeypatch):
    monkeypatch.setattr(sweeper, "pack_size", lambda run, device: 8)
    started, *_ = sweep_that_measures("pass")
    assert isinstance(started, Started) and [x.slots for x in started.groups] == [8, 8, 2]


def test_a_group_whose_measurement_fails_is_trained_as_estimated(sweep_that_measures, tmp_path):
    """That of a worker that dies likewise: both are told as its death."""
    began = tmp_path / "began"
    once = f"b = pathlib.Path({str(began)!r})\nif not b.exists():\n b.touch()\n raise OSError('x')"
    events = sweep_that_measures(once)
    assert slots(tmp_path / "out", events) == {"attention": 8, "does_in_sizing:Does": 1, "hyena": 1}
    assert len(finished_runs(events)) == 18


def test_a_plan_says_that_how_many_runs_train_at_once_is_an_estimate(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(display, "estimated_hours", lambda packs, device: (1.5, 0))
    (tmp_path / "grid.yaml").write_text("{}")
    grid = load_grid(tmp_path / "grid.yaml")
    for device in ("cuda", "cpu"):
        print_plan(grid, [RunGroup(grid.runs, 1)], device)
        out = capsys.readouterr().out
        assert ("is an estimate" in out) == (device == "cuda") == ("about 1.5 GPU-hours" in out)


# ---- on a GPU


@pytest.mark.gpu
def test_a_sample_on_a_gpu_counts_its_bytes_and_gives_them_back():
    device = torch.device("cuda")
    torch.zeros(1, device=device)
    before = torch.cuda.memory_allocated(device)
    run = small_run(batch_size=64, train_examples=64)
    small, large = sample(run, 2, device), sample(run, 16, device)
    assert 0 < small.bytes < large.bytes and small.seconds > 0
    assert 1 <= measured_size(run, device) <= MAX_RUNS
    assert torch.cuda.memory_allocated(device) - before < small.bytes


@pytest.mark.gpu
def test_a_gpu_may_go_on_with_the_last_steps_of_all():
    device = torch.device("cuda")
    run = small_run("delta_net", epochs=1, evaluations=5)
    through = PackTrainer([run], device, compiled=False)
    while through.slots[0].step < 3:
        through.advance()
    again = PackTrainer([run], device, compiled=False)
    again.restore(again.slots[0], through.state(through.slots[0]))
    for trainer in (through, again):
        while not trainer.finished:
            trainer.advance()
    assert through.slots[0].step == again.slots[0].step == run.train.num_steps == 5
    torch.testing.assert_close(through.pack.flat, again.pack.flat, rtol=1e-3, atol=1e-5)
