"""Based's polynomial attention."""

from .fast import taylor_attention
from .reference import num_features, taylor_attention_step

__all__ = ["num_features", "taylor_attention", "taylor_attention_step"]
