"""What every sequence mixer is: a module [R, B, L, D] -> [R, B, L, D] and its typed options.

A mixer is causal, has no norm and no residual around it (the layer has those) and is built for
one run: `Mixer(config, d_model, seq_len, num_layers)`. Its parameters come from `layers` and so
carry the run axis; operations without parameters, in `ops`, treat R and B alike as batch. `mix`
moves information between positions; `finish` is what follows at each position by itself. The last
layer runs `finish` at the query positions only, in MQAR at most one position in four.

A mixer also runs one position at a time: `step` takes an input and a state, and returns an output
and the next state. The state is all that a mixer carries from one position to the next.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, cast

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..columns import mixer_label
from ..layers import Linear, ShortConv
from ..ops.dropout import Dropped

State = Any
"""A NamedTuple of tensors [R, B, ...]; each mixer defines its own."""


class MixerConfig(BaseModel):
    """Options of a mixer; `name` picks the class from the registry."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str

    def check(self, d_model: int) -> None:
        """Raise ValueError with one sentence where the options do not fit the width."""

    @property
    def uses_positions(self) -> bool:
        """Whether the papers give this mixer learned positions."""
        return False

    @property
    def own_block(self) -> bool:
        """Whether Zoology's code puts this mixer in a block of its own: behind an RMSNorm, with
        nothing after it and nothing of the embedding dropped."""
        return False

    @property
    def redrawn_by_zoology(self) -> bool:
        """Whether Zoology's model draws initial weights that are not this mixer's own."""
        return False

    def with_zoology_options(self, d_model: int) -> "MixerConfig":
        """This config, where options are left out with those of Zoology's code."""
        return self

    def filled_in(self, options: dict[str, Any]) -> "MixerConfig":
        """This config, with the options that are left out."""
        left_out = {k: x for k, x in options.items() if k not in self.model_fields_set}
        return self.model_copy(update=left_out)

    @property
    def chooses_weights(self) -> bool:
        """Whether the options say how initial weights are drawn."""
        return False

    @property
    def each(self) -> "tuple[MixerConfig, ...]":
        """The mixers that layers have: this one, or those of a pattern."""
        return (self,)

    def at_depth(self, num_layers: int) -> "MixerConfig":
        """This config, with what depends on the depth filled in. Raises ValueError, one sentence,
        where the depth does not fit."""
        return self

    def of_layer(self, layer: int, num_layers: int) -> "MixerConfig":
        """The mixer of one layer, counted from 0."""
        return self

    @property
    def label(self) -> str:
        """The name and the options that differ from their defaults: `attention (conv=qkv)`."""
        return mixer_label(self.model_dump(mode="json"))


