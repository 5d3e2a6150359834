"""The model: embedding, layers, head at the query positions; and packs of such models.

Shape letters: R runs, B batch, L length, D width, Q queries, V vocabulary, P parameters of a run.

A layer is a sequence mixer and, unless the grid says `channel_mixer: none`, an MLP, each behind a
LayerNorm on a residual stream, as in Zoology. Head and embedding share their weights. Nothing
after the last sequence mixer is computed anywhere but at the query positions.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RunConfig
from .layers import Embedding, LayerNorm, Linear, normal, per_run
from .mixers import make_mixer
from .mixers.base import State, at_positions
from .ops.dropout import dropout
from .ops.embedding import embedding
from .ops.mlp import mlp
from .seeding import derive_seed


class MLP(nn.Module):
    """Two linear layers with a GELU between, weights as in GPT-2 and Zoology.

    It takes the norm in front of it and adds the residual, as a GPU does all of it at once.
    """

    def __init__(self, d_model: int, d_hidden: int, num_layers: int):
        super().__init__()
        self.fc1 = Linear(d_model, d_hidden, std=0.02)
        self.fc2 = Linear(d_hidden, d_model, std=0.02 / math.sqrt(2 * num_layers))

    def forward(self, x: Tensor, norm: LayerNorm) -> Tensor:
        """x + mlp(norm(x)) in one operation: [R, ..., D] -> the same."""
        fc1, fc2 = self.fc1, self.fc2
        assert fc1.bias is not None and fc2.bias is not None
        parameters = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        return mlp(x, *parameters, norm.eps)


class Layer(nn.Module):
    def __init__(self, run: RunConfig, index: int):
        super().__init__()
        model, seq_len = run.model, run.task.seq_len
        self.mixer_norm = LayerNorm(model.d_model)
        self.mixer = make_mixer(model.mixer, model.d_model, seq_len, model.num_layers, index)
        self.mlp = None
        if model.channel_mixer == "mlp":
            self.mlp_norm = LayerNorm(model.d_model)
            self.mlp = MLP(model.d_model, model.mlp_ratio * model.d_model, model.num_layers)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given."""
        y = self.mixer(self.mixer_norm(x), positions)
        x = (x if positions is None else at_positions(x, positions)) + y
        return x if self.mlp is None else self.mlp(x, self.mlp_norm)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One position, x [R, B, D] -> the same, and the mixer's next state."""
        y, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + y
        return (x if self.mlp is None else self.mlp(x, self.mlp_norm)), state


class ModelState(NamedTuple):
    position: Tensor  # [R, B]: how many tokens there were so far
    layers: tuple[State, ...]  # the state of each layer's mixer


class Model(nn.Module):
    """Models of R runs; made for one run, and widened to more by `Pack`."""

    def __init__(self, run: RunConfig):
        super().__init__()
        model = run.model
        self.embedding = Embedding(run.task.vocab_size, model.d_model)
        self.position_embedding = None
        if model.positions == "learned":
            self.position_embedding = normal(run.task.seq_len, model.d_model, std=0.02)
        self.layers = nn.ModuleList(Layer(run, i) for i in range(model.num_layers))
        self.norm = LayerNorm(model.d_model)
        self.embed_dropout = model.embed_dropout

    def each_layer(self) -> Iterator[Layer]:
        """The layers, from the first to the last."""
        return (cast(Layer, layer) for layer in self.layers)

    def hidden(
        self, tokens: Tensor, positions: Tensor, dtype: torch.dtype, keys: Tensor | None = None
    ) -> Tensor:
        """What the head sees: tokens [R, B, L], query positions [R, B, Q] -> [R, B * Q, D].

        With `keys` [R], see `ops.dropout`, as in training: some of the embedding is dropped.
        """
        x = self.embedding(tokens).to(dtype)
        if self.position_embedding is not None:
            x = x + per_run(self.position_embedding, x)
        if keys is not None:
            x = dropout(x, self.embed_dropout, keys)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return self.norm(last(x, positions)).flatten(1, 2)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits at the query positions: [R, B, L], [R, B, Q] -> [R, B, Q, V]."""
        hidden = self.hidden(tokens, positions, self.embedding.weight.dtype)
        logits = torch.bmm(hidden, self.embedding.weight.mT)
        return logits.view(*positions.shape, -1)

    def initial_state(self, R: int, B: int, length: int) -> ModelState:
        """The state before the first token of R x B sequences, the longest of `length`; raises
        ValueError where `length` is more than there are learned positions."""
        if self.position_embedding is not None:
            longest = self.position_embedding.shape[1]
            if length > longest:
                raise ValueError(f"the model has {longest} learned positions, not {length}")
        position = torch.zeros(R, B, dtype=torch.long, device=self.embedding.weight.device)
        layers = (layer.mixer.initial_state(R, B, length) for layer in self.each_layer())
        return ModelState(position, tuple(layers))

    def step(self, tokens: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """Logits of one position, [R, B] -> [R, B, V], and the next state."""
        x, states = self.embedding(tokens), []
        if self.position_embedding is not None:
            x = x + embedding(state.position, self.position_embedding)
        for layer, of_layer in zip(self.each_layer(), state.layers, strict=True):
            x, of_layer = layer.step(x, of_layer)
            states.append(of_layer)
        logits = torch.bmm(self.norm(x), self.embedding.weight.mT)
        return logits, ModelState(state.position + 1, tuple(states))


def build_model(run: RunConfig) -> Model:
    """The model of one run (R = 1) on the CPU; its weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.seed, "init") % 2**63)
        return Model(run)


