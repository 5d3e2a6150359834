"""Based's polynomial attention."""

from .reference import num_features, taylor_attention

__all__ = ["num_features", "taylor_attention"]
