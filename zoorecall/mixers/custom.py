"""A user's own mixer, named in a grid by its import path: `name: my_package.my_file:MyMixer`.

The class is any `nn.Module` made by `MyMixer(d_model=..., **options)` that maps [B, L, D] to
[B, L, D]; it knows nothing of runs. A pack calls one copy a run, in a loop. It may tell
`state_size(length)` and `sequence_flops(length)`, all of its FLOPs on one sequence.
"""

import contextlib
import functools
import inspect
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..seeding import seeded_generators
from ..user_code import import_as_it_is, source_of
from .base import MixerConfig, SequenceMixer, State
from .user_module import UserModule


class CustomConfig(MixerConfig):
    name: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = Field(default_factory=dict)
    source: SkipJsonSchema[str] = ""
    """What the code was when the grid was read; no one's to set. An edit makes other runs."""

    def model_post_init(self, context: Any, /) -> None:
        if not self.source:
            with self._refusing():
                self.load()
                # the config is frozen for its users; this is still its making
                object.__setattr__(self, "source", source_of(self.module))

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    def try_out(self, d_model: int, seq_len: int, num_layers: int) -> None:
        """Make the module, for the first layer and for the last; raises ValueError with one
        sentence where that fails, or where it cannot be trained as one copy a run."""
        with self._refusing():
            _try_out(self.model_dump_json(), d_model, seq_len, num_layers)

    @property
    def edited(self) -> bool:
        """Whether the code is not what it was when the grid was read."""
        return source_of(self.module) != self.source

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Whatever a user's module raises becomes one sentence."""
        try:
            yield
        except (Exception, SystemExit) as error:
            kind = "" if type(error) is Unsuitable else f"{type(error).__name__}: "
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ValueError(f"{self.name} cannot be used: {kind}{reason}") from error

    def make(self, d_model: int, seq_len: int, num_layers: int, layer: int) -> nn.Module:
        """The module of one layer: `seq_len`, `num_layers` and `layer`, counted from 0, are given
        to a constructor that names them and has no such option."""
        cls = self.load()
        sizes = {"seq_len": seq_len, "num_layers": num_layers, "layer": layer}
        named = inspect.signature(cls).parameters
        asked = {name: size for name, size in sizes.items() if name in named}
        return cls(d_model=d_model, **{**asked, **self.options})

    def load(self) -> type[nn.Module]:
        """Import the class, from the folder where the command runs as well; raises ImportError,
        AttributeError, or TypeError if it is no module."""
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        cls = getattr(import_as_it_is(self.module), self.name.partition(":")[2])
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError("it is not a torch.nn.Module class")
        return cls


class Custom(SequenceMixer):
    """A user's module, one copy a run: `Pack` takes the copies of its runs together."""

    Config = CustomConfig

    def __init__(
        self, config: CustomConfig, d_model: int, seq_len: int, num_layers: int, layer: int
    ):
        super().__init__()
        self.config = config
        self._made_of = config.model_dump_json(), d_model, seq_len, num_layers, layer
        with torch.device("cpu"):  # where all constructors work
            module = config.make(*self._made_of[1:])
        self.copies = nn.ModuleList([UserModule(module, layer)])

    @property
    def of_runs(self) -> list[UserModule]:
        """The copy of each run."""
        return [cast(UserModule, copy) for copy in self.copies]

    def mix(self, x: Tensor) -> tuple[Tensor]:
        each = zip(self.of_runs, x.unbind(), strict=True)
        return (torch.stack([copy(x_run) for copy, x_run in each]),)

    def looks_ahead(self, device: torch.device) -> bool:
        """See `UserModule.looks_ahead`; of the first run, as the code of all is one."""
        _, d_model, seq_len, *_ = self._made_of
        return self.of_runs[0].looks_ahead(seq_len, d_model, device)

    def linear_weights(self) -> Iterator[nn.Parameter]:
        """The weights [out, in] of the `torch.nn.Linear` layers of the first run's copy."""
        linear = (m for m in self.of_runs[0].modules() if isinstance(m, nn.Linear))
        weights = [m._parameters.get("weight") for m in linear]  # a property may work
        known = {id(w): w for w in weights if w is not None and not w.is_complex()}
        yield from known.values()

    def initial_state(self, R: int, B: int, length: int) -> State:
        """Raises NotImplementedError, as `step` does."""
        raise self._no_step()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Raises NotImplementedError: a user's module maps whole sequences."""
        raise self._no_step()

    def _no_step(self) -> NotImplementedError:
        kind = type(self.of_runs[0].module).__name__
        return NotImplementedError(f"{kind} maps whole sequences and has no step of one position")

    def state_size(self, length: int) -> int | None:
        return _told(self.of_runs[0].module, "state_size", length)

    def flops(self, length: int, outputs: int | None = None) -> int | None:
        told = _told(self.of_runs[0].module, "sequence_flops", length)
        return _count_flops(length, *self._made_of) if told is None else told


