"""How well a run does on examples.

Shape letters: B batch, Q queries, N slices of the task, n examples.
"""

import torch
from torch import Tensor

from ..model.model import Model
from ..model.pack import Pack
from .capture import Program, capture
from .data import Examples


class Evaluator:
    """Measures the runs of a pack, each alone, on n examples of one place, so many at once.

    On a GPU it is captured, unless there is a module of a user's own, as each slot has another.
    """

    def __init__(self, pack: Pack, at_once: int, dtype: torch.dtype, num_slices: int):
        self.pack, self._at_once, self._dtype = pack, at_once, dtype
        self.num_slices = num_slices
        self._is_captured = pack.device.type == "cuda" and not pack.model.user_mixers
        self._programs: dict[int, tuple[Examples, Tensor, Program]] = {}  # by n

    @torch.no_grad()
    def measure(self, r: int, examples: Examples) -> Tensor:
        """Token accuracy, sequence accuracy, loss and the token accuracy of each slice of the run
        in slot r, float64 [3 + N], where the examples are."""
        with self.pack.alone(r) as model:
            if not self._is_captured:
                return self._measure(model, examples)
            n = examples.tokens.shape[1]
            if n not in self._programs:
                self._programs[n] = self._capture(model, examples)
            seen, measured, program = self._programs[n]
            for name, values in vars(examples).items():
                getattr(seen, name).copy_(values)
            program()
            return measured.clone()

    def _capture(self, model: Model, examples: Examples) -> tuple[Examples, Tensor, Program]:
        """A program that measures what its examples are then, and where it writes that."""
        seen = Examples(*(values.clone() for values in vars(examples).values()))
        measured = self._measure(model, seen)

        def program() -> None:
            measured.copy_(self._measure(model, seen))

        return seen, measured, capture(program, self.pack.device)

    def _measure(self, model: Model, examples: Examples) -> Tensor:
        n, device = examples.tokens.shape[1], examples.tokens.device
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        right, asked = totals.new_zeros(2, self.num_slices)
        for start in range(0, n, self._at_once):
            part = slice(start, min(start + self._at_once, n))
            tokens, positions = examples.tokens[:, part], examples.positions[:, part]
            x = model.through_layers(model.embed(tokens, self._dtype), positions.long())
            loss, correct = model.losses(x, examples.targets[:, part])
            sequences = correct.view(tokens.shape[1], -1).double()
            totals[0] += sequences.mean(-1).sum()
            totals[1] += sequences.amin(-1).sum()
            totals[2] += loss.double().view(sequences.shape).mean(-1).sum()
            for i in range(self.num_slices):
                belongs = examples.slices[0, part] == i  # [B, Q]
                right[i] += (sequences * belongs).sum()
                asked[i] += belongs.sum()
        return torch.cat([totals / n, right / asked])
