"""The model: embedding, layers, head at the query positions.

Shape letters: R runs, B batch, L length, D width, Q queries, V vocabulary.

Head and embedding share their weights. Nothing after the last sequence mixer is computed anywhere
but at the query positions.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..layers import Embedding, LayerNorm, normal, per_run
from ..mixers.base import State
from ..mixers.custom import Custom
from ..ops.dropout import dropout
from ..ops.embedding import embedding
from ..seeding import derive_seed, seeded_generators
from .blocks import Layer


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

    @property
    def user_mixers(self) -> list[Custom]:
        """The mixers that are a user's own module, by layer."""
        mixers = (layer.mixer for layer in self.each_layer())
        return [mixer for mixer in mixers if isinstance(mixer, Custom)]

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
    with seeded_generators(derive_seed(run.seed, "init")):
        return Model(run)
