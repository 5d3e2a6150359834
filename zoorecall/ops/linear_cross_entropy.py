"""Cross-entropy of a linear head, each run with its own weights."""

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_cross_entropy_reference(
    hidden: Tensor, weight: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """hidden [R, M, D], weight [R, V, D], targets [R, M] -> the cross-entropy in nats [R, M],
    float32 or better, and whether the most likely token is the target, bool [R, M]."""
    logits = torch.bmm(hidden, weight.mT)  # [R, M, V]
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return loss.view_as(targets), logits.argmax(-1) == targets
