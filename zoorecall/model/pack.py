"""Packs: models of equal shape as one model.

Shape letters: R runs, P parameters of a run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import RunConfig
from .model import build_model


class Matrix(NamedTuple):
    """A weight matrix [rows, columns] of each run, row after row from `start` on in `flat`."""

    start: int
    rows: int
    columns: int

    @property
    def part(self) -> slice:
        return slice(self.start, self.start + self.rows * self.columns)


class Pack:
    """Models of equal shape as one model, whose trainable parameters are one tensor.

    `model` has R runs; `flat` [R, P] holds its trainable parameters, of which `model`'s are views,
    so that an optimizer step is a few operations on one tensor and a checkpoint is that tensor.
    """

    ALIGN = 32  # numbers: keeps every parameter on a 128-byte boundary, as fast kernels want it

    def __init__(self, runs: Sequence[RunConfig], device: torch.device):
        models = [build_model(run) for run in runs]
        self.model = models[0]
        members = [list(model.named_parameters()) for model in models]
        self._slices: list[tuple[nn.Parameter, slice]] = []
        end = 0
        for _, parameter in members[0]:
            if parameter.requires_grad:
                self._slices.append((parameter, slice(end, end + parameter.numel())))
                end += -(-parameter.numel() // self.ALIGN) * self.ALIGN
        flat = torch.zeros(len(runs), end)
        where = {id(parameter): part for parameter, part in self._slices}
        for i, (_, parameter) in enumerate(members[0]):
            each = [member[i][1].detach() for member in members]
            if id(parameter) in where:
                for r, values in enumerate(each):
                    flat[r, where[id(parameter)]] = values.flatten()
            else:
                parameter.data = torch.cat(each)
        self.model.to(device)
        self.set_flat(flat.to(device))

    def set_flat(self, flat: Tensor) -> None:
        """Make `flat` [R, P] the parameters."""
        self.flat = flat
        for parameter, part in self._slices:
            parameter.data = flat[:, part].view(flat.shape[0], *parameter.shape[1:])
            parameter.grad = None

    def matrices(self) -> list[Matrix]:
        """The weights of linear layers; one that joins several projections is as many matrices."""
        starts = {id(parameter): part.start for parameter, part in self._slices}
        found = []
        for weight, widths in self.model.linear_weights():
            start, columns = starts.get(id(weight)), weight.shape[-1]
            if start is None:
                continue  # a user's own module may have weights that are not trained
            for rows in widths:
                found.append(Matrix(start, rows, columns))
                start += rows * columns
        return found

    def take_gradients(self) -> list[Tensor]:
        """The gradient of every parameter, [R, ...] each; handed over, so the next backward pass
        writes new ones instead of adding to these."""
        grads = []
        for parameter, _ in self._slices:
            grad = parameter.grad
            grads.append(torch.zeros_like(parameter) if grad is None else grad)
            parameter.grad = None
        return grads

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        """Gradients as one tensor laid out like `flat`: [R, P]."""
        parts = (grad.flatten(1) for grad in grads)
        return torch.cat([F.pad(part, (0, -part.shape[1] % self.ALIGN)) for part in parts], dim=1)
