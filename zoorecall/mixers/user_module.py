"""A user's module as one run has it: called as the module that it is, saved, and put back.

Shape letters: B batch, L length, D width.
"""

import io
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..seeding import derive_seed, seeded_generators

State = dict[str, Any]
"""By path, what a module carries from one step to the next: tensors, numbers, text, and lists,
tuples and dicts of them."""

PLAIN = (type(None), bool, int, float, complex, str, torch.Size, torch.dtype, torch.device)

OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes that torch gives to every module."""

ROUNDING = 1e-4
"""Of the largest output: a change that is smaller is taken for rounding, of an FFT for example."""

CPU = torch.device("cpu")


class UserModule(nn.Module):
    """One copy of a user's module: [B, L, D] -> the same.

    What it draws at random follows from the seed of its run, its layer, and how often it was called
    while its run trained. `active` says whether its run still trains; if not, a step leaves the
    module alone. One that says `capturable = True` promises that its forward draws nothing, assigns
    no attribute and does not look at numbers, so that a GPU may compile and capture it.
    """

    def __init__(self, module: nn.Module, layer: int):
        super().__init__()
        self.module, self.active = module, True
        self.capturable = bool(getattr(module, "capturable", False))
        self._seed, self._calls = derive_seed(torch.initial_seed(), "forward", layer), 0
        self._fixed: dict[str, Any] | None = None
        own: dict[int, Tensor] = {}  # a table that the constructors of all copies share is none
        for part in module.modules():
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = own.setdefault(id(buffer), buffer.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.capturable:
            return self._call(x)
        if self.training and not self.active:
            return torch.zeros_like(x)
        with seeded_generators(derive_seed(self._seed, self._calls)):
            self._calls += 1
            try:
                return self._call(x)
            except torch.linalg.LinAlgError:
                return torch.full_like(x, math.nan)
            except Exception:
                if bool(x.isfinite().all()):
                    raise
                return torch.full_like(x, math.nan)  # its run diverged, its neighbours did not

    def _call(self, x: Tensor) -> Tensor:
        half = x.dtype == torch.bfloat16
        dtype = torch.float32 if half else x.dtype
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            y = self.module(x.to(dtype, copy=True))  # which it may write into
        if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype not in (x.dtype, dtype):
            found = [*y.shape, y.dtype] if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{type(self.module).__name__} made {found} of {[*x.shape, dtype]}")
        return y.to(x.dtype)

    def state(self, device: torch.device | None = None) -> State:
        """What it carries besides the parameters that are trained, on `device` or where it is:
        buffers, parameters that are not trained, and attributes.

        Raises ValueError where its forward assigned an attribute that cannot be carried.
        """
        carried, fixed = self._attributes()
        if self._fixed is None:
            self._fixed = fixed
        for path, value in fixed.items():
            if self._fixed.get(path) is not value:
                name = path.removeprefix("module.")
                raise ValueError(
                    f"{type(self.module).__name__} assigns {name} in forward, a "
                    f"{type(value).__name__}: what is assigned there should be a tensor, a number, "
                    "text, or a list, tuple or dict of these; others belong into the constructor"
                )
        return {"calls": self._calls, **_copied(carried, device)}

    @torch.no_grad()
    def restore(self, state: State, device: torch.device | None = None) -> None:
        """Carry what a copy of it carried, with new tensors on `device` or where they are."""
        modules = dict(self.module.named_modules(prefix="module"))
        for path in self._attributes()[0].keys() - state.keys():
            owner, _, name = path.rpartition(".")
            modules[owner].__dict__.pop(name, modules[owner]._buffers.pop(name, None))
        for path, value in _copied(state, device).items():
            owner, _, name = path.rpartition(".")
            if owner:
                _put(modules[owner], name, value)
        self._calls = state["calls"]

    @torch.no_grad()
    def become(self, other: "UserModule") -> None:
        """Carry what the module of another run carries, but for parameters that are trained: by
        having that module, or, where a captured step looks for this one, its tensors' numbers.

        Raises ValueError where a captured step cannot know that they differ.
        """
        if self.capturable:
            theirs = other._attributes()[0]
            for path, mine in self._attributes()[0].items():
                value = theirs.get(path)
                if isinstance(mine, Tensor) and isinstance(value, Tensor):
                    mine.copy_(value)
                elif mine != value:
                    name = path.removeprefix("module.")
                    raise ValueError(
                        f"{type(self.module).__name__} is capturable, but its {name} is {mine!r} "
                        f"and {value!r} for two seeds; it should be a buffer"
                    )
        else:
            self.module, self._fixed, self.active = other.module, None, True
        self._seed, self._calls = other._seed, other._calls

    def saved(self) -> dict[str, Tensor]:
        """Its parameters and its state as tensors by path; what of it are no tensors, as bytes."""
        state = {**dict(self.named_parameters()), **self.state()}
        tensors = {path: value for path, value in state.items() if isinstance(value, Tensor)}
        rest = io.BytesIO()
        torch.save(_copied({p: v for p, v in state.items() if p not in tensors}, CPU), rest)
        named = {path: t.detach().cpu().clone().contiguous() for path, t in tensors.items()}
        return {**named, "rest": torch.frombuffer(bytearray(rest.getvalue()), dtype=torch.uint8)}

    @torch.no_grad()
    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Become the module that was saved."""
        state: State = torch.load(io.BytesIO(saved["rest"].numpy().tobytes()), weights_only=True)
        state |= {path: tensor for path, tensor in saved.items() if path != "rest"}
        for name, parameter in self.named_parameters():
            parameter.copy_(saved[name])
            if parameter.requires_grad:
                del state[name]
        self.restore(state)

    @torch.no_grad()
    def looks_ahead(self, length: int, d_model: int, device: torch.device) -> bool:
        """Whether outputs change with inputs at later positions, as far as a few trials tell: in
        its present mode, with its present parameters and with others near to them, as at first a
        part of it may be multiplied by zero. An error of its forward is left for training to meet.
        """
        state, noise = self.state(), torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=noise).to(device)

        def output(x: Tensor) -> Tensor:
            self.restore(state)
            return self(x)

        trained = [p for p in self.parameters() if p.requires_grad]
        before, found, x = [p.clone() for p in trained], False, random(2, length, d_model)
        try:
            for size, cut in itertools.product((0.0, 0.1), {1, length // 2, length - 1}):
                for p, values in zip(trained, before, strict=True):
                    p.copy_(values + size * random(*p.shape))
                other = torch.cat([x[:, :cut], random(2, length - cut, d_model)], dim=1)
                y, changed = output(x), output(other)
                early = (y - changed)[:, :cut].abs()
                found |= bool(
                    (early > ROUNDING * torch.maximum(y.abs(), changed.abs()).max()).any()
                )
        except Exception:  # a user's module may raise anything
            return False
        finally:
            self.restore(state)
            for p, values in zip(trained, before, strict=True):
                p.copy_(values)
        return found

    def _attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """By path, what can be carried, and all else, which should stay what it is."""
        carried: dict[str, Any] = {}
        fixed: dict[str, Any] = {}
        registered = {id(t) for t in (*self.module.parameters(), *self.module.buffers())}
        for owner, module in self.module.named_modules(prefix="module"):
            for name, value in {**module._parameters, **module._buffers}.items():
                trained = isinstance(value, nn.Parameter) and value.requires_grad
                (fixed if trained else carried)[f"{owner}.{name}"] = value
            for name, value in {**vars(module), **module._modules}.items():
                if name not in OF_TORCH:
                    plain = _is_plain(value, registered)
                    (carried if plain else fixed)[f"{owner}.{name}"] = value
        return carried, fixed


def _is_plain(value: Any, registered: set[int]) -> bool:
    """Whether a value can be carried by itself; a tensor that a module has as a parameter or buffer
    is carried as such."""
    if isinstance(value, Tensor):
        return id(value) not in registered
    if type(value) is dict:
        return all(_is_plain(x, registered) for pair in value.items() for x in pair)
    if type(value) in (list, tuple):
        return all(_is_plain(x, registered) for x in value)
    return type(value) in PLAIN


def _copied(value: Any, device: torch.device | None, memo: dict[int, Tensor] | None = None) -> Any:
    """A copy with tensors of its own, on `device` or where they are; what was one tensor in two
    places still is."""
    memo = {} if memo is None else memo
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = value.detach().to(device or value.device, copy=True)
        return memo[id(value)]
    if type(value) is dict:
        return {key: _copied(x, device, memo) for key, x in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(x, device, memo) for x in value)
    return value


def _put(module: nn.Module, name: str, value: Any) -> None:
    """Give a module a value under a name; a parameter or buffer stays the tensor that it is, where
    a captured step may look for it."""
    held = {**module._parameters, **module._buffers}.get(name)
    if held is None or not isinstance(value, Tensor):
        (module._buffers if name in module._buffers else module.__dict__)[name] = value
    elif held.shape == value.shape and held.dtype == value.dtype and held.is_contiguous():
        held.copy_(value)
    else:
        held.data = value.to(held.device)
