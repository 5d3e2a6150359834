"""How fast a training step is, for any mixers, widths, lengths and pack sizes, on this machine.

The share of the machine that a step uses is taken against what the same process measures just
before: a large matrix product in the step's precision and a large copy. Bytes are the fewest that
a step must move through memory (`least_bytes`), so a share of bytes is a lower bound.
"""

import itertools
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .config import RunConfig
from .errors import UserError
from .model.cost import count_parameters, forward_flops
from .sweeps.plan import RunGroup, memory_bytes, pack_size
from .sweeps.provenance import device_name, provenance
from .tasks.mqar import mqar_of_length
from .training.trainer import PackTrainer

RECORDS = Path("results/bench")
"""Where the repository keeps what `zoorecall bench --json` has measured."""


TEST_EXAMPLES = 3_000
"""As the papers have."""


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at best: FLOP/s of a matrix product, bytes/s of a copy."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Measurement:
    """One pack, measured; times are medians over steps, per run."""

    mixer: str
    mixer_name: str
    num_layers: int
    d_model: int
    seq_len: int
    batch_size: int
    pack_size: int
    precision: str
    ms_per_run_step: float
    tokens_per_second: float
    flops_share: float | None
    bytes_share: float
    peak_gib: float
    first_step_seconds: float
    """Compilation and capture, on a GPU."""
    kernels: str
    largest: list[tuple[str, float]]
    """Of a GPU's kernels, the five that take most of a step of the pack: names, milliseconds."""
    evaluation_share: float | None = None
    """Time of a run's evaluations by that of its steps, in a run of the papers; None in records of
    versions that did not measure it."""

    @property
    def shape(self) -> tuple[object, ...]:
        """What was measured: two measurements of one shape are of the same thing."""
        names = "mixer num_layers d_model seq_len batch_size pack_size precision"
        return tuple(getattr(self, name) for name in names.split())


def bench_run(
    mixer: Any,
    d_model: int,
    seq_len: int,
    num_layers: int = 2,
    batch_size: int = 0,
    *,
    precision: str,
) -> RunConfig:
    """A run of the papers' size: vocabulary 8,192, batch 512 up to length 128, then 256 and 128."""
    batch_size = batch_size or (512 if seq_len <= 128 else 256 if seq_len <= 256 else 128)
    return RunConfig.model_validate(
        {
            "task": mqar_of_length(seq_len),
            "model": {"d_model": d_model, "num_layers": num_layers, "mixer": mixer},
            "train": {
                "batch_size": batch_size,
                "train_examples": 4 * batch_size,
                "epochs": 50 * 100_000 / (4 * batch_size),  # as many steps as the papers train
                "test_examples": TEST_EXAMPLES,
                "precision": precision,
            },
        }
    )


def bench(
    runs: Sequence[RunConfig],
    pack_sizes: Sequence[int | None],
    device: torch.device,
    limits: Ceilings,
    seconds: float = 1,
) -> Iterator[Measurement]:
    """Measure a step of every run at every pack size, None being what a sweep would take; sizes
    that do not fit are left out. `limits` are those of the runs' precision.

    On a GPU a process each compiles and captures its pack, as many at once as there are cores and
    memory for, and only then one after another is timed.
    """
    jobs = [
        Job(run, size or pack_size(run, device), limits, device, seconds)
        for run, size in itertools.product(runs, pack_sizes)
    ]
    if device.type == "cpu":
        yield from (measure(prepare(job), job) for job in jobs)
        return
    while jobs:
        group = _group(jobs, 0.7 * torch.cuda.get_device_properties(device).total_memory)
        jobs = jobs[len(group) :]
        failed: list[Job] = []
        yield from _measure_group(group, failed)
        if len(group) > 1:  # perhaps for want of memory that others had
            for job in failed:
                yield from _measure_group([job], [])


@dataclass(frozen=True)
class Job:
    """A pack of `pack_size` copies of a run, with learning rates of their own, to be timed."""

    run: RunConfig
    pack_size: int
    limits: Ceilings
    device: torch.device
    seconds: float


