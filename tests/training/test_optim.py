"""AdamW over a pack against torch.optim.AdamW a run, and the schedules against closed forms."""

import math

import pytest
import torch

from zoorecall.config import TrainConfig
from zoorecall.training.optim import AdamW, learning_rates

SETTINGS = [
    {"learning_rate": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.999)},
    {"learning_rate": 1e-1, "weight_decay": 0.0, "betas": (0.8, 0.95), "schedule": "constant"},
    {"learning_rate": 1e-2, "weight_decay": 0.3, "clip_norm": 0.5, "warmup": 0.5},
    {"learning_rate": 2e-3, "eps": 1e-3, "schedule": "linear"},
]


def settings() -> list[TrainConfig]:
    common = {"epochs": 3, "train_examples": 8, "batch_size": 2}
    return [TrainConfig(**common, **each) for each in SETTINGS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_packed_step_equals_torch_adamw_with_that_runs_settings(dtype):
    runs, P = settings(), 7
    torch.manual_seed(0)
    start = torch.randn(len(runs), P, dtype=dtype)
    grads = torch.randn(runs[0].num_steps, len(runs), P, dtype=dtype)
    flat = start.clone()
    packed = AdamW(runs, flat)
    solo = [torch.nn.Parameter(row.clone()) for row in start]
    optimizers = [
        torch.optim.AdamW([p], lr=0.0, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
        for p, s in zip(solo, runs, strict=True)
    ]
    active = torch.ones(len(runs), dtype=torch.bool)
    for step in range(runs[0].num_steps):
        updated, norm = packed.step(flat, grads[step].clone(), torch.tensor(step), active)
        assert updated.all()
        torch.testing.assert_close(norm, torch.linalg.vector_norm(grads[step], dim=1))
        for r, (parameter, optimizer) in enumerate(zip(solo, optimizers, strict=True)):
            parameter.grad = grads[step, r].clone()
            if runs[r].clip_norm:
                torch.nn.utils.clip_grad_norm_([parameter], runs[r].clip_norm)
            optimizer.param_groups[0]["lr"] = float(learning_rates(runs[r])[step])
            optimizer.step()
            torch.testing.assert_close(flat[r], parameter.detach(), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_with_a_gradient_that_is_not_finite_is_left_as_it_was(bad):
    runs = settings()
    flat, grad = torch.randn(len(runs), 5), torch.randn(len(runs), 5)
    alone = flat.clone()
    clean = AdamW(runs, alone)
    packed = AdamW(runs, flat)
    before = flat[1].clone()
    poisoned = grad.clone()
    poisoned[1, 2] = bad
    active = torch.ones(len(runs), dtype=torch.bool)
    updated, _ = packed.step(flat, poisoned, torch.tensor(0), active)
    clean.step(alone, grad, torch.tensor(0), active)
    assert updated.tolist() == [True, False, True, True]
    assert torch.equal(flat[1], before)
    assert torch.equal(flat[[0, 2, 3]], alone[[0, 2, 3]])


def test_warmup_ends_at_the_peak_and_cosine_ends_near_zero():
    train = TrainConfig(learning_rate=2.0, epochs=10, train_examples=100, batch_size=10, warmup=0.1)
    rates = learning_rates(train)
    assert len(rates) == 100
    torch.testing.assert_close(rates[:10], 2.0 * torch.arange(1, 11, dtype=torch.float64) / 10)
    assert rates[10] == 2.0
    expected = [2.0 * (1 + math.cos(math.pi * i / 90)) / 2 for i in range(90)]
    torch.testing.assert_close(rates[10:], torch.tensor(expected, dtype=torch.float64))


def test_cosine_by_epoch_follows_torchs_schedule_stepped_once_an_epoch():
    train = TrainConfig(
        epochs=5, train_examples=12, batch_size=3, warmup=0.0, schedule="cosine_by_epoch"
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    expected = []
    for _ in range(5):
        expected += [optimizer.param_groups[0]["lr"]] * 4
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(learning_rates(train), torch.tensor(expected, dtype=torch.float64))


def test_linear_falls_by_equal_steps_and_constant_stays():
    common = {"epochs": 1, "train_examples": 8, "batch_size": 2, "warmup": 0.0}
    linear = learning_rates(TrainConfig(learning_rate=1.0, schedule="linear", **common))
    torch.testing.assert_close(linear, torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64))
    constant = learning_rates(TrainConfig(learning_rate=1.0, schedule="constant", **common))
    assert constant.tolist() == [1.0] * 4
