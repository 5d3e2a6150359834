"""The cross-entropy of a linear head, without its logits."""

from torch import Tensor

from ..forms import HAS_TRITON, call
from .reference import linear_cross_entropy_reference

if HAS_TRITON:
    from .triton import MAX_WIDTH, linear_cross_entropy_triton


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear head, as `linear_cross_entropy_reference` defines it."""
    if HAS_TRITON and hidden.is_cuda and hidden.shape[-1] <= MAX_WIDTH:
        return call(linear_cross_entropy_triton, hidden, weight, targets)
    return call(linear_cross_entropy_reference, hidden, weight, targets)
