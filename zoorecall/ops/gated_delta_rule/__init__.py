"""The gated delta rule."""

from .reference import gated_delta_rule

__all__ = ["gated_delta_rule"]
