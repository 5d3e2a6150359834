"""A user's own mixer, named in a grid by its import path: `name: my_package.my_file:MyMixer`.

The class is any `nn.Module` made by `MyMixer(d_model=..., **options)` that maps [B, L, D] to
[B, L, D]; it knows nothing of runs. A pack calls one copy a run, in a loop.
"""

import copy
import importlib
import os
import sys
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from .base import MixerConfig, SequenceMixer


class CustomConfig(MixerConfig):
    name: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = Field(default_factory=dict)

    def check(self, d_model: int) -> None:
        try:
            with torch.device("meta"):
                self.load()(d_model=d_model, **self.options)
        except Exception as error:  # a user's module may raise anything
            kind = type(error).__name__
            raise ValueError(f"{self.name} cannot be used: {kind}: {error}") from error

    def load(self) -> type[nn.Module]:
        """Import the class, from the folder where the command runs as well; raises ImportError,
        AttributeError, or TypeError if it is no module."""
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        module, _, attribute = self.name.partition(":")
        cls = getattr(importlib.import_module(module), attribute)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError("it is not a torch.nn.Module class")
        return cls


class Custom(SequenceMixer):
    """Holds the parameters and buffers of a user's module with the run axis that a pack needs."""

    Config = CustomConfig

    def __init__(self, config: CustomConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        module = config.load()(d_model=d_model, **config.options)
        self._module = [copy.deepcopy(module).to("meta")]  # in a list: its tensors are not ours
        tensors = [*module.parameters(), *module.buffers()]
        self._names = [n for n, _ in (*module.named_parameters(), *module.named_buffers())]
        self.tensors = nn.ParameterList(
            nn.Parameter(t.detach()[None].clone(), requires_grad=t.requires_grad) for t in tensors
        )

    def mix(self, x: Tensor) -> tuple[Tensor]:
        outputs = []
        for r, x_run in enumerate(x):
            tensors = (t[r] for t in self.tensors)
            cast = (t.to(x.dtype) if t.is_floating_point() else t for t in tensors)
            state = dict(zip(self._names, cast, strict=True))
            y = functional_call(self._module[0], state, (x_run,))
            if not isinstance(y, Tensor) or (y.shape, y.dtype) != (x_run.shape, x.dtype):
                found = [*y.shape, y.dtype] if isinstance(y, Tensor) else type(y).__name__
                wanted = [*x_run.shape, x.dtype]
                raise ValueError(f"{type(self._module[0]).__name__} made {found} of {wanted}")
            outputs.append(y)
        return (torch.stack(outputs),)

    def train(self, mode: bool = True) -> "Custom":
        self._module[0].train(mode)
        return super().train(mode)

    def state_size(self, length: int) -> int:
        """A module may say with a method of this name; otherwise it is unknown: 0."""
        own = getattr(self._module[0], "state_size", None)
        return int(own(length)) if own else 0

    def sequence_flops(self, length: int) -> int:
        own = getattr(self._module[0], "sequence_flops", None)
        return int(own(length)) if own else 0
