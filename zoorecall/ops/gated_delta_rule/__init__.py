"""The gated delta rule."""

from .fast import gated_delta_rule
from .reference import gated_delta_rule_step

__all__ = ["gated_delta_rule", "gated_delta_rule_step"]
