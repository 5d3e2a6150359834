"""Packs: models of equal shape as one model.

Shape letters: R slots, P trained numbers of a run.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import RunConfig
from ..mixers.user_module import State, UserModule
from .model import Model, build_model


class Place(NamedTuple):
    """Where a trainable parameter lies: in the same columns for every run."""

    parameters: list[nn.Parameter]
    """One with the run axis, or that of each run's copy of a user's module."""
    columns: slice
    of_copies: bool


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

    `model` has R slots, a run each; `flat` [R, P] holds its trainable parameters, of which
    `model`'s are views, so that an optimizer step is a few operations on one tensor and a
    checkpoint is a row of it. `copies` are each slot's own copies of a user's modules, layer by
    layer: their parameters are views of the slot's row, and what else they carry is theirs.
    Slots beyond the runs given are like the first run's until another is `put` there.
    """

    ALIGN = 32  # numbers: keeps every parameter on a 128-byte boundary, as fast kernels want it

    def __init__(self, runs: Sequence[RunConfig], device: torch.device, slots: int | None = None):
        self.device, self._run, slots = device, runs[0], slots or len(runs)
        models = [build_model(run) for run in runs]
        self.model = models[0]
        for mixer in self.model.user_mixers:
            if mixer.config.edited:
                name = mixer.config.name
                raise ValueError(f"{name} was edited since the grid was read; read it again")
        for _ in range(slots - len(runs)):  # a module of a user's own is no two slots'
            models.append(build_model(runs[0]) if self.model.user_mixers else models[0])
        members = [[p for _, p in model.named_parameters()] for model in models]
        self.copies = [[mixer.of_runs[0] for mixer in model.user_mixers] for model in models]
        for mixer, *others in zip(*(model.user_mixers for model in models), strict=True):
            mixer.copies.extend(other.of_runs[0] for other in others)
        of_copies = {id(p) for mixer in self.model.user_mixers for p in mixer.parameters()}
        self._places: list[Place] = []
        rows, end = [], 0
        for each in map(list, zip(*members, strict=True)):
            values, first = torch.cat([_numbers(p.detach()) for p in each]), each[0]
            own = id(first) in of_copies
            if not own:
                first.data = torch.cat([p.detach() for p in each])
            if first.requires_grad:
                columns = slice(end, end + values.shape[1])
                self._places.append(Place(each if own else each[:1], columns, own))
                rows.append(self._aligned(values))
                end += rows[-1].shape[1]
        self.model.to(device).train()
        self.set_flat(torch.cat(rows, dim=1).to(device))

    @functools.cached_property
    def _twin(self) -> "Pack":
        """A pack of one slot, in which runs are evaluated."""
        return Pack([self._run], self.device)

    @torch.no_grad()
    def put(self, r: int, run: RunConfig) -> None:
        """Slot r gets the initial weights of another run, and its modules."""
        model = build_model(run)
        members = [p for p in model.parameters() if p.requires_grad]
        self.flat[r] = torch.cat([self._aligned(_numbers(p)) for p in members], dim=1)[0]
        for copy, mixer in zip(self.copies[r], model.user_mixers, strict=True):
            copy.become(mixer.of_runs[0].to(self.device))
        own = [p for copy in self.copies[r] for p in copy.parameters() if p.requires_grad]
        of_copies = [place for place in self._places if place.of_copies]
        for place, parameter in zip(of_copies, own, strict=True):
            place.parameters[r] = parameter
        if own:
            self.set_flat(self.flat)

    @contextlib.contextmanager
    def alone(self, r: int) -> Iterator[Model]:
        """The run of slot r as a model of one run, as it is evaluated. Afterwards it trains on as
        if it had not been."""
        twin = self._twin
        twin.flat.copy_(self.flat[r : r + 1])
        of_slot = [(p, part) for p, part, slot in self._of_copies if slot == r]
        kept, values = self.states(r), [part.clone() for _, part in of_slot]
        for mixer, copy in zip(twin.model.user_mixers, self.copies[r], strict=True):
            mixer.copies = nn.ModuleList([copy.eval()])
        yield twin.model.eval()
        for copy in self.copies[r]:
            copy.train()
        self.restore(r, kept)
        for (parameter, part), before in zip(of_slot, values, strict=True):
            parameter.data = part.copy_(before)

    def set_flat(self, flat: Tensor) -> None:
        """Make `flat` [R, P] the parameters."""
        self.flat = flat
        self._of_copies: list[tuple[nn.Parameter, Tensor, int]] = []
        for place in self._places:
            for r, (parameter, part) in enumerate(self._views(place)):
                parameter.data = part
                parameter.grad = None
                if place.of_copies:
                    self._of_copies.append((parameter, part, r))

    def matrices(self) -> list[Matrix]:
        """The weights of linear layers; one that joins several projections is as many matrices."""
        starts = {id(place.parameters[0]): place.columns.start for place in self._places}
        found = []
        for weight, widths in self.model.linear_weights():
            start, columns = starts.get(id(weight)), weight.shape[-1]
            if start is None:
                continue  # a user's own module may have weights that are not trained
            for rows in widths:
                found.append(Matrix(start, rows, columns))
                start += rows * columns
        return found

    def decayed(self) -> Tensor:
        """Which parameters official code does not exempt from weight decay, bool [P]."""
        exempt = {id(parameter) for parameter in self.model.undecayed()}
        decayed = torch.ones(self.flat.shape[1], dtype=torch.bool, device=self.flat.device)
        for place in self._places:
            decayed[place.columns] = id(place.parameters[0]) not in exempt
        return decayed

    def take_gradients(self) -> list[Tensor]:
        """The gradient of every parameter, [R, ...] each; handed over, so the next backward pass
        writes new ones instead of adding to these."""
        grads = []
        for place in self._places:
            each = [torch.zeros_like(p) if p.grad is None else p.grad for p in place.parameters]
            grads.append(torch.cat([_numbers(g) for g in each]) if place.of_copies else each[0])
            for parameter in place.parameters:
                parameter.grad = None
        return grads

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        """Gradients as one tensor laid out like `flat`: [R, P]."""
        return torch.cat([self._aligned(grad.flatten(1)) for grad in grads], dim=1)

    # ---- a user's modules

    @torch.no_grad()
    def collect(self) -> None:
        """Take in what a user's module put in the place of a parameter's numbers, by `.data`."""
        for parameter, part, _ in self._of_copies:
            if parameter.data_ptr() != part.data_ptr():
                part.copy_(parameter)
                parameter.data = part

    @property
    def can_be_captured(self) -> bool:
        """Whether every module says that a step may be compiled and captured."""
        return all(copy.capturable for copies in self.copies for copy in copies)

    def captured_buffers(self) -> list[tuple[int, Tensor]]:
        """The buffers that a captured step may change, each with its run's place."""
        each = ((r, copy) for r, copies in enumerate(self.copies) for copy in copies)
        return [(r, buffer) for r, copy in each if copy.capturable for buffer in copy.buffers()]

    def activate(self, active: Sequence[bool]) -> None:
        """Say which runs train: in a step the modules of the others are left alone."""
        for copies, on in zip(self.copies, active, strict=True):
            for copy in copies:
                copy.active = on

    def states(self, r: int, device: torch.device | None = None) -> list[State]:
        """What the modules of a run carry, see `UserModule.state`."""
        return [copy.state(device) for copy in self.copies[r]]

    def restore(self, r: int, states: Sequence[State]) -> None:
        """Have the modules of a run carry what they carried."""
        for copy, state in zip(self.copies[r], states, strict=True):
            copy.restore(state, self.device)

    def weights(self, r: int) -> dict[str, Tensor]:
        """The parameters of a run, and what its modules carry, by the names that they have in a
        model of this run alone, on the CPU."""
        model, names = self.model, dict[str, Tensor]()
        for name, part in model.named_modules():
            if isinstance(part, UserModule) and part in self.copies[r]:
                first = f"{name.rpartition('.')[0]}.0"
                names |= {f"{first}.{key}": value for key, value in part.saved().items()}
        of_copies = {id(p) for mixer in model.user_mixers for p in mixer.parameters()}
        for name, parameter in model.named_parameters():
            if id(parameter) not in of_copies:
                names[name] = parameter.detach()[r : r + 1].cpu().clone()
        return names

    # ---- inside

    def _views(self, place: Place) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters of a place, and the part of `flat` that is theirs, in their shape."""
        parts = self.flat[:, place.columns].chunk(len(place.parameters))
        return [(p, _shaped(part, p)) for p, part in zip(place.parameters, parts, strict=True)]

    def _aligned(self, rows: Tensor) -> Tensor:
        return F.pad(rows, (0, -rows.shape[1] % self.ALIGN))


def _numbers(tensor: Tensor) -> Tensor:
    """A parameter of one run as a row [1, numbers] in which a complex number is two."""
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return real.reshape(1, -1)


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Rows of `flat` in the shape of a parameter."""
    if like.is_complex():
        return torch.view_as_complex(rows.view(*like.shape, 2))
    return rows.view(like.shape)