def _group(jobs: Sequence[Job], memory: float) -> list[Job]:
    """The first jobs, as many as fit into `memory` bytes and have a core each, but at least one."""
    needed = itertools.accumulate(job.pack_size * memory_bytes(job.run) for job in jobs)
    fitting = sum(total <= memory for total in needed)
    return list(jobs[: max(1, min(fitting, os.cpu_count() or 1))])


def _measure_group(jobs: Sequence[Job], failed: list[Job]) -> Iterator[Measurement]:
    """Prepare the packs of a group side by side and time one after another; those that could not
    be prepared are added to `failed`."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # there are enough processes
    spawn = multiprocessing.get_context("spawn")
    started = []
    for job in jobs:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_measure_when_told, args=(theirs, job), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        prepared = [_receive(connection) for _, connection in started]
        for job, (process, connection), is_prepared in zip(jobs, started, prepared, strict=True):
            if not is_prepared:
                failed.append(job)
            else:
                connection.send("go")
                measured = _receive(connection)
                process.kill()  # its memory is freed at once
                if measured is not None:
                    yield measured
    finally:
        for process, _ in started:
            process.kill()


def _receive(connection: Connection) -> Any:
    """What a process of a group sends; None from one that failed, whose traceback is printed."""
    try:
        return connection.recv()
    except EOFError:
        return None


def _measure_when_told(connection: Connection, job: Job) -> None:
    """A process of a group: says whether the pack fits, waits for its turn, sends what it took."""
    if job.device.type == "cuda":
        torch.cuda.set_device(job.device.index or 0)
    try:
        prepared = prepare(job)
    except torch.OutOfMemoryError:
        connection.send(False)
        return
    connection.send(True)
    connection.recv()
    connection.send(measure(prepared, job))


class Prepared(NamedTuple):
    trainer: PackTrainer
    first_step_seconds: float


def prepare(job: Job) -> Prepared:
    """Build a job's pack and train its first step, which on a GPU compiles and captures it."""
    base = job.run.train.learning_rate
    rates = [base * (1 + i / job.pack_size) for i in range(job.pack_size)]
    settings = [job.run.train.model_copy(update={"learning_rate": rate}) for rate in rates]
    runs = [job.run.model_copy(update={"train": train}) for train in settings]
    trainer = PackTrainer(runs, job.device)
    return Prepared(trainer, trainer.time_steps(1)[0])


def measure(prepared: Prepared, job: Job) -> Measurement:
    """Time the training step of a pack, and an evaluation of one of its runs."""
    run, (trainer, first) = job.run, prepared
    slot = trainer.running[0]
    tests = trainer.feed.tests(slot.run)
    trainer.time_steps(2)
    times = [trainer.time_steps(1)[0] for _ in range(3)]
    trainer.measure(slot, tests).tolist()  # which captures it, and shows which kernels run
    evaluations, started = list[float](), time.perf_counter()
    while not evaluations or time.perf_counter() - started < job.seconds / 10:
        began = time.perf_counter()
        trainer.measure(slot, tests).tolist()
        evaluations.append(time.perf_counter() - began)
    evaluation = statistics.median(evaluations)
    times = trainer.time_steps(max(3, round(job.seconds / max(statistics.median(times), 1e-5))))
    per_run, sequences = statistics.median(times) / job.pack_size, run.train.batch_size
    flops = forward_flops(run)
    ceiling = job.limits.flops_per_second
    on_gpu = job.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(job.device) / 2**30 if on_gpu else 0.0
    return Measurement(
        mixer=run.model.mixer.label,
        mixer_name=run.model.mixer.name,
        num_layers=run.model.num_layers,
        d_model=run.model.d_model,
        seq_len=run.task.seq_len,
        batch_size=run.train.batch_size,
        pack_size=job.pack_size,
        precision=run.train.precision,
        ms_per_run_step=1e3 * per_run,
        tokens_per_second=sequences * run.task.seq_len / per_run,
        flops_share=None if flops is None else 3 * flops * sequences / per_run / ceiling,
        bytes_share=least_bytes(run) / per_run / job.limits.bytes_per_second,
        peak_gib=peak,
        first_step_seconds=first,
        kernels=trainer.kernels,
        largest=_largest(trainer) if on_gpu else [],
        evaluation_share=len(run.train.evaluation_steps)
        * evaluation
        / (run.train.num_steps * per_run),
    )


