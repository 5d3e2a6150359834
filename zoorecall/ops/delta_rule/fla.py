"""The delta rule by flash-linear-attention's kernels, for long sequences of wide heads.

The two passes of `fla.ops.delta_rule.chunk` (fla-core 0.6.0), with the runs folded into the batch,
as one operator: the function that joins them there would cut a compiled step in two. On a size
of head that is new to a machine their kernels try out their settings, for a minute or more;
Triton's cache remembers.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK, MAX_HEAD_DIM = 64, 256


def fits(dtype: torch.dtype, *head_dims: int) -> bool:
    """Whether the kernels take this dtype and these head dims."""
    return dtype == torch.bfloat16 and max(head_dims) <= MAX_HEAD_DIM


def _settings(k: Tensor) -> dict[str, Any]:
    return {"scale": k.shape[-1] ** -0.5, "initial_state": None, "chunk_size": CHUNK}


@torch.library.custom_op("zoorecall::delta_rule_fla", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """y [N, L, H, V] and the inverse of each chunk's triangular system, [N, L, H, CHUNK]."""
    from fla.ops.delta_rule.chunk import chunk_delta_rule_fwd  # imports all of fla: seconds

    inputs = (x.contiguous() for x in (q, k, v, beta))
    with torch.cuda.device_of(q):
        y, inverse, _ = chunk_delta_rule_fwd(*inputs, output_final_state=False, **_settings(k))
    return y, inverse


@_forward.register_fake
def _(q, k, v, beta):
    return v.new_empty(v.shape), k.new_empty(*beta.shape, CHUNK)


@torch.library.custom_op("zoorecall::delta_rule_fla_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, inverse: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from fla.ops.delta_rule.chunk import chunk_delta_rule_bwd

    inputs = (q, k, v, beta)
    with torch.cuda.device_of(q):
        *grads, _ = chunk_delta_rule_bwd(
            *(x.contiguous() for x in inputs), inverse, do=dy.contiguous(), dht=None, **_settings(k)
        )
    dq, dk, dv, dbeta = (grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True))
    return dq, dk, dv, dbeta


@_backward.register_fake
def _(q, k, v, beta, inverse, dy):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, beta))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(False)  # or autograd would make zeros as the gradient of the inverse


def _gradients(ctx, dy, _):
    return _backward(*ctx.saved_tensors, dy)


_forward.register_autograd(_gradients, setup_context=_save)


def delta_rule_fla(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The delta rule, as `delta_rule.delta_rule`: y [R, B, L, H, V], all bfloat16."""
    y, _ = _forward(*(x.flatten(0, 1) for x in (q, k, v, beta)))
    return y.unflatten(0, q.shape[:2])
