"""The delta rule by flash-linear-attention's kernels, for sequences and heads too large for ours.

`fla.ops.delta_rule.chunk_delta_rule` of fla-core 0.6.0, with the runs folded into the batch.
"""

import torch
from torch import Tensor

MAX_HEAD_DIM = 256


def fits(dtype: torch.dtype, *head_dims: int) -> bool:
    """Whether the kernels take this dtype and these head dims."""
    return dtype == torch.bfloat16 and max(head_dims) <= MAX_HEAD_DIM


@torch.compiler.disable
def delta_rule_fla(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The delta rule, as `delta_rule.delta_rule`: y [R, B, L, H, V], all bfloat16."""
    from fla.ops.delta_rule import chunk_delta_rule  # imports all of fla's operations: seconds

    y = chunk_delta_rule(*(x.flatten(0, 1) for x in (q, k, v, beta)))[0]
    return y.unflatten(0, q.shape[:2])
