"""AdamW and learning-rate schedules with settings of each run's own.

Shape letters: R runs, P parameters of a run, S steps.

AdamW: Loshchilov and Hutter 2019, algorithm 2, with the operations of `torch.optim.AdamW`.
Settings are float64 tensors on the device, so that no step waits for the host and no precision
is lost where they are close to one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import TrainConfig


def learning_rates(train: TrainConfig) -> Tensor:
    """The learning rate of every step, float64 [S].

    Linear warmup from 0, whose last step has the peak rate; then `schedule` down to 0 (cosine and
    linear reach it one step past the end). `cosine_by_epoch` sets the rate once an epoch.
    """
    steps, peak = train.num_steps, train.learning_rate
    warmup = round(train.warmup * steps)
    step = torch.arange(steps, dtype=torch.float64)
    after = (step - warmup) / max(1, steps - warmup)
    if train.schedule == "constant":
        factor = torch.ones_like(step)
    elif train.schedule == "linear":
        factor = 1 - after
    else:
        if train.schedule == "cosine_by_epoch":
            epoch = (step - warmup).div(train.steps_per_epoch, rounding_mode="floor")
            after = epoch * train.steps_per_epoch / max(1, steps - warmup)
        factor = (1 + torch.cos(math.pi * after)) / 2
    if warmup:
        factor = torch.where(step < warmup, (step + 1) / warmup, factor)
    return peak * factor


class AdamW:
    """AdamW over one tensor of parameters [R, P], each run with its own settings."""

    def __init__(self, settings: Sequence[TrainConfig], flat: Tensor):
        def per_run(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=flat.device)[:, None]

        self.learning_rates = torch.stack([learning_rates(s) for s in settings]).to(flat.device)
        self.weight_decay = per_run([s.weight_decay for s in settings])
        self.beta1 = per_run([s.betas[0] for s in settings])
        self.beta2 = per_run([s.betas[1] for s in settings])
        self.eps = per_run([s.eps for s in settings])
        self.clip_norm = per_run(
            [math.inf if s.clip_norm is None else s.clip_norm for s in settings]
        )
        self.exp_avg = torch.zeros_like(flat)
        self.exp_avg_sq = torch.zeros_like(flat)

    def step(self, flat: Tensor, grad: Tensor, step: Tensor, active: Tensor) -> Tensor:
        """Update `flat` in place with the gradients [R, P] of step `step` (0-dim, from 0).

        A run that is not `active` [R], or whose gradient is not finite, is left as it is.
        Returns the runs [R] that were updated.
        """
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        active = active & norm.isfinite().squeeze(1)
        on = active[:, None]
        clip = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
        grad = torch.where(on, grad * clip.to(grad.dtype), 0.0)

        t = step + 1
        rate = self.learning_rates.index_select(1, step.view(1)) * on
        size = (rate / (1 - self.beta1**t)).to(grad.dtype)
        root = (1 - self.beta2**t).sqrt().to(grad.dtype)
        keep = (1 - rate * self.weight_decay).to(grad.dtype)
        eps = self.eps.to(grad.dtype)

        self.exp_avg.lerp_(grad, (1 - self.beta1).to(grad.dtype))
        self.exp_avg_sq.mul_(self.beta2.to(grad.dtype))
        self.exp_avg_sq.addcmul_(grad * (1 - self.beta2).to(grad.dtype), grad)
        flat.mul_(keep).sub_(size * self.exp_avg / (self.exp_avg_sq.sqrt() / root + eps))
        return active