def count_parameters(run: RunConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Model(run).parameters() if p.requires_grad)


def state_size(run: RunConfig) -> int | None:
    """Numbers carried from one position to the next by all layers, at the end of a sequence; None
    if a layer's are not known."""
    with torch.device("meta"):
        model = Model(run)
    return _sum([layer.mixer.state_size(run.task.seq_len) for layer in model.each_layer()])


def forward_flops(run: RunConfig) -> int | None:
    """FLOPs of one sequence's forward pass as it is computed here: logits, the last MLP and what is
    in front of it at the query positions only, norms and activations not counted. Training takes
    three times as many. None if a mixer's are not known."""
    with torch.device("meta"):
        model = Model(run)
    L, Q, D = run.task.seq_len, run.task.num_queries, run.model.d_model
    parts: list[int | None] = [2 * Q * run.task.vocab_size * D]
    for i, layer in enumerate(model.each_layer()):
        positions = Q if i == run.model.num_layers - 1 else L
        parts.append(layer.mixer.flops(L, positions))
        if layer.mlp is not None:
            parts.append(4 * positions * D * run.model.mlp_ratio * D)
    return _sum(parts)


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


class Pack:
    """Models of equal shape as one model, whose trainable parameters are one tensor.

    `model` has R runs; `flat` [R, P] holds its trainable parameters, of which `model`'s are views,
    so that an optimizer step is a few operations on one tensor and a checkpoint is that tensor.
    """

    ALIGN = 32  # numbers: keeps every parameter on a 128-byte boundary, as fast kernels want it

    def __init__(self, runs: Sequence[RunConfig], device: torch.device):
        models = [build_model(run) for run in runs]
        self.model = models[0]
        members = [list(model.named_parameters()) for model in models]
        self._slices: list[tuple[nn.Parameter, slice]] = []
        end = 0
        for _, parameter in members[0]:
            if parameter.requires_grad:
                self._slices.append((parameter, slice(end, end + parameter.numel())))
                end += -(-parameter.numel() // self.ALIGN) * self.ALIGN
        flat = torch.zeros(len(runs), end)
        where = {id(parameter): part for parameter, part in self._slices}
        for i, (_, parameter) in enumerate(members[0]):
            each = [member[i][1].detach() for member in members]
            if id(parameter) in where:
                for r, values in enumerate(each):
                    flat[r, where[id(parameter)]] = values.flatten()
            else:
                parameter.data = torch.cat(each)
        self.model.to(device)
        self.set_flat(flat.to(device))

    def set_flat(self, flat: Tensor) -> None:
        """Make `flat` [R, P] the parameters."""
        self.flat = flat
        for parameter, part in self._slices:
            parameter.data = flat[:, part].view(flat.shape[0], *parameter.shape[1:])
            parameter.grad = None

    def take_gradients(self) -> list[Tensor]:
        """The gradient of every parameter, [R, ...] each; handed over, so the next backward pass
        writes new ones instead of adding to these."""
        grads = []
        for parameter, _ in self._slices:
            grad = parameter.grad
            grads.append(torch.zeros_like(parameter) if grad is None else grad)
            parameter.grad = None
        return grads

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        """Gradients as one tensor laid out like `flat`: [R, P]."""
        parts = (grad.flatten(1) for grad in grads)
        return torch.cat([F.pad(part, (0, -part.shape[1] % self.ALIGN)) for part in parts], dim=1)
