"""Cross-entropy of a linear head, and whether its first choice is right: the plain torch form.

Shape letters: R runs, M queries of a batch, D width, V vocabulary.
The logits [R, M, V] are the largest tensor of a small model; `linear_cross_entropy_triton` computes
the same without ever storing them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_cross_entropy_reference(
    hidden: Tensor, weight: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss [R, M] of logits = hidden weight^T at the targets, and whether their argmax is right.

    hidden [R, M, D] and weight [R, V, D] share a dtype, in which they are multiplied; the
    log-softmax takes at least float32, which the loss has too. targets [R, M] are int64 in [0, V).
    The second result, correct [R, M], is bool, False where the loss is NaN: a diverged run is
    right nowhere.
    """
    logits = torch.bmm(hidden, weight.mT)  # [R, M, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = loss.view_as(targets)
    return loss, (logits.argmax(-1) == targets) & ~loss.isnan()
