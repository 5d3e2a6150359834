"""Small runs that every test of training builds on."""

import contextlib
import itertools
import math
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch.testing import assert_close

from zoorecall.config import RunConfig
from zoorecall.mixers import MIXERS
from zoorecall.sweeps import sweeper
from zoorecall.sweeps.events import (
    Died,
    Finished,
    JobEvent,
    More,
    Progress,
    Prune,
    Setup,
    Started,
    Stop,
    SweepEvent,
    Train,
)
from zoorecall.sweeps.executor import Inbox, perform
from zoorecall.sweeps.plan import plan
from zoorecall.sweeps.schedule import Schedule

torch.set_num_threads(1)

SMALL_MIXERS = {
    "attention": {"num_heads": 2, "conv": "k"},
    "mamba": {"d_state": 3},
    "s6": {"d_state": 3, "conv": True},
    "mamba2": {"d_state": 4, "headdim": 8},
    "base_conv": {"conv": "implicit"},
    "gated_delta_net": {"num_heads": 2},
}
"""Options that make a mixer small and odd; the other mixers run with their defaults."""

SMALL_TASKS = {
    "mqar": {"vocab_size": 32, "seq_len": 12, "num_kv_pairs": 2},
    "key_value_sum": {"num_pairs": 3, "num_operands": 2, "num_values": 4, "num_keys": 8},
}
"""Options that make a task small; the other tasks run with their defaults."""


DOES = """
import fcntl, os, pathlib, signal, subprocess, sys, time, torch, warnings
from zoorecall.errors import ZoorecallWarning

class Does(torch.nn.Linear):
    def __init__(self, d_model, code):
        super().__init__(d_model, d_model)
        self.code = code
    def forward(self, x):
        exec(self.code)
        return super().forward(x)
"""
"""A module of a user's own whose forward first does what it is given."""


def small_run(
    mixer: str = "attention", seed: int = 1, task: Mapping[str, Any] | None = None, **train
) -> RunConfig:
    """A run of a few steps: 2 layers of width 16, MQAR of 12 tokens or a task's name and options
    that are not those of `SMALL_TASKS`."""
    task = task or {"name": "mqar"}
    settings = {"batch_size": 8, "train_examples": 40, "test_examples": 24, "epochs": 2}
    return RunConfig.model_validate(
        {
            "task": {**SMALL_TASKS.get(task["name"], {}), **task},
            "model": {"d_model": 16, "mixer": {"name": mixer, **SMALL_MIXERS.get(mixer, {})}},
            "train": {**settings, "evaluations": 3, **train},
            "seed": seed,
        }
    )


def finished_runs(events: Sequence[SweepEvent]) -> list[RunConfig]:
    """The runs that a sweep trained, by its events."""
    (started,) = (event for event in events if isinstance(event, Started))
    runs = {run.run_id: run for group in started.groups for run in group.runs}
    return [runs[x] for event in events if isinstance(event, Finished) for x in event.run_ids]


def train_into(
    folder: Path, runs: Sequence[RunConfig], slots: int = 8, stop_after: float = math.inf
) -> list[JobEvent]:
    """Train runs into a folder as a sweep of one worker does, but in this process, without the
    sweep's own files; each job is told to stop once it has told so many times how far it is.
    Returns the events."""
    heard: list[JobEvent] = []
    schedule = Schedule(plan(runs, lambda run: slots), ["cpu"])
    while jobs := schedule.jobs():
        inbox, told = Inbox(), itertools.count(1)

        def emit(event: JobEvent, inbox: Inbox = inbox, told: Iterator[int] = told) -> None:
            heard.append(event)
            if isinstance(event, Progress) and next(told) >= stop_after:
                inbox.put(Stop())
            if isinstance(event, Finished):
                inbox.put(More(schedule.more(0, event.run_ids, finished=True)))

        perform(jobs[0][1], Setup(folder, "cpu", 1, math.inf), emit, inbox)
        schedule.end(0, heard[-1])
    return heard


class InThread:
    """An executor of one worker, a thread of this process."""

    places = ("cpu",)

    def __init__(self, places: Sequence[str], folder: Path, checkpoint_seconds: float, log: str):
        self._setup, self._inbox = Setup(folder, "cpu", 1, checkpoint_seconds), Inbox()
        self._jobs: queue.SimpleQueue[Train | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "InThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._inbox.put(Stop())
        self._jobs.put(None)
        self._thread.join()

    def give(self, place: int, order: Train | More | Prune) -> None:
        self._jobs.put(order) if isinstance(order, Train) else self._inbox.put(order)

    def event(self, seconds: float) -> tuple[int, JobEvent] | None:
        with contextlib.suppress(queue.Empty):
            return 0, self._events.get(timeout=seconds)
        return None

    def kill(self, place: int, reason: str) -> None:
        raise NotImplementedError("a thread cannot be ended")

    def _work(self) -> None:
        while job := self._jobs.get():
            try:
                perform(job, self._setup, self._events.put, self._inbox)
            except Exception as error:
                self._events.put(Died(str(error)))


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Sweeps train in this process, which is quicker than to start others."""
    monkeypatch.setattr(sweeper, "LocalExecutor", InThread)


def gradients(y, tensors):
    """Of `tensors`, under the same cotangent for every y of this shape; zeros if unused."""
    torch.manual_seed(1)  # not randn_like: its numbers depend on y's strides and dtype
    return torch.autograd.grad(y, tensors, torch.randn(y.shape).to(y), materialize_grads=True)


def assert_pack_is_its_runs(packed, mixers, x):
    """`packed`, given the weights of these mixers of one run, has their outputs and gradients of
    x [R, B, L, D]."""
    names = [name for name, _ in packed.named_parameters()]
    for name in names:
        packed.get_parameter(name).data = torch.cat([m.get_parameter(name).data for m in mixers])
    y, expected = packed(x), torch.cat([mixer(x[r : r + 1]) for r, mixer in enumerate(mixers)])
    assert_close(y, expected)
    ours = gradients(y, [x, *packed.parameters()])
    theirs = gradients(expected, [x, *(m.get_parameter(n) for n in names for m in mixers)])
    assert_close(ours[0], theirs[0])
    R = len(mixers)
    for i in range(len(names)):
        assert_close(ours[1 + i], torch.cat(theirs[1 + R * i : 1 + R * (i + 1)]))


@pytest.fixture(params=sorted(MIXERS))
def mixer(request) -> str:
    return request.param
