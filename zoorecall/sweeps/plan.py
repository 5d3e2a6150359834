"""Which runs can train together, and how many at once."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from ..config import RunConfig
from ..errors import DeviceError, UserError
from ..mixers import CustomConfig
from ..model.cost import count_parameters, forward_flops


@dataclass(frozen=True)
class RunGroup:
    """Runs of one pack key, the longest first, and how many a device trains at once."""

    runs: tuple[RunConfig, ...]
    slots: int

    @property
    def flops(self) -> int | None:
        """FLOPs of its training, as `model.forward_flops` counts them; None if not known."""
        of_one = forward_flops(self.runs[0])
        return None if of_one is None else 3 * of_one * self.sequences

    @property
    def work(self) -> int:
        """What says which of two groups takes longer: `flops`, but of a user's own mixer, which
        only a worker may call, two a parameter and token, three times."""
        run = self.runs[0]
        flops = None if _has_users_code(run) else self.flops
        of_one = 6 * count_parameters(run) * run.task.seq_len
        return of_one * self.sequences if flops is None else flops

    @property
    def sequences(self) -> int:
        """How many sequences its runs train on, all together."""
        return sum(run.train.num_steps for run in self.runs) * self.runs[0].train.batch_size


def _has_users_code(run: RunConfig) -> bool:
    return any(isinstance(mixer, CustomConfig) for mixer in run.model.mixer.each)


def each_once(runs: Iterable[RunConfig]) -> tuple[RunConfig, ...]:
    """Runs as they are given, but none twice."""
    return tuple({run.run_id: run for run in runs}.values())


def plan(runs: Sequence[RunConfig], slots: Callable[[RunConfig], int]) -> list[RunGroup]:
    """Runs by pack key, keys in the order of the grid; `slots` says of the first of a group how
    many like it to train at once, at most: as many times as it takes, nearly equally many, as few
    runs at the end would take as long as all slots together. For the same reason those that will
    take longest come first."""
    by_key: dict[str, list[RunConfig]] = {}
    for run in runs:
        by_key.setdefault(run.pack_key, []).append(run)
    groups = []
    for each in by_key.values():
        times = math.ceil(len(each) / slots(each[0]))
        longest_first = tuple(sorted(each, key=_how_soon))
        groups.append(RunGroup(longest_first, math.ceil(len(each) / times)))
    return groups


def _how_soon(run: RunConfig) -> tuple[int, float]:
    """What tells which of two runs ends sooner. Of those that end at an accuracy a lower learning
    rate reaches it later, or never."""
    train = run.train
    ends_early = (train.stop_at_accuracy, train.stop_above_accuracy) != (None, None)
    return -train.num_steps, train.learning_rate if ends_early else 0


def share(runs: Sequence[RunConfig], part: int, parts: int) -> list[RunConfig]:
    """The runs that part `part` of `parts`, counted from 1, trains: about as much work as those of
    any other, and few pack keys, as the runs of a key are cut at most where a part ends.

    Raises UserError where there are fewer runs than parts.
    """
    if len(runs) < parts:
        raise UserError(f"part {part}/{parts}: the grid has {len(runs)} runs, no more parts train")
    groups = plan(runs, lambda run: 1)
    ordered = [run for group in groups for run in group.runs]
    unit = {group.runs[0].pack_key: group.work / group.sequences for group in groups}
    work = [unit[x.pack_key] * x.train.num_steps * x.train.batch_size for x in ordered]
    before = [*accumulate(work, initial=0.0)]  # the work of all runs in front of one
    start = 0
    for left in range(parts, parts - part, -1):
        begin, end = start, before[start] + (before[-1] - before[start]) / left
        start += 1  # a run at the least, and one for each part that follows
        while start <= len(work) - left and before[start] + work[start] / 2 <= end:
            start += 1
    return ordered[begin:start] if part < parts else ordered[begin:]


MAX_RUNS = 128
"""In a pack: from there on more share nothing worth having, and a crash costs more."""

CPU_ACTIVATIONS = 2**18
"""Numbers in one activation [R, B, L, D] of a pack on a CPU: about what its caches hold. Measured
at width 32, length 32, batch 64: 6.0 ms a run-step alone, 3.6 in fours; at width 64, length 64,
batch 128: 99 ms alone, 95 in twos, 105 in fours, 136 in eights."""

GPU_ACTIVATIONS = 5 * 2**23
"""The same on a GPU: enough to keep it busy. A step of 20 runs at width 64, length 64, batch 512 is
so large; of what it takes on an H200 a tenth is what a step takes however few runs it has."""

TOKEN_BYTES = 4
"""Of a token, a position or a target, see `tasks.base`."""

GPU_MEMORY = 0.25
"""Share of a GPU's memory that a pack may take: three packs are at work at a time."""


