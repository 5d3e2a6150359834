"""The embedding of tokens."""

from .reference import embedding

__all__ = ["embedding"]
