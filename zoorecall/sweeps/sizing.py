"""How many runs a GPU trains at once, measured.

A step of a pack of R runs takes a + b R seconds and c + d R bytes: `a` is what kernels and their
launches take however little they do. Two packs show all four. They are timed as captured but not
compiled: a few seconds instead of the minute that compiling two packs takes. That compiling saves
of `a` and `b` alike, so that the best size stays about the same, is assumed, not measured.
"""

import gc
from dataclasses import dataclass

import torch

from ..config import RunConfig
from ..training.trainer import PackTrainer
from .plan import MAX_RUNS, SAMPLE_SIZES, example_bytes, memory_bytes, pack_memory, pack_size

OVERHEAD = 0.1
"""The fixed cost `a` of a pack's step may be at most this fraction of what its runs cost."""

PACK_SECONDS = 25
"""For so long a pack should train at the least. To compile and capture it takes about 45 s, in
which the two other workers of a GPU can keep it busy only if their packs train that long."""

SAMPLE_SECONDS = 0.3


@dataclass(frozen=True)
class Sample:
    """One training step of a pack of `runs` runs: what it took. `bytes` are the peak of the whole
    process, as what a library keeps from its first use on is of no use to others either."""

    runs: int
    seconds: float
    bytes: int


def best_size(small: Sample, large: Sample, memory: float, step_seconds: float = 0) -> int:
    """The fewest runs that keep a GPU busy: with them `a` is at most `OVERHEAD` of b R and a step
    takes `step_seconds`. At least as many as `small` has, at most `MAX_RUNS` and, above all, what
    fits into `memory` bytes. Noise may make a slope negative: then more runs cost nothing.
    """
    more = large.runs - small.runs
    b, d = (large.seconds - small.seconds) / more, (large.bytes - small.bytes) / more
    a, c = small.seconds - b * small.runs, small.bytes - d * small.runs
    fits = min(MAX_RUNS, (memory - c) / d) if d > 0 else MAX_RUNS
    most = max(1, int(fits))
    for R in range(small.runs, most):
        if a <= OVERHEAD * b * R and a + b * R >= step_seconds:
            return R
    return most


def sample(run: RunConfig, size: int, device: torch.device) -> Sample:
    """Train a step of `size` copies of the run a few times; bytes are known of a GPU only.

    Raises torch.OutOfMemoryError where they do not fit.
    """
    on_gpu = device.type == "cuda"
    release_memory(device)  # that of the sample before
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    few = {"train_examples": run.train.batch_size, "test_examples": 1}
    copied = run.model_copy(update={"train": run.train.model_copy(update=few)})
    trainer = PackTrainer([copied], device, size, compiled=False)
    trainer.time_steps(2)  # the first one builds kernels
    rough = min(trainer.time_steps(3))
    # the least, as workers that measure at the same time can only add to it
    seconds = min(trainer.time_steps(max(3, round(SAMPLE_SECONDS / rough))))
    peak = 0
    if on_gpu:  # with the places of all examples, of which there are few here
        peak = torch.cuda.max_memory_allocated(device) + size * example_bytes(run)
    return Sample(size, seconds, peak)


def measured_size(run: RunConfig, device: torch.device) -> int:
    """How many runs like this one to train at once; `plan.pack_size` where two packs do not fit."""
    memory, (small, large) = pack_memory(device), SAMPLE_SIZES
    large = int(min(large, memory / memory_bytes(run)))
    if large <= small:
        return pack_size(run, device)
    try:
        two, more = sample(run, small, device), sample(run, large, device)
        size = best_size(two, more, memory, PACK_SECONDS / run.train.num_steps)
    except torch.OutOfMemoryError:
        size = pack_size(run, device)
    release_memory(device)
    return size


def release_memory(device: torch.device) -> None:
    """Give back what a trainer held that nothing refers to any more."""
    gc.collect()  # it refers to itself
    if device.type == "cuda":
        torch.cuda.empty_cache()
