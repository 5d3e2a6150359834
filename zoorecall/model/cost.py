"""What a config costs: parameters, state, FLOPs.

They are counted on a model that is there, of any number of runs, or else on layers without numbers
(torch's meta device, for which torch imports its compiler: seconds), one of each kind; and once for
all runs of a pack key.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from ..config import RunConfig
from ..mixers import CustomConfig
from ..seeding import seeded_generators
from .blocks import Layer
from .model import Model

T = TypeVar("T")


class Counted(NamedTuple):
    """A model, layers of it, and which of these each layer of the run is."""

    model: Model
    layers: list[Layer]
    kinds: list[int]


Count = Callable[[RunConfig, Counted], T]


def _once_a_pack_key(count: Count[T]) -> Callable[..., T]:
    known: dict[str, T] = {}

    @functools.wraps(count)
    def counted(run: RunConfig, model: Model | None = None) -> T:
        if run.pack_key not in known:
            known[run.pack_key] = count(run, _counted(run, model))
        return known[run.pack_key]

    return counted


@_once_a_pack_key
def count_parameters(run: RunConfig, on: Counted) -> int:
    """How many numbers of a run are trained; a complex number counts as two."""
    sizes = [_trained(layer) for layer in on.layers]
    of_all = _trained(on.model) - sum(sizes) + sum(sizes[kind] for kind in on.kinds)
    return of_all // len(on.model.embedding.weight)


@_once_a_pack_key
def state_size(run: RunConfig, on: Counted) -> int | None:
    """Numbers carried from one position to the next by all layers, at the end of a sequence; None
    if a layer's are not known."""
    sizes = [layer.mixer.state_size(run.task.seq_len) for layer in on.layers]
    return _sum([sizes[kind] for kind in on.kinds])


@_once_a_pack_key
def forward_flops(run: RunConfig, on: Counted) -> int | None:
    """FLOPs of one sequence's forward pass as it is computed here: logits, the last MLP and what is
    in front of it at the query positions only, norms and activations not counted. Training takes
    three times as many. None if a mixer's are not known."""
    _, layers, kinds = on
    L, Q, D = run.task.seq_len, run.task.num_queries, run.model.d_model
    *before, last = kinds
    at_all = {kind: layers[kind].mixer.flops(L, L) for kind in set(before)}
    parts = [*(at_all[kind] for kind in before), layers[last].mixer.flops(L, Q)]
    parts.append(2 * Q * run.task.vocab_size * D)
    if run.model.channel_mixer == "mlp":
        parts.append(4 * (len(before) * L + Q) * D * run.model.mlp_ratio * D)
    return _sum(parts)


def _counted(run: RunConfig, model: Model | None) -> Counted:
    """That model, or one with a layer of each kind. Its layers have no weights, but for a user's
    own module, whose constructor may look at them. What such a module says must not depend on what
    it was trained to, so it is always made anew."""
    if model is not None and not model.user_mixers:
        return Counted(model, list(model.each_layer()), list(range(run.model.num_layers)))
    depth = run.model.num_layers
    each = [run.model.mixer.of_layer(i, depth) for i in range(depth)]
    # a user's own module may be told its layer, so that each is a kind
    mixers = [(repr(x), i if isinstance(x, CustomConfig) else 0) for i, x in enumerate(each)]
    distinct = list(dict.fromkeys(mixers))
    with seeded_generators(0), torch.device("meta"):
        model = Model(run, [mixers.index(mixer) for mixer in distinct])
    return Counted(model, list(model.each_layer()), [distinct.index(mixer) for mixer in mixers])


def _trained(module: nn.Module) -> int:
    trained = (p for p in module.parameters() if p.requires_grad)
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in trained)


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
