"""Optimizers and learning-rate schedules with settings of each run's own.

Shape letters: R slots, P parameters of a run, S steps, M x N a weight matrix.

What a step needs of the settings is computed before, in float64, into tables on the device, an
epoch of each run at a time: no step waits for the host, and no compiled step raises a beta to its
power for every parameter.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..config import TrainConfig
from ..model.pack import Matrix


def learning_rates(train: TrainConfig, step: Tensor) -> Tensor:
    """The learning rates of steps counted from 0, float64 [S] -> the same.

    Linear warmup from 0, whose last step has the peak rate; then `schedule` down to 0 (cosine and
    linear reach it one step past the end). `cosine_by_epoch` sets the rate once an epoch.
    """
    steps, peak = train.num_steps, train.learning_rate
    warmup = round(train.warmup * steps)
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


class Optimizer:
    """One step of every run of a pack, each with its own settings.

    `buffers` has, by name, the tensors [R, P] that a step changes besides the parameters, `numbers`
    those [R, 1] that are a run's own. `by_step` [tables, R, steps of an epoch] has what changes
    from step to step; a run is at column `cursor` [R].
    """

    BUFFERS: ClassVar[tuple[str, ...]]

    def __init__(self, train: TrainConfig, flat: Tensor, cursor: Tensor):
        self.flat, self.cursor = flat, cursor
        self.buffers = {name: torch.zeros_like(flat) for name in self.BUFFERS}
        # 1 where no run has entered yet: a division by 0 would make the weights there NaN
        self.numbers = {name: flat.new_ones(len(flat), 1) for name in self.numbers_of(train)}
        tables = len(self.tables(train, torch.zeros(1, dtype=torch.float64)))
        self.by_step = flat.new_ones(tables, len(flat), train.steps_per_epoch)
        # which parameters have weight decay, [1, P], or all of them, [1, 1]
        self.decayed = torch.ones(1, 1, dtype=torch.bool, device=flat.device)

    def numbers_of(self, train: TrainConfig) -> dict[str, float]:
        """What a step needs to know of a run, whatever the step."""
        return {"clip_norm": math.inf if train.clip_norm is None else train.clip_norm}

    def tables(self, train: TrainConfig, step: Tensor) -> list[Tensor]:
        """What `update` needs to know of steps of a run, float64 [S] each."""
        raise NotImplementedError

    def update(self, flat: Tensor, grad: Tensor, on: Tensor, now: Tensor) -> None:
        """Change `flat` and `buffers` in place with the gradients [R, P], which are 0 where a run
        is not `on` [R, 1]: there `flat` stays as it is. `now` has this step's numbers from
        `tables`, [tables, R, 1]."""
        raise NotImplementedError

    def enter(self, r: int, train: TrainConfig) -> None:
        """Slot r begins anew, with the settings of a run."""
        for name, value in self.numbers_of(train).items():
            self.numbers[name][r] = value
        for buffer in self.buffers.values():
            buffer[r] = 0

    def load(self, r: int, train: TrainConfig, epoch: int) -> None:
        """Have what changes from step to step in an epoch of slot r."""
        size = train.steps_per_epoch
        steps = torch.arange(epoch * size, min((epoch + 1) * size, train.num_steps)).double()
        tables = torch.stack(self.tables(train, steps)).to(self.by_step.dtype)
        self.by_step[:, r, : len(steps)] = tables.to(self.by_step.device, non_blocking=True)

    def step(self, grad: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Update `flat` in place with the gradients [R, P] of the step at the cursor.

        A run that is not `active` [R], or whose gradient is not finite, is left as it is.
        Returns the runs [R] that were updated, and the norms [R] of the gradients before clipping.
        """
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        active = active & norm.isfinite().squeeze(1)
        on = active[:, None]
        clip = torch.clamp(self.numbers["clip_norm"] / (norm + 1e-6), max=1.0)
        grad = torch.where(on, grad * clip, 0.0)
        at = self.cursor.view(1, -1, 1).expand(len(self.by_step), -1, 1)
        self.update(self.flat, grad, on, self.by_step.gather(2, at))
        return active, norm.squeeze(1)


