"""Small runs that every test of training builds on."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from zoorecall.config import RunConfig
from zoorecall.mixers import MIXERS

torch.set_num_threads(1)

SMALL_MIXERS = {
    "attention": {"num_heads": 2, "conv": "k"},
    "mamba": {"d_state": 3},
    "s6": {"d_state": 3, "conv": True},
    "mamba2": {"d_state": 4, "headdim": 8},
    "gated_delta_net": {"num_heads": 2},
}
"""Options that make a mixer small and odd; the other mixers run with their defaults."""


def small_run(mixer: str = "attention", seed: int = 1, **train) -> RunConfig:
    """A run of a few steps: 2 layers of width 16, sequences of 12 tokens."""
    settings = {"batch_size": 8, "train_examples": 40, "test_examples": 24, "epochs": 2}
    return RunConfig.model_validate(
        {
            "task": {"name": "mqar", "vocab_size": 32, "seq_len": 12, "num_kv_pairs": 2},
            "model": {"d_model": 16, "mixer": {"name": mixer, **SMALL_MIXERS.get(mixer, {})}},
            "train": {**settings, "evaluations": 3, **train},
            "seed": seed,
        }
    )


def gradients(y, tensors):
    """Of `tensors`, under the same cotangent for every y of this shape; zeros if unused."""
    torch.manual_seed(1)  # not randn_like: its numbers depend on y's strides and dtype
    return torch.autograd.grad(y, tensors, torch.randn(y.shape).to(y), materialize_grads=True)


@pytest.fixture(params=sorted(MIXERS))
def mixer(request) -> str:
    return request.param