def _largest(trainer: PackTrainer, count: int = 5, steps: int = 3) -> list[tuple[str, float]]:
    """The kernels that take most of a step of the whole pack: names and milliseconds."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        trainer.time_steps(steps)
    entries = sorted(profile.key_averages(), key=lambda entry: -entry.self_device_time_total)
    return [(e.key[:100], e.self_device_time_total / 1e3 / steps) for e in entries[:count]]


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


def record(
    measurements: Sequence[Measurement],
    device: torch.device,
    limits: Ceilings,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measurements and where they were made, for a JSON file; with those of other shapes that an
    `earlier` one has."""
    new = {measurement.shape for measurement in measurements}
    old = [Measurement(**row) for row in earlier["measurements"]] if earlier else []
    each = [*(one for one in old if one.shape not in new), *measurements]
    return {**provenance(device), **asdict(limits), "measurements": [asdict(one) for one in each]}


def earlier_record(path: Path, device: torch.device, precision: str) -> dict[str, Any] | None:
    """What a file holds, to be added to; None where there is none. Raises UserError where that is
    no record or one of another device or precision, as a record has the ceilings of one."""
    if not path.exists():
        return None
    found, here = read_record(path), device_name(device)
    others = {row["precision"] for row in found["measurements"]} - {precision}
    if found["device"] != here or others:
        there = ", ".join([found["device"], *sorted(others)])
        raise UserError(f"{path}: is of {there}, not of {here}, {precision}; choose another file")
    return found


def read_record(path: Path) -> dict[str, Any]:
    """What `record` made and a file holds; raises UserError for any other file."""
    try:
        table = json.loads(path.read_text())
        for row in table["measurements"]:
            Measurement(**row)
        return {"device": table["device"], **table}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not measurements of this version of zoorecall bench; choose another file"
        ) from error


ALIKE = 4
"""A step says how long another of its mixer takes that has at most so many times its FLOPs, or its
own as many times those."""


def estimated_hours(groups: Sequence[RunGroup], device: torch.device) -> tuple[float, int]:
    """Hours that the training steps of runs take on one device, a core of a CPU or a GPU; and how
    many runs are left out, as `RECORDS` has no step that is like theirs on such a device."""
    records = [read_record(path) for path in sorted(RECORDS.glob("*.json"))]
    here = [record for record in records if record["device"] == device_name(device)]
    speeds = [
        (m["mixer_name"], m["precision"], speed * m["ms_per_run_step"] / 1e3, speed)
        for record in here
        for m in record["measurements"]
        if m["flops_share"] and (speed := m["flops_share"] * record["flops_per_second"])
    ]
    hours, unknown = 0.0, 0
    for group in groups:
        speed = _speed(group.runs[0], speeds)
        if speed is None or group.flops is None:
            unknown += len(group.runs)
        else:
            hours += group.flops / speed / 3600
    return hours, unknown


def _speed(run: RunConfig, speeds: Sequence[tuple[str, str, float, float]]) -> float | None:
    """FLOP/s of the step that is most like a run's."""
    flops = 3 * (forward_flops(run) or 0) * run.train.batch_size
    kind = (run.model.mixer.name, run.train.precision)
    near = [
        (abs(math.log(step / flops)), speed)
        for *of, step, speed in speeds
        if flops and tuple(of) == kind
    ]
    distance, speed = min(near, default=(math.inf, 0.0))
    return speed if distance <= math.log(ALIKE) else None
