"""A training step of a pack: on a GPU compiled, captured once, and replayed.

Shape letters: R slots, B batch, L length, Q queries.

A step is a function of tensors that stay where they are, and nothing in it waits for the host, but
where a module of a user's own is not to be captured: which runs train is then asked at every step.
Whatever else the host wants to know it reads at an evaluation.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..config import RunConfig
from ..model.blocks import run_layer
from ..model.pack import Pack
from ..ops.dropout import WORDS, mix
from ..seeding import derive_seed
from .capture import capture
from .data import Feed
from .optim import make_optimizer

COMPILED_WHOLE = 2
"""Layers of a model that is compiled as one. Of no more than two, no layer is like another, as the
last finishes at the query positions. A deeper model is compiled a layer of each kind."""

KINDS = 64
"""Different layers that a model may have: torch would not compile the ninth."""


class Step:
    """Trains the run in each slot of a pack by one batch of `feed`, whenever it is called.

    Only the weights of runs that are `active` change; the optimizer's means of others may decay. To
    `enter` one puts its numbers where they are looked for: a step that was compiled and captured
    goes on with it.
    """

    def __init__(self, run: RunConfig, pack: Pack, feed: Feed, device: torch.device):
        self.pack, self.feed, self.device = pack, feed, device
        decayed = pack.decayed() if run.train.undecayed == "official" else None
        self.optimizer = make_optimizer(run.train, pack.flat, feed.cursor, pack.matrices(), decayed)
        self.dtype = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
        R = len(pack.flat)
        self.dropout_keys, self.index, self.diverged_at = (
            torch.zeros(R, dtype=torch.int64, device=device) for _ in range(3)
        )
        self.active = torch.zeros(R, dtype=torch.bool, device=device)
        # since the evaluation before
        self.loss_sum, self.max_loss, self.max_grad_norm = (
            torch.zeros(R, dtype=torch.float64, device=device) for _ in range(3)
        )
        model = pack.model
        self._embed, self._layer, self._losses = model.embed, run_layer, model.losses
        self._forward, self._update = self.mean_loss, self._update_runs
        self._run: Callable[[], None] = self._train
        if device.type == "cuda" and pack.can_be_captured:
            self._run = self._compile_and_capture

    def __call__(self) -> None:
        self._run()

    def enter(self, r: int, run: RunConfig) -> None:
        """Slot r begins a run's first step."""
        self.optimizer.enter(r, run.train)
        self.dropout_keys[r] = derive_seed(run.seed, "dropout") % WORDS
        self.index[r], self.diverged_at[r], self.active[r] = 0, -1, True
        self.forget(r)

    def forget(self, r: int) -> None:
        """Slot r was evaluated."""
        for tensor in (self.loss_sum, self.max_loss, self.max_grad_norm):
            tensor[r] = 0

    def of_runs(self) -> dict[str, Tensor]:
        """What training changes, a row a slot."""
        return {
            "flat": self.pack.flat,
            **self.optimizer.buffers,
            "index": self.index,
            "active": self.active,
            "diverged_at": self.diverged_at,
            "loss_sum": self.loss_sum,
            "max_loss": self.max_loss,
            "max_grad_norm": self.max_grad_norm,
        }

    def compile(self, backend: str = "inductor") -> None:
        """Compile what a step calls."""
        compiled = partial(torch.compile, dynamic=False, backend=backend)
        torch.compiler.reset()  # what it compiled for the pack before would count as this one's
        torch._dynamo.config.recompile_limit = KINDS
        self._update = compiled(self._update_runs)
        if len(self.pack.model.layers) <= COMPILED_WHOLE:
            self._forward = compiled(self.mean_loss)
        else:
            self._embed, self._layer = compiled(self._embed), compiled(self._layer)
            self._losses = compiled(self._losses)

    # ---- inside

    def mean_loss(
        self, tokens: Tensor, positions: Tensor, targets: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """What a run minimizes, [R]; `weights` [R, B] of examples, if they are not all alike."""
        model = self.pack.model
        keys = mix(self.dropout_keys ^ mix(self.index)) if model.drops else None
        x = self._embed(tokens, self.dtype, keys)
        x = model.through_layers(x, positions.long(), self._layer, keys)
        losses = self._losses(x, targets)[0]
        if weights is None:
            return losses.mean(dim=1)
        return (losses.unflatten(1, (weights.shape[1], -1)).mean(dim=2) * weights).sum(dim=1)

    def _train(self) -> None:
        if not self.pack.can_be_captured:
            self.pack.activate(self.active.tolist())
        buffers = [(r, b, b.clone()) for r, b in self.pack.captured_buffers()]
        loss = self._forward(*self.feed.batch(), self.feed.weights())
        loss.sum().backward()
        for r, buffer, before in buffers:  # those of a run that has ended stay
            buffer.copy_(torch.where(self.active[r], buffer, before))
        self.pack.collect()
        self._update(loss.detach(), self.pack.take_gradients())

    @torch.no_grad()
    def _update_runs(self, loss: Tensor, grads: list[Tensor]) -> None:
        grad, before = self.pack.join(grads), self.active.clone()
        ok = before & loss.isfinite()
        updated, norm = self.optimizer.step(grad, ok)
        diverged = before & ~updated
        self.diverged_at.copy_(torch.where(diverged, self.index, self.diverged_at))
        loss, norm = torch.where(updated, loss, 0.0), torch.where(updated, norm, 0.0)
        self.loss_sum.add_(loss)
        self.max_loss.copy_(torch.maximum(self.max_loss, loss))
        self.max_grad_norm.copy_(torch.maximum(self.max_grad_norm, norm))
        self.active.copy_(updated)
        self.index.add_(updated)
        self.feed.cursor.add_(updated)

    def _compile_and_capture(self) -> None:
        self.compile()
        self._capture()

    def _capture(self) -> None:
        """Capture a step, replay it, and do so from here on."""
        changing = [*self.of_runs().values(), self.feed.cursor]
        changing += [buffer for _, buffer in self.pack.captured_buffers()]
        self._run = capture(self._train, self.device, changing)
        self._run()