class SequenceMixer(nn.Module):
    """The base class of the mixers in this folder."""

    Config: ClassVar[type[MixerConfig]]
    finishing: ClassVar[str | None] = None
    """The name of the linear layer that `finish` has."""

    def start_as(self, layer: int) -> None:
        """Set the initial weights that depend on the index of the layer, counted from 0."""

    def draw_as_zoology(self, num_layers: int, own_block: bool) -> None:
        """Set the initial weights as Zoology's model does after it has made the mixer: linear
        layers from N(0, 0.02^2), the output's from N(0, 0.02^2 / 2 layers) if it is called
        out_proj, biases zero; of a mixer in its own block, the output's divided by the root of the
        number of layers and nothing else."""
        for name, module in self.named_modules():
            if own_block and name == "out_proj":
                cast(Linear, module).weight.data /= math.sqrt(num_layers)
            elif not own_block and isinstance(module, Linear):
                residuals = 2 * num_layers if name == "out_proj" else 1
                module.draw(std=0.02 / math.sqrt(residuals))

    def undecayed(self) -> Iterator[nn.Parameter]:
        """The parameters that official code exempts from weight decay: A_log, D and dt's bias."""
        for name, parameter in self.named_parameters():
            if name in ("A_log", "D", "dt_bias", "dt_proj.bias"):
                yield parameter

    def forward(
        self, x: Tensor, positions: Tensor | None = None, dropped: Dropped | None = None
    ) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given; in
        training, with what of a mixer's own is `dropped`."""
        parts = self.mix(x) if dropped is None else self.mix_in_training(x, dropped)
        if positions is not None:
            parts = tuple(at_positions(part, positions) for part in parts)
        return self.finish(parts)

    def mix(self, x: Tensor) -> tuple[Tensor, ...]:
        """The part that needs every position: [R, B, L, D] -> tensors [R, B, L, ...]."""
        raise NotImplementedError

    def mix_in_training(self, x: Tensor, dropped: Dropped) -> tuple[Tensor, ...]:
        """`mix`, with dropout if the mixer has any."""
        return self.mix(x)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        """What follows at each position: outputs of `mix`, at all or some, -> [R, B, ..., D]."""
        return parts[0]

    def initial_state(self, R: int, B: int, length: int) -> State:
        """The state before the first position of R x B sequences; at most `length` steps may
        follow."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One position, x [R, B, D] -> y [R, B, D] and the next state; `state` stays as it is."""
        raise NotImplementedError

    def zeros(self, *shape: int) -> Tensor:
        """Zeros for an initial state, on the parameters' device and in at least float32."""
        parameter = next(self.parameters())
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return parameter.new_zeros(shape, dtype=dtype)

    def window(self, conv: ShortConv | None, R: int, B: int) -> Tensor:
        """What a convolution sees before the first input, [R, B, T - 1, C]; without one, empty."""
        if conv is None:
            return self.zeros(R, B, 0, 0)
        _, channels, taps = conv.weight.shape
        return self.zeros(R, B, taps - 1, channels)

    def finish_one(self, *parts: Tensor) -> Tensor:
        """`finish` at one position: tensors [R, B, ...] -> [R, B, D]."""
        return self.finish(tuple(part.unsqueeze(2) for part in parts)).squeeze(2)

    def state_size(self, length: int) -> int | None:
        """How many numbers one layer carries from one position to the next, for one sequence of
        `length` tokens: recurrent state, convolution windows, key-value cache. A complex number
        counts as two, an index as none. None if it is not known."""
        state = copy.deepcopy(self).to("meta").initial_state(1, 1, length)
        numbers = (t for t in tree_leaves(state) if t.is_floating_point() or t.is_complex())
        return sum(t.numel() * (2 if t.is_complex() else 1) for t in numbers)

    def flops(self, length: int, outputs: int | None = None) -> int | None:
        """Forward FLOPs on one sequence, a multiply and an add counted as two: the linear layers
        and short convolutions at every position, but the last at `outputs` if given, and
        `sequence_flops`. None if they are not known."""
        modules = set(self.modules()) - set(self.once_a_batch())
        weights = sum(m.weight[0].numel() for m in modules if isinstance(m, Linear | ShortConv))
        saved = 0
        if outputs is not None and self.finishing:
            saved = getattr(self, self.finishing).weight[0].numel() * (length - outputs)
        return 2 * (weights * length - saved) + self.sequence_flops(length)

    def once_a_batch(self) -> Iterable[nn.Module]:
        """The modules that run once a batch, not on each sequence, as those that make a filter."""
        return ()

    def sequence_flops(self, length: int) -> int:
        """Forward FLOPs of the operations without parameters on one sequence."""
        raise NotImplementedError


def step_conv(conv: ShortConv | None, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """One position of a convolution, y and the next window; without one, both as they are."""
    return (x, window) if conv is None else conv.step(x, window)


def at_positions(x: Tensor, positions: Tensor) -> Tensor:
    """The vectors of x [R, B, L, D] at `positions` [R, B, Q]: [R, B, Q, D]."""
    return x.gather(2, positions.unsqueeze(-1).expand(*positions.shape, x.shape[-1]))
