"""The embedding of tokens."""

from torch import Tensor

from .fast import embedding_spread
from .reference import embedding_reference


def embedding(tokens: Tensor, table: Tensor) -> Tensor:
    """The rows of each run's table, as `reference.embedding_reference` defines them."""
    return (embedding_spread if table.is_cuda else embedding_reference)(tokens, table)
