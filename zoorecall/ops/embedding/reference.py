"""Looking up rows of a table, each run in its own.

Shape letters: R runs, V vocabulary, D width. tokens: [R, ...]; table: [R, V, D].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding_reference(tokens: Tensor, table: Tensor) -> Tensor:
    """table[r, tokens[r, ...]] for every run r: [R, ..., D]."""
    R, V, D = table.shape
    return F.embedding(tokens + first_rows(tokens, V), table.reshape(R * V, D))


def first_rows(tokens: Tensor, V: int) -> Tensor:
    """Where each run's table begins if the tables are stacked, shaped to be added to the tokens."""
    R = tokens.shape[0]
    return torch.arange(R, device=tokens.device).view(R, *(1,) * (tokens.ndim - 1)) * V
