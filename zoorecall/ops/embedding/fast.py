"""The embedding with a gradient that suits a GPU. See `reference` for the definition and shapes."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .reference import embedding_reference, first_rows


def embedding_spread(tokens: Tensor, table: Tensor) -> Tensor:
    """The definition; its gradient is that of `_SpreadFiller`."""
    return _SpreadFiller.apply(tokens, table)


class _SpreadFiller(torch.autograd.Function):
    """Adds the gradient up without sorting the tokens, by atomic additions.

    Most tokens of a recall task may be the filler, token 0, and additions to one row wait for each
    other. So the filler's gradient is a sum of its own, and in its place zeros are added to rows
    all over the table. On an H100, for 17 runs of 512 sequences with 4 pairs in 64 tokens, the
    compiled kernel that does this takes 0.14 ms instead of 1.61.
    """

    @staticmethod
    def forward(ctx, tokens: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.shape, ctx.dtype = table.shape, table.dtype
        return embedding_reference(tokens, table)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
        (tokens,) = ctx.saved_tensors
        R, V, D = ctx.shape
        rows, grad = tokens.flatten(1).long(), grad.flatten(1, -2).to(ctx.dtype)
        filler = (rows == 0).unsqueeze(-1)
        anywhere = torch.arange(rows.shape[1], device=rows.device) % V
        rows = torch.where(rows == 0, anywhere, rows) + first_rows(rows, V)
        others = grad.new_zeros(R * V, D)
        others = others.index_add(0, rows.flatten(), torch.where(filler, 0.0, grad).flatten(0, 1))
        of_filler = torch.where(filler, grad, 0.0).sum(1)
        others = others.view(R, V, D)
        others[:, 0] += of_filler
        return None, others
