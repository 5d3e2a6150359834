"""How many runs train at once: from two measured packs, and in a sweep that measures them."""

import gc
import io
import math
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from conftest import finished_runs, small_run
from rich.console import Console

from zoorecall import display, load_grid, sweep
from zoorecall.display import SweepDisplay, print_plan
from zoorecall.results import load_results
from zoorecall.sweeps import local as workers
from zoorecall.sweeps import sizing, sweeper
from zoorecall.sweeps.events import Measuring, Started, SweepEvent
from zoorecall.sweeps.plan import MAX_RUNS, SAMPLE_SIZES, PlannedPack
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
            assert self.train.train_examples == self.train.batch_size
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


# ---- in a sweep: real worker processes, on CPU cores that pass for GPUs

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 80, test_examples: 24, epochs: 1, evaluations: 3}
axes:
  model.mixer: [attention, "fussy:Fussy"]
  train.learning_rate: {logspace: [1e-3, 1e-1, 4]}
  seed: [1, 2]
include:
  - {model.mixer: hyena, seed: [1, 2]}
"""


@pytest.fixture
def sweep_that_measures(tmp_path, monkeypatch):
    """A sweep of `GRID` whose estimate is one run a pack and whose mixer `Fussy` first does what
    it is given; returns its events."""

    def run(first: str) -> list[SweepEvent]:
        (tmp_path / "fussy.py").write_text(
            "import os, pathlib, time, torch\n"
            "class Fussy(torch.nn.Linear):\n"
            "    def __init__(self, d_model): super().__init__(d_model, d_model)\n"
            "    def forward(self, x):\n"
            "        began = pathlib.Path(__file__).with_name('began')\n"
            "        if not began.exists():\n"
            "            began.touch()\n"
            f"            {first}\n"
            "        return super().forward(x)\n"
        )
        (tmp_path / "grid.yaml").write_text(GRID)
        events: list[SweepEvent] = []
        sweep(load_grid(tmp_path / "grid.yaml"), tmp_path / "out", on_event=events.append)
        return events

    monkeypatch.delitem(sys.modules, "fussy", raising=False)  # that of another test
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sweeper, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(sweeper, "check_fits", lambda runs, device: None)
    monkeypatch.setattr(sweeper, "places", lambda device: ["cpu", "cpu"])
    monkeypatch.setattr(sweeper, "pack_size", lambda run, device: 1)
    return run


@pytest.fixture
def started_workers(monkeypatch):
    """The worker processes that a sweep starts, in order."""
    started: list[workers._Worker] = []

    class Recorded(workers._Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(workers, "_Worker", Recorded)
    return started


def pack_sizes(folder: Path, events: list[SweepEvent]) -> dict[str, list[int]]:
    (started,) = (event for event in events if isinstance(event, Started))
    sizes: dict[str, list[int]] = {}
    for pack in started.packs:
        name = pack.runs[0].model.mixer.name.rpartition(":")[2]
        sizes.setdefault(name, []).append(len(pack.runs))
    trained = load_results(folder).runs["pack_id"]
    assert set(trained) == {pack.pack_id for pack in started.packs}
    return sizes


def test_a_sweep_measures_groups_that_may_be_several_packs(sweep_that_measures, tmp_path):
    events = sweep_that_measures("pass")
    assert events[0] == Measuring(2, "cuda") and isinstance(events[1], Started)
    sizes = pack_sizes(tmp_path / "out", events)
    assert sizes == {"attention": [8], "Fussy": [8], "hyena": [1, 1]}
    assert len(finished_runs(events)) == 18
    again = sweep_that_measures("pass")
    assert again == [Started(tmp_path / "out", "cuda", (), 18)]


@pytest.mark.parametrize("first", ["raise RuntimeError('no such luck')", "os._exit(1)"])
def test_a_group_whose_measurement_fails_is_trained_as_estimated_by_a_new_worker(
    first, sweep_that_measures, started_workers, tmp_path
):
    events = sweep_that_measures(first)
    sizes = pack_sizes(tmp_path / "out", events)
    assert sizes == {"attention": [8], "Fussy": [1] * 8, "hyena": [1, 1]}
    assert len(finished_runs(events)) == 18
    assert len(started_workers) == 2 + 1
    log = (tmp_path / "out" / "worker.log").read_text()
    assert ("no such luck" in log) == ("luck" in first)


@pytest.fixture
def interrupts():
    """Raise KeyboardInterrupt: a shell has commands in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_a_measurement_at_once(sweep_that_measures, started_workers, tmp_path):
    interrupted = []

    def interrupt() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sweep_that_measures("time.sleep(60)")
    assert time.monotonic() - interrupted[0] < 15
    assert len(started_workers) == 2
    assert all(worker.process.poll() is not None for worker in started_workers)
    assert not (tmp_path / "out" / "plan.json").exists()


def test_the_display_says_what_is_measured_and_what_is_estimated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(display, "estimated_hours", lambda packs, device: (1.5, 0))
    console = Console(file=io.StringIO(), width=80)
    SweepDisplay(console).show(Measuring(12, "cuda"))
    assert console.file.getvalue() == "measuring pack sizes for 12 shapes on cuda\n"
    (tmp_path / "grid.yaml").write_text("{}")
    grid = load_grid(tmp_path / "grid.yaml")
    for device in ("cuda", "cpu"):
        print_plan(grid, [PlannedPack(grid.runs)], device)
        out = capsys.readouterr().out
        assert ("estimates" in out) == (device == "cuda") == ("about 1.5 GPU-hours" in out)


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
    while through.step < 3:
        through.advance()
    state = {k: v.clone() if torch.is_tensor(v) else v for k, v in through.state().items()}
    again = PackTrainer([run], device, state, compiled=False)
    for trainer in (through, again):
        while not trainer.finished:
            trainer.advance()
    assert through.step == again.step == run.train.num_steps == 5
    torch.testing.assert_close(through.pack.flat, again.pack.flat, rtol=1e-3, atol=1e-5)
