"""Sequence operations without parameters: a fast form and a reference of each."""

from .linear_cross_entropy import linear_cross_entropy_reference as linear_cross_entropy

__all__ = ["linear_cross_entropy"]
