"""Which form of an operation runs: on a GPU a Triton kernel, if Triton is installed and the sizes
fit it, else plain torch. The choice changes speed, never results.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from . import selective_scan as plain_scan
from .linear_cross_entropy import linear_cross_entropy_reference

HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None

if HAS_TRITON:
    from .linear_cross_entropy_triton import MAX_WIDTH, linear_cross_entropy_triton
    from .selective_scan_triton import selective_scan_triton


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """Mamba's selective scan, as `selective_scan.selective_scan_recurrent` defines it."""
    if HAS_TRITON and u.is_cuda and A.shape[-1] <= 64:
        return selective_scan_triton(u, delta, A, B, C, D)
    return plain_scan.selective_scan(u, delta, A, B, C, D)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear head, as `linear_cross_entropy_reference` defines it."""
    if HAS_TRITON and hidden.is_cuda and hidden.shape[-1] <= MAX_WIDTH:
        return linear_cross_entropy_triton(hidden, weight, targets)
    return linear_cross_entropy_reference(hidden, weight, targets)


def kernels(device: torch.device) -> str:
    """What the operations that have a choice run as on this device, for the record of a run."""
    if device.type == "cpu":
        return "torch"
    return "triton, compiled, captured" if HAS_TRITON else "compiled, captured"
