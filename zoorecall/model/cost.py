"""What a config costs: parameters, state, FLOPs.

They are counted on a model without numbers (torch's meta device) that has one layer of each kind,
once for all runs of a pack key.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..config import RunConfig
from .model import Model


class Cost(NamedTuple):
    """`state_size` and `forward_flops` are None where a mixer of the user's own does not tell."""

    parameters: int
    """Those that are trained."""
    state_size: int | None
    """Numbers carried from one position to the next by all layers, at the end of a sequence."""
    forward_flops: int | None
    """Of one sequence, as it is computed here: logits, the last MLP and what is in front of it at
    the query positions only, norms and activations not counted. Training takes three times as
    many."""


_COSTS: dict[str, Cost] = {}


def cost(run: RunConfig) -> Cost:
    """What a run costs; all runs of its pack key cost the same."""
    if run.pack_key not in _COSTS:
        _COSTS[run.pack_key] = _count(run)
    return _COSTS[run.pack_key]


def count_parameters(run: RunConfig) -> int:
    return cost(run).parameters


def state_size(run: RunConfig) -> int | None:
    return cost(run).state_size


def forward_flops(run: RunConfig) -> int | None:
    return cost(run).forward_flops


def _count(run: RunConfig) -> Cost:
    depth, mixer = run.model.num_layers, run.model.mixer
    kinds = [repr(mixer.of_layer(i, depth)) for i in range(depth)]
    first = {kind: i for i, kind in reversed([*enumerate(kinds)])}
    with torch.device("meta"):
        model = Model(run, list(first.values()))
    L, Q, D = run.task.seq_len, run.task.num_queries, run.model.d_model
    parameters = _parameters(model)
    states: list[int | None] = []
    flops: list[int | None] = [2 * Q * run.task.vocab_size * D]
    for kind, layer in zip(first, model.each_layer(), strict=True):
        count, last = kinds.count(kind), kind == kinds[-1]
        parameters += (count - 1) * _parameters(layer)
        states.append(_times(count, layer.mixer.state_size(L)))
        for positions, number in ((L, count - last), (Q, int(last))):
            flops.append(_times(number, layer.mixer.flops(L, positions)))
            if layer.channel is not None:
                flops.append(number * 4 * positions * D * run.model.mlp_ratio * D)
    return Cost(parameters, _sum(states), _sum(flops))


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _times(count: int, one: int | None) -> int | None:
    return None if one is None else count * one


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