def _told(module: nn.Module, what: str, length: int) -> int | None:
    """What a module tells of itself, by a method of this name; None if it has none."""
    method = getattr(module, what, None)
    return int(method(length)) if callable(method) else None


class Unsuitable(ValueError):
    """Why a module cannot be trained as one copy a run, in a sentence."""


@functools.cache
def _try_out(config: str, d_model: int, seq_len: int, num_layers: int) -> None:
    made = CustomConfig.model_validate_json(config)
    if made.load().forward is nn.Module.forward:
        raise Unsuitable("it has no forward")
    with seeded_generators(0):
        modules = [made.make(d_model, seq_len, num_layers, layer) for layer in (0, num_layers - 1)]
    for name, parameter in modules[0].named_parameters():
        if is_lazy(parameter):
            raise Unsuitable(f"its parameter {name} has no shape before the first forward")
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.complex64):
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise Unsuitable(
                f"its parameter {name} is {dtype}, should be float32 or complex64 to be trained"
            )
    _refuse_shared(modules)
    for what in ("state_size", "sequence_flops"):
        _told(modules[0], what, seq_len)


def _refuse_shared(modules: Sequence[nn.Module]) -> None:
    """Raise Unsuitable where a parameter overlaps with another tensor of its module, as it is moved
    to where a pack has it, or with one of another copy."""
    tensors = [
        (i, f"{owner}.{name}".lstrip("."), value, *_reach(value))
        for i, module in enumerate(modules)
        for owner, part in module.named_modules()
        for name, value in {**part._parameters, **part._buffers, **vars(part)}.items()
        if isinstance(value, Tensor)
    ]
    parameters = [x for x in tensors if isinstance(x[2], nn.Parameter)]
    for one, other in itertools.product(parameters, tensors):
        i, name, parameter, start, end = one
        j, other_name, tensor, other_start, other_end = other
        tied = i == j and parameter is tensor
        if start < other_end and other_start < end and not tied:
            whose = "its own" if i == j else "another copy's"
            raise Unsuitable(f"its parameter {name} shares memory with {whose} {other_name}")


def _reach(tensor: Tensor) -> tuple[int, int]:
    """The bytes from a tensor's first number to its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    numbers = 1 + sum((size - 1) * stride for size, stride in steps) if tensor.numel() else 0
    return tensor.data_ptr(), tensor.data_ptr() + numbers * tensor.element_size()


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
        leaves = tree_leaves((args, kwargs))
        free = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.inplace_view}
        makes = not any(isinstance(leaf, Tensor) for leaf in leaves)
        packet = func.overloadpacket
        real = not any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves)
        counted = packet in flop_registry and real  # torch counts complex products as real ones
        known = counted or func.is_view or free.intersection(func.tags)
        if not (known or makes or (func.namespace == "aten" and packet.__name__ in UNCOUNTED)):
            self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@functools.cache
def _count_flops(
    length: int, config: str, d_model: int, seq_len: int, num_layers: int, layer: int
) -> int | None:
    """Forward FLOPs of a module on one sequence, as torch counts them (attention's square as a
    whole); None where it has an operation whose cost is not known, or needs a real device."""
    made = CustomConfig.model_validate_json(config)
    for place in ("meta", "cpu"):  # some constructors look at numbers, some make tensors by the way
        unknown, counter = _Unknown(), FlopCounterMode(display=False)
        try:
            with seeded_generators(0), torch.device(place):
                module = made.make(d_model, seq_len, num_layers, layer).to("meta")
            x = torch.empty(1, length, d_model, device="meta")
            with seeded_generators(0), torch.device("meta"), torch.no_grad(), unknown, counter:
                module(x)
            return None if unknown.names else counter.get_total_flops()
        except (Exception, SystemExit):  # a user's module may raise anything
            continue
    return None