def pack_memory(device: torch.device) -> float:
    """Bytes that a pack may take on a GPU; elsewhere nothing is known, and it is infinite."""
    if device.type == "cpu":
        return math.inf
    return GPU_MEMORY * total_memory(device)


def check_fits(runs: Iterable[RunConfig], device: torch.device) -> None:
    """Raise DeviceError for the first run that cannot train on the device even alone. What a mixer
    of the user's own takes, a worker finds out."""
    memory = total_memory(device)
    for run in {run.pack_key: run for run in runs}.values():
        needed = 0 if _has_users_code(run) else least_memory(run)
        if needed > memory:
            train, model = run.train, run.model
            raise DeviceError(
                f"a run of {model.mixer.label} (d_model {model.d_model}, num_layers "
                f"{model.num_layers}, seq_len {run.task.seq_len}, vocab_size "
                f"{run.task.vocab_size}, batch_size {train.batch_size}, train_examples "
                f"{train.train_examples}, test_examples {train.test_examples}) takes "
                f"{needed / 2**30:,.0f} GiB at the least, should fit into the "
                f"{memory / 2**30:,.0f} GiB of this {device.type}"
            )


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return torch.cuda.get_device_properties(device).total_memory


def least_memory(run: RunConfig) -> float:
    """Bytes that a run cannot do without: weights and gradients, what enters each layer, and its
    examples. Infinite where a tensor would be larger than torch can count."""
    train, L = run.train, run.task.seq_len
    try:
        parameters = count_parameters(run)
    except (RuntimeError, OverflowError) as error:
        if "overflow" in str(error).lower():
            return math.inf
        raise
    entering = train.batch_size * L * run.model.d_model * run.model.num_layers
    examples = train.train_examples + train.test_examples
    return 8 * parameters + entering * (2 if train.precision == "bf16" else 4) + 4 * L * examples


def pack_size(run: RunConfig, device: torch.device) -> int:
    """How many runs like this one to train at once."""
    B, L, D = run.train.batch_size, run.task.seq_len, run.model.d_model
    if device.type == "cpu":
        return min(8, max(1, CPU_ACTIVATIONS // (B * L * D)))
    fits = int(pack_memory(device) / memory_bytes(run))
    return max(1, min(GPU_ACTIVATIONS // (B * L * D), fits, MAX_RUNS))


def memory_bytes(run: RunConfig) -> int:
    """An estimate of what a run takes while it trains: weights, optimizer, activations, logits, and
    its examples."""
    bytes_each = 2 if run.train.precision == "bf16" else 4
    B, L, D = run.train.batch_size, run.task.seq_len, run.model.d_model
    widths = 16 + (4 * run.model.mlp_ratio if run.model.channel_mixer == "mlp" else 0)
    activations = B * L * D * widths * run.model.num_layers * bytes_each
    logits = 3 * B * run.task.num_queries * run.task.vocab_size * bytes_each
    return 24 * count_parameters(run) + activations + logits + example_bytes(run)


def example_bytes(run: RunConfig) -> int:
    """What a slot's examples take, those for tests too: tokens, positions and targets, and the
    order of training."""
    train, task = run.train, run.task
    of_one = TOKEN_BYTES * (task.seq_len + 2 * task.num_queries)
    return (train.train_examples + train.test_examples) * of_one + 8 * train.train_examples
