"""The model: embedding, layers, head at the query positions.

Shape letters: R runs, B batch, L length, D width, Q queries, V vocabulary.

Head and embedding share their weights. Nothing after the last sequence mixer is computed anywhere
but at the query positions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..layers import Embedding, LayerNorm, Linear, normal, per_run
from ..mixers.base import State
from ..mixers.custom import Custom
from ..ops.dropout import Dropped, dropout
from ..ops.embedding import embedding
from ..ops.linear_cross_entropy import linear_cross_entropy
from ..seeding import derive_seed, seeded_generators
from .blocks import Layer, run_layer


class ModelState(NamedTuple):
    position: Tensor  # [R, B]: how many tokens there were so far
    layers: tuple[State, ...]  # the state of each layer's mixer


class Model(nn.Module):
    """Models of R runs; made for one run, and widened to more by `Pack`."""

    def __init__(self, run: RunConfig, layers: Sequence[int] | None = None):
        """With all layers, or only those given, counted from 0, as to count what they cost."""
        super().__init__()
        model = run.model
        indices = range(model.num_layers) if layers is None else layers
        self.embedding = Embedding(run.task.vocab_size, model.d_model)
        self.position_embedding = None
        if model.positions == "learned":
            self.position_embedding = normal(run.task.seq_len, model.d_model, std=0.02)
        self.layers = nn.ModuleList(Layer(run, i) for i in indices)
        self.norm = LayerNorm(model.d_model)
        self.embed_dropout = float(model.embed_dropout)
        self.attention_dropout = float(model.attention_dropout)

    def each_layer(self) -> Iterator[Layer]:
        """The layers, from the first to the last."""
        return (cast(Layer, layer) for layer in self.layers)

    @property
    def user_mixers(self) -> list[Custom]:
        """The mixers that are a user's own module, by layer."""
        mixers = (layer.mixer for layer in self.each_layer())
        return [mixer for mixer in mixers if isinstance(mixer, Custom)]

    def linear_weights(self) -> Iterator[tuple[Tensor, Sequence[int]]]:
        """The weights [R, M, N] of linear layers, each with the widths of the projections that it
        joins; of a user's module those [M, N] of its first copy. The head is the embedding, and a
        convolution's filters are not mixed: neither is here."""
        for module in self.modules():
            if isinstance(module, Linear):
                yield module.weight, module.widths
            elif isinstance(module, Custom):
                yield from ((weight, weight.shape[:1]) for weight in module.linear_weights())

    def undecayed(self) -> Iterator[nn.Parameter]:
        """The parameters that official code exempts from weight decay."""
        for layer in self.each_layer():
            yield from layer.mixer.undecayed()

    def embed(self, tokens: Tensor, dtype: torch.dtype, keys: Tensor | None = None) -> Tensor:
        """What the first layer sees: tokens [R, B, L] -> [R, B, L, D].

        With `keys` [R], see `ops.dropout`, as in training: some of the embedding is dropped.
        """
        x = self.embedding(tokens).to(dtype)
        if self.position_embedding is not None:
            x = x + per_run(self.position_embedding, x)
        if keys is None or self.embed_dropout == 0:
            return x
        return dropout(x, self.embed_dropout, keys)

    def through_layers(
        self,
        x: Tensor,
        positions: Tensor,
        run: Callable[..., Tensor] = run_layer,
        keys: Tensor | None = None,
    ) -> Tensor:
        """Each layer by `run`, the last at query positions only: [R, B, L, D], [R, B, Q] ->
        [R, B, Q, D]; with `keys` as in `embed`."""
        dropped = None
        if keys is not None and self.attention_dropout > 0:
            dropped = Dropped(self.attention_dropout, keys)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.each_layer()):
            of_layer = None if dropped is None else dropped.of_layer(i)
            x = run(layer, x, positions if i == last else None, of_layer)
        return x

    @property
    def drops(self) -> bool:
        """Whether anything is dropped in training."""
        return self.embed_dropout > 0 or self.attention_dropout > 0

    def losses(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (nats) and whether the most likely token is the target, both [R, B * Q], of the last
        layer's output [R, B, Q, D] and targets [R, B, Q]; head and loss in one operation."""
        head = self.embedding.weight.to(x.dtype)
        return linear_cross_entropy(self.norm(x).flatten(1, 2), head, targets.flatten(1).long())

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits at the query positions: [R, B, L], [R, B, Q] -> [R, B, Q, V]."""
        x = self.through_layers(self.embed(tokens, self.embedding.weight.dtype), positions)
        logits = torch.bmm(self.norm(x).flatten(1, 2), self.embedding.weight.mT)
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
    with seeded_generators(derive_seed(run.seed, "init")):
        return Model(run)
