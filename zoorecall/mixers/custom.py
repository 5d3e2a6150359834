"""A user's own mixer, named in a grid by its import path: `name: my_package.my_file:MyMixer`.

The class is any `nn.Module` made by `MyMixer(d_model=..., **options)` that maps [B, L, D] to
[B, L, D]; it knows nothing of runs. A pack calls one copy a run, in a loop. It may tell
`state_size(length)` and `sequence_flops(length)`, all of its FLOPs on one sequence.
"""

import contextlib
import copy
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..user_code import source_of
from .base import MixerConfig, SequenceMixer, State


class CustomConfig(MixerConfig):
    name: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = Field(default_factory=dict)
    source: SkipJsonSchema[str] = ""
    """What the code was when the grid was read; no one's to set. An edit makes other runs."""

    @model_validator(mode="after")
    def _resolve(self) -> "CustomConfig":
        if not self.source:
            with self._refusing():
                self.load()
                # the config is frozen for its users; this is still its making
                object.__setattr__(self, "source", source_of(self.module))
        return self

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    def check(self, d_model: int) -> None:
        with self._refusing(), torch.device("meta"):
            self.make(d_model)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Whatever a user's module raises becomes one sentence."""
        try:
            yield
        except (Exception, SystemExit) as error:
            kind = type(error).__name__
            raise ValueError(f"{self.name} cannot be used: {kind}: {error}") from error

    def make(self, d_model: int) -> nn.Module:
        return self.load()(d_model=d_model, **self.options)

    def load(self) -> type[nn.Module]:
        """Import the class, from the folder where the command runs as well; raises ImportError,
        AttributeError, or TypeError if it is no module."""
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        cls = getattr(importlib.import_module(self.module), self.name.partition(":")[2])
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError("it is not a torch.nn.Module class")
        return cls


class Custom(SequenceMixer):
    """Holds the parameters and buffers of a user's module with the run axis that a pack needs."""

    Config = CustomConfig

    def __init__(self, config: CustomConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self._config, self._d_model = config.model_dump_json(), d_model
        module = config.make(d_model)
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

    def linear_weights(self) -> Iterator[Tensor]:
        """The weights [R, out, in] of the module's `torch.nn.Linear` layers."""
        for name, tensor in zip(self._names, self.tensors, strict=True):
            layer, _, own = name.rpartition(".")
            if own == "weight" and isinstance(self._module[0].get_submodule(layer), nn.Linear):
                yield tensor

    def train(self, mode: bool = True) -> "Custom":
        self._module[0].train(mode)
        return super().train(mode)

    def initial_state(self, R: int, B: int, length: int) -> State:
        """Raises NotImplementedError, as `step` does."""
        raise self._no_step()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Raises NotImplementedError: a user's module maps whole sequences."""
        raise self._no_step()

    def _no_step(self) -> NotImplementedError:
        kind = type(self._module[0]).__name__
        return NotImplementedError(f"{kind} maps whole sequences and has no step of one position")

    def state_size(self, length: int) -> int | None:
        own = getattr(self._module[0], "state_size", None)
        return int(own(length)) if own else None

    def flops(self, length: int, outputs: int | None = None) -> int | None:
        own = getattr(self._module[0], "sequence_flops", None)
        return int(own(length)) if own else _count_flops(self._config, self._d_model, length)


COPIES = (
    "_to_copy _unsafe_view cat clone constant_pad_nd copy_ empty_like fill_ flip full_like "
    "new_empty new_full new_ones new_zeros ones_like rand_like randn_like repeat roll stack tril "
    "triu unsafe_split unsafe_split_with_sizes zero_ zeros_like"
)
SUMS = (
    "_log_softmax _native_batch_norm_legit _safe_softmax _softmax bernoulli_ cummax cummin cumprod "
    "cumsum logcumsumexp native_batch_norm native_dropout native_group_norm native_layer_norm"
)
INDEXING = (
    "embedding gather index index_add index_add_ index_copy index_copy_ index_put index_put_ "
    "index_select masked_fill masked_fill_ scatter scatter_ scatter_add scatter_add_ "
    "select_scatter slice_scatter"
)
UNCOUNTED = {*COPIES.split(), *SUMS.split(), *INDEXING.split()}
"""Operations of torch that are not counted, besides those that it tags as pointwise, as a reduction
or as a view."""


class _Unknown(TorchDispatchMode):
    """Collects the operations of which neither torch nor this package says what they cost."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        free = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.inplace_view}
        makes = not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs)))
        packet = func.overloadpacket
        known = packet in flop_registry or func.is_view or free.intersection(func.tags)
        if not (known or makes or (func.namespace == "aten" and packet.__name__ in UNCOUNTED)):
            self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@functools.cache
def _count_flops(config: str, d_model: int, length: int) -> int | None:
    """Forward FLOPs of a module on one sequence, as torch counts them (attention's square as a
    whole); None where it has an operation whose cost is not known, or needs a real device."""
    with torch.device("meta"):
        module = CustomConfig.model_validate_json(config).make(d_model)
        x = torch.empty(1, length, d_model)
        try:
            with torch.no_grad(), _Unknown() as unknown, FlopCounterMode(display=False) as counter:
                module(x)
        except (Exception, SystemExit):  # a user's module may raise anything
            return None
    return None if unknown.names else counter.get_total_flops()