class AdamW(Optimizer):
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, with the operations of
    `torch.optim.AdamW`."""

    BUFFERS = ("exp_avg", "exp_avg_sq")

    def numbers_of(self, train: TrainConfig) -> dict[str, float]:
        beta1, beta2 = train.betas
        own = {"one_minus_beta1": 1 - beta1, "beta2": beta2, "one_minus_beta2": 1 - beta2}
        return super().numbers_of(train) | own | {"eps": train.eps}

    def tables(self, train: TrainConfig, step: Tensor) -> list[Tensor]:
        (beta1, beta2), (rate, keep), t = train.betas, rate_and_keep(train, step), step + 1
        return [rate / (1 - beta1**t), (1 - beta2**t).sqrt(), keep]

    def update(self, flat: Tensor, grad: Tensor, on: Tensor, now: Tensor) -> None:
        size, root, keep = now
        size, keep = torch.where(on, size, 0.0), torch.where(on & self.decayed, keep, 1.0)
        flat.mul_(keep).sub_(self.change(grad, self.numbers["one_minus_beta1"], size, root))

    def change(self, grad: Tensor, new: Tensor, size: Tensor, root: Tensor) -> Tensor:
        """What AdamW subtracts, [R, P]; `new` is the share of `grad` in the next `exp_avg`."""
        exp_avg, exp_avg_sq = self.buffers["exp_avg"], self.buffers["exp_avg_sq"]
        exp_avg.lerp_(grad, new)
        own = self.numbers
        exp_avg_sq.mul_(own["beta2"]).addcmul_(grad * own["one_minus_beta2"], grad)
        return size * exp_avg / (exp_avg_sq.sqrt() / root + own["eps"])


class SGD(Optimizer):
    """Gradient descent with momentum, as `torch.optim.SGD`: weight decay is added to the gradient,
    and so goes through the momentum."""

    BUFFERS = ("momentum",)

    def __init__(self, train: TrainConfig, flat: Tensor, cursor: Tensor):
        super().__init__(train, flat, cursor)
        self.nesterov = train.nesterov

    def numbers_of(self, train: TrainConfig) -> dict[str, float]:
        own = {"momentum": train.momentum or 0.0, "weight_decay": train.weight_decay}
        return super().numbers_of(train) | own

    def tables(self, train: TrainConfig, step: Tensor) -> list[Tensor]:
        return [learning_rates(train, step)]

    def update(self, flat: Tensor, grad: Tensor, on: Tensor, now: Tensor) -> None:
        (rate,) = now
        buffer, momentum = self.buffers["momentum"], self.numbers["momentum"]
        decay = torch.where(self.decayed, self.numbers["weight_decay"], 0.0)
        grad = torch.where(on, grad + decay * flat, 0.0)
        buffer.mul_(momentum).add_(grad)
        direction = grad + momentum * buffer if self.nesterov else buffer
        flat.sub_(torch.where(on, rate, 0.0) * direction)


class Lion(Optimizer):
    """Chen et al. 2023 (arXiv 2302.06675), algorithm 2: the sign of a mean of momentum and
    gradient; another mean of the two is the next momentum."""

    BUFFERS = ("exp_avg",)

    def numbers_of(self, train: TrainConfig) -> dict[str, float]:
        beta1, beta2 = train.betas
        own = {"one_minus_beta1": 1 - beta1, "one_minus_beta2": 1 - beta2}
        return super().numbers_of(train) | own

    def tables(self, train: TrainConfig, step: Tensor) -> list[Tensor]:
        return list(rate_and_keep(train, step))

    def update(self, flat: Tensor, grad: Tensor, on: Tensor, now: Tensor) -> None:
        rate, keep = now
        rate, keep = torch.where(on, rate, 0.0), torch.where(on & self.decayed, keep, 1.0)
        exp_avg, own = self.buffers["exp_avg"], self.numbers
        flat.mul_(keep).sub_(rate * exp_avg.lerp(grad, own["one_minus_beta1"]).sign())
        exp_avg.lerp_(grad, own["one_minus_beta2"])


class Muon(AdamW):
    """Muon for the weights of linear layers, AdamW for all else: the embedding, which is also the
    head, biases, norms, convolutions, and whatever a mixer has besides.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the operations of
    `torch.optim.Muon`, the Newton-Schulz iteration in bfloat16. `adjust_lr_fn` is torch's: the rate
    of an M x N matrix is the learning rate times sqrt(max(1, M / N)) (`original`) or times
    0.2 sqrt(max(M, N)) (`match_rms_adamw`, Liu et al. 2025, arXiv 2502.16982), with which a step is
    about as long as one of AdamW, and one learning rate suits both.

    `exp_avg` is Muon's momentum where a matrix is; `exp_avg_sq` is of no use there.
    """

    def __init__(
        self, train: TrainConfig, flat: Tensor, cursor: Tensor, matrices: Sequence[Matrix]
    ):
        super().__init__(train, flat, cursor)
        self.nesterov, self.adjust_lr_fn = train.nesterov, train.adjust_lr_fn
        of_shape: dict[tuple[int, int], list[Tensor]] = {}
        for matrix in matrices:
            numbers = torch.arange(matrix.part.start, matrix.part.stop)
            of_shape.setdefault((matrix.rows, matrix.columns), []).append(numbers)
        # where in `flat` the numbers of all matrices of a shape are
        self.of_shape = {shape: torch.cat(each).to(flat.device) for shape, each in of_shape.items()}
        # and the other way around: of a number of `flat`, its place in what `steps` returns
        self.place = torch.zeros(flat.shape[1], dtype=torch.int64, device=flat.device)
        inside = torch.cat([self.place[:0], *self.of_shape.values()])
        self.place[inside] = torch.arange(1, len(inside) + 1, device=flat.device)
        self.in_matrix = self.place > 0

    def numbers_of(self, train: TrainConfig) -> dict[str, float]:
        momentum = train.momentum or 0.0
        own = {"momentum": momentum, "one_minus_momentum": 1 - momentum}
        return super().numbers_of(train) | own

    def tables(self, train: TrainConfig, step: Tensor) -> list[Tensor]:
        rate = train.adamw_learning_rate or train.learning_rate
        of_adamw = train.model_copy(update={"learning_rate": rate})
        return [*super().tables(of_adamw, step), *rate_and_keep(train, step)]

    def update(self, flat: Tensor, grad: Tensor, on: Tensor, now: Tensor) -> None:
        size, root, keep, rate, keep_matrix = now
        size, rate = torch.where(on, size, 0.0), torch.where(on, rate, 0.0)
        keep = torch.where(self.in_matrix, keep_matrix, keep)
        keep = torch.where(on & self.decayed, keep, 1.0)
        own, exp_avg = self.numbers, self.buffers["exp_avg"]
        new = torch.where(self.in_matrix, own["one_minus_momentum"], own["one_minus_beta1"])
        change = self.change(grad, new, size, root)
        direction = grad.lerp(exp_avg, own["momentum"]) if self.nesterov else exp_avg
        steps = self.steps(direction, rate).index_select(1, self.place)
        flat.mul_(keep).sub_(torch.where(self.in_matrix, steps, change))

    def steps(self, direction: Tensor, rate: Tensor) -> Tensor:
        """A zero, and the matrices of `direction` [R, P], made orthogonal and times their rates."""
        steps = [torch.zeros_like(rate)]
        for (rows, columns), numbers in self.of_shape.items():
            matrices = direction.index_select(1, numbers).view(-1, rows, columns)
            made = orthogonalize(matrices).reshape(len(direction), -1)
            steps.append(rate * self.adjust(rows, columns) * made)
        return torch.cat(steps, dim=1)

    def adjust(self, rows: int, columns: int) -> float:
        """The rate of a matrix over the learning rate."""
        if self.adjust_lr_fn == "original":
            return math.sqrt(max(1, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of X, X X^T X and X X^T X X^T X, as Muon has them."""


def orthogonalize(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrix of each: [n, M, N] -> the same, bfloat16, with singular
    values of about 0.7 to 1.2 by five steps of Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def make_optimizer(
    train: TrainConfig,
    flat: Tensor,
    cursor: Tensor,
    matrices: Sequence[Matrix],
    decayed: Tensor | None = None,
) -> Optimizer:
    """The optimizer that `train` names, for slots that are yet to be entered; `matrices` are the
    weights of linear layers, and `decayed` [P] the parameters that have weight decay, None for
    all."""
    optimizer: Optimizer
    if train.optimizer == "muon":
        optimizer = Muon(train, flat, cursor, matrices)
    else:
        made = {"adamw": AdamW, "sgd": SGD, "lion": Lion}
        optimizer = made[train.optimizer](train, flat, cursor)
    if decayed is not None:
        optimizer.decayed = decayed[None]
    return optimizer


def rate_and_keep(train: TrainConfig, step: Tensor) -> tuple[Tensor, Tensor]:
    """The learning rates of steps, and what decoupled weight decay leaves: float64 [S]."""
    rate = learning_rates(train, step)
    return rate, 1 - rate * train.weight_decay
