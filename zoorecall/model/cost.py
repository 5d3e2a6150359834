"""What a config costs: parameters, state, FLOPs.

They are counted on layers without numbers (torch's meta device), one of each kind, and once for all
runs of a pack key.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from ..config import RunConfig
from ..mixers import CustomConfig
from ..seeding import seeded_generators
from .blocks import Layer
from .model import Model

T = TypeVar("T")


def _once_a_pack_key(count: Callable[[RunConfig], T]) -> Callable[[RunConfig], T]:
    known: dict[str, T] = {}

    @functools.wraps(count)
    def counted(run: RunConfig) -> T:
        if run.pack_key not in known:
            known[run.pack_key] = count(run)
        return known[run.pack_key]

    return counted


@_once_a_pack_key
def count_parameters(run: RunConfig) -> int:
    """How many numbers are trained; a complex number counts as two."""
    model, layers, kinds = _one_of_each_kind(run)
    sizes = [_trained(layer) for layer in layers]
    return _trained(model) - sum(sizes) + sum(sizes[kind] for kind in kinds)


@_once_a_pack_key
def state_size(run: RunConfig) -> int | None:
    """Numbers carried from one position to the next by all layers, at the end of a sequence; None
    if a layer's are not known."""
    _, layers, kinds = _one_of_each_kind(run)
    sizes = [layer.mixer.state_size(run.task.seq_len) for layer in layers]
    return _sum([sizes[kind] for kind in kinds])


@_once_a_pack_key
def forward_flops(run: RunConfig) -> int | None:
    """FLOPs of one sequence's forward pass as it is computed here: logits, the last MLP and what is
    in front of it at the query positions only, norms and activations not counted. Training takes
    three times as many. None if a mixer's are not known."""
    _, layers, kinds = _one_of_each_kind(run)
    L, Q, D = run.task.seq_len, run.task.num_queries, run.model.d_model
    *before, last = kinds
    at_all = {kind: layers[kind].mixer.flops(L, L) for kind in set(before)}
    parts = [*(at_all[kind] for kind in before), layers[last].mixer.flops(L, Q)]
    parts.append(2 * Q * run.task.vocab_size * D)
    if run.model.channel_mixer == "mlp":
        parts.append(4 * (len(before) * L + Q) * D * run.model.mlp_ratio * D)
    return _sum(parts)


def _one_of_each_kind(run: RunConfig) -> tuple[Model, list[Layer], list[int]]:
    """A model with one layer of each kind, these layers, and of which of them each layer of the
    run is. They have no weights, but for a user's own module, whose constructor may look at them.
    """
    depth = run.model.num_layers
    each = [run.model.mixer.of_layer(i, depth) for i in range(depth)]
    # a user's own module may be told its layer, so that each is a kind
    mixers = [(repr(x), i if isinstance(x, CustomConfig) else 0) for i, x in enumerate(each)]
    distinct = list(dict.fromkeys(mixers))
    with seeded_generators(0), torch.device("meta"):
        model = Model(run, [mixers.index(mixer) for mixer in distinct])
    return model, list(model.each_layer()), [distinct.index(mixer) for mixer in mixers]


def _trained(module: nn.Module) -> int:
    trained = (p for p in module.parameters() if p.requires_grad)
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in trained)


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
