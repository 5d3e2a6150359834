"""How fast a training step is, for any mixers, widths, lengths and pack sizes, on this machine.

The share of the machine that a step uses is taken against what the same process measures just
before: a large matrix product in the step's precision and a large copy. Bytes are the fewest that
a step must move through memory (`least_bytes`), so a share of bytes is a lower bound.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .config import RunConfig
from .model import count_parameters, forward_flops
from .provenance import provenance
from .train import PackTrainer

PAIRS_PER_TOKEN = 1 / 16
"""Key-value pairs in a sequence, as in the papers' settings up to length 256."""


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at best: FLOP/s of a matrix product, bytes/s of a copy."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Measurement:
    """One pack, measured; times are medians over steps, per run."""

    mixer: str
    num_layers: int
    d_model: int
    seq_len: int
    batch_size: int
    pack_size: int
    precision: str
    ms_per_run_step: float
    tokens_per_second: float
    flops_share: float
    bytes_share: float
    peak_gib: float
    first_step_seconds: float
    """Compilation and capture, on a GPU."""


def bench_run(
    mixer: Any, d_model: int, seq_len: int, num_layers: int = 2, batch_size: int = 0, **train: Any
) -> RunConfig:
    """A run of the papers' size: vocabulary 8,192, batch 512 up to length 128, then 256 and 128."""
    batch_size = batch_size or (512 if seq_len <= 128 else 256 if seq_len <= 256 else 128)
    pairs = max(1, round(seq_len * PAIRS_PER_TOKEN))
    return RunConfig.model_validate(
        {
            "task": {"name": "mqar", "seq_len": seq_len, "num_kv_pairs": pairs},
            "model": {"d_model": d_model, "num_layers": num_layers, "mixer": mixer},
            "train": {
                "batch_size": batch_size,
                "train_examples": 4 * batch_size,
                "test_examples": 1,
                **train,
            },
        }
    )


def bench(
    runs: Sequence[RunConfig], pack_sizes: Sequence[int], device: torch.device, seconds: float = 1
) -> Iterator[Measurement]:
    """Measure a step of every run at every pack size; sizes that do not fit are left out."""
    limits = {run.train.precision: ceilings(device, run.train.precision) for run in runs}
    for run, size in itertools.product(runs, pack_sizes):
        try:
            yield measure(run, size, device, limits[run.train.precision], seconds)
        except torch.OutOfMemoryError:
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def measure(
    run: RunConfig, pack_size: int, device: torch.device, limits: Ceilings, seconds: float
) -> Measurement:
    """Time the training step of a pack of `pack_size` copies of a run with rates of their own."""
    rates = [run.train.learning_rate * (1 + i / pack_size) for i in range(pack_size)]
    settings = [run.train.model_copy(update={"learning_rate": rate}) for rate in rates]
    runs = [run.model_copy(update={"train": train}) for train in settings]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = PackTrainer(runs, device)
    first = trainer.time_steps(1)[0]
    trainer.time_steps(2)
    times = [trainer.time_steps(1)[0] for _ in range(3)]
    times = trainer.time_steps(max(3, round(seconds / max(statistics.median(times), 1e-5))))
    step = statistics.median(times)
    per_run, sequences = step / pack_size, run.train.batch_size
    flops = 3 * forward_flops(run) * sequences / per_run
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return Measurement(
        mixer=run.model.mixer.label,
        num_layers=run.model.num_layers,
        d_model=run.model.d_model,
        seq_len=run.task.seq_len,
        batch_size=run.train.batch_size,
        pack_size=pack_size,
        precision=run.train.precision,
        ms_per_run_step=1e3 * per_run,
        tokens_per_second=sequences * run.task.seq_len / per_run,
        flops_share=flops / limits.flops_per_second,
        bytes_share=least_bytes(run) / per_run / limits.bytes_per_second,
        peak_gib=peak,
        first_step_seconds=first,
    )


def least_bytes(run: RunConfig) -> float:
    """Bytes that a step of a run moves at the least: weights and optimizer state read and written
    in float32; the residual stream read and written once a block forward and twice backward."""
    width = 2 if run.train.precision == "bf16" else 4
    blocks = run.model.num_layers * (2 if run.model.channel_mixer == "mlp" else 1)
    stream = run.train.batch_size * run.task.seq_len * run.model.d_model * width
    return 4 * 7 * count_parameters(run) + 6 * blocks * stream


def ceilings(device: torch.device, precision: str) -> Ceilings:
    """Measure a large matrix product on random data and a large copy."""
    on_gpu = device.type == "cuda"
    size, numbers = (8192, 2**30) if on_gpu else (1024, 2**26)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(numbers, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    product = _median_seconds(lambda: torch.mm(a, b), device)
    copy = _median_seconds(lambda: target.copy_(source), device)
    return Ceilings(2 * size**3 / product, 2 * numbers / copy)


def _median_seconds(work: Callable[[], Any], device: torch.device, times: int = 10) -> float:
    seconds = []
    for _ in range(times + 3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def record(measurements: Sequence[Measurement], device: torch.device) -> dict[str, Any]:
    """Measurements and where they were made, for a JSON file."""
    limits = asdict(ceilings(device, measurements[0].precision)) if measurements else {}
    rows = [asdict(measurement) for measurement in measurements]
    return {**provenance(device), **limits, "measurements": rows}
