"""Gated linear attention."""

from .fast import gated_linear_attention
from .reference import gated_linear_attention_step

__all__ = ["gated_linear_attention", "gated_linear_attention_step"]
