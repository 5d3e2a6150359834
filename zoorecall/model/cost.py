"""What a config costs: parameters, state, FLOPs."""

from collections.abc import Sequence

import torch

from ..config import RunConfig
from ..seeding import seeded_generators
from .blocks import ChannelBlock
from .model import Model


def count_parameters(run: RunConfig) -> int:
    """How many numbers are trained; a complex number counts as two."""
    parameters = (p for p in _shape_of(run).parameters() if p.requires_grad)
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters)


def state_size(run: RunConfig) -> int | None:
    """Numbers carried from one position to the next by all layers, at the end of a sequence; None
    if a layer's are not known."""
    layers = _shape_of(run).each_layer()
    return _sum([layer.mixer.state_size(run.task.seq_len) for layer in layers])


def forward_flops(run: RunConfig) -> int | None:
    """FLOPs of one sequence's forward pass as it is computed here: logits, the last MLP and what is
    in front of it at the query positions only, norms and activations not counted. Training takes
    three times as many. None if a mixer's are not known."""
    model = _shape_of(run)
    L, Q, D = run.task.seq_len, run.task.num_queries, run.model.d_model
    parts: list[int | None] = [2 * Q * run.task.vocab_size * D]
    for i, layer in enumerate(model.each_layer()):
        positions = Q if i == run.model.num_layers - 1 else L
        parts.append(layer.mixer.flops(L, positions))
        if isinstance(layer.channel, ChannelBlock):
            parts.append(4 * positions * D * run.model.mlp_ratio * D)
    return _sum(parts)


def _shape_of(run: RunConfig) -> Model:
    """A model without weights, but for a user's own module, whose constructor may look at them."""
    with seeded_generators(0), torch.device("meta"):
        return Model(run)


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
