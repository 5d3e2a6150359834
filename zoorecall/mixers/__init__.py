"""The sequence mixers, by the name a grid gives them."""

from .attention import Attention
from .base import MixerConfig, SequenceMixer

MIXERS: dict[str, type[SequenceMixer]] = {
    "attention": Attention,
}

__all__ = ["MIXERS", "MixerConfig", "SequenceMixer"]
