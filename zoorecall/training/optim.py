"""AdamW and learning-rate schedules with settings of each run's own.

Shape letters: R runs, P parameters of a run, S steps.

AdamW: Loshchilov and Hutter 2019, algorithm 2, with the operations of `torch.optim.AdamW`.
What a step needs of the settings is computed before, in float64, into tables on the device: no step
waits for the host, and no compiled step raises a beta to its power for every parameter.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import TrainConfig


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
        def per_run(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)[:, None]

        beta1, beta2 = (
            per_run([s.betas[0] for s in settings]),
            per_run([s.betas[1] for s in settings]),
        )
        rate = torch.stack([learning_rates(s) for s in settings])  # [R, S]
        t = torch.arange(1, rate.shape[1] + 1)
        size, root = rate / (1 - beta1**t), (1 - beta2**t).sqrt()
        keep = 1 - rate * per_run([s.weight_decay for s in settings])
        self.by_step = torch.stack([size, root, keep]).mT.to(flat)  # [3, S, R]
        self.beta2, self.one_minus_beta1, self.one_minus_beta2 = (
            x.to(flat) for x in (beta2, 1 - beta1, 1 - beta2)
        )
        self.eps = per_run([s.eps for s in settings]).to(flat)
        clip_norms = [math.inf if s.clip_norm is None else s.clip_norm for s in settings]
        self.clip_norm = per_run(clip_norms).to(flat)
        self.exp_avg = torch.zeros_like(flat)
        self.exp_avg_sq = torch.zeros_like(flat)

    def step(
        self, flat: Tensor, grad: Tensor, step: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update `flat` in place with the gradients [R, P] of step `step` (0-dim, from 0).

        A run that is not `active` [R], or whose gradient is not finite, is left as it is.
        Returns the runs [R] that were updated, and the norms [R] of the gradients before clipping.
        """
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        active = active & norm.isfinite().squeeze(1)
        on = active[:, None]
        clip = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
        grad = torch.where(on, grad * clip, 0.0)

        size, root, keep = self.by_step.index_select(1, step.view(1)).mT  # [R, 1] each
        size, keep = torch.where(on, size, 0.0), torch.where(on, keep, 1.0)
        self.exp_avg.lerp_(grad, self.one_minus_beta1)
        self.exp_avg_sq.mul_(self.beta2).addcmul_(grad * self.one_minus_beta2, grad)
        flat.mul_(keep).sub_(size * self.exp_avg / (self.exp_avg_sq.sqrt() / root + self.eps))
        return active, norm.squeeze(1)
