"""The sequence mixers, by the name a grid gives them; `package.module:Class` is a user's own."""

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from .attention import Attention
from .base import MixerConfig, SequenceMixer
from .base_conv import BaseConv
from .based import Based
from .custom import Custom, CustomConfig
from .delta_net import DeltaNet
from .gated_delta_net import GatedDeltaNet
from .gla import GLA
from .h3 import H3
from .hyena import Hyena
from .mamba import S6, Mamba
from .mamba2 import Mamba2
from .pattern import PatternConfig
from .rwkv import RWKV

MIXERS: dict[str, type[SequenceMixer]] = {
    "attention": Attention,
    "based": Based,
    "base_conv": BaseConv,
    "h3": H3,
    "hyena": Hyena,
    "rwkv": RWKV,
    "mamba": Mamba,
    "s6": S6,
    "mamba2": Mamba2,
    "delta_net": DeltaNet,
    "gated_delta_net": GatedDeltaNet,
    "gla": GLA,
}


def make_mixer(
    config: MixerConfig,
    d_model: int,
    seq_len: int,
    num_layers: int,
    layer: int,
    as_zoology: bool = False,
) -> SequenceMixer:
    """Build the mixer of layer `layer` for one run, its weights from torch's global generator;
    `as_zoology`, see `ModelConfig.initial_weights`."""
    own_block, config = config.own_block, config.of_layer(layer, num_layers)
    if isinstance(config, CustomConfig):
        return Custom(config, d_model, seq_len, num_layers, layer)
    mixer = MIXERS[config.name](config, d_model, seq_len, num_layers)
    if as_zoology and config.redrawn_by_zoology:
        mixer.draw_as_zoology(num_layers, own_block)
    mixer.start_as(layer)
    return mixer


def _tag(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "custom" if isinstance(name, str) and ":" in name else name


def _from_name(value: Any) -> Any:
    """A name alone stands for its config, a pattern of one mixer for that mixer."""
    if isinstance(value, dict) and value.get("name") == "pattern":
        mixers = value.get("mixers")
        if isinstance(mixers, list | tuple) and len(mixers) == 1 and len(value) == 2:
            return _from_name(mixers[0])
    return {"name": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    AnyMixerConfig = MixerConfig
else:  # made from the registry, which a type checker cannot follow
    choices = [Annotated[mixer.Config, Tag(name)] for name, mixer in MIXERS.items()]
    choices.append(Annotated[CustomConfig, Tag("custom")])

    def _one_of(choices: list) -> Any:
        return Annotated[
            functools.reduce(operator.or_, choices),
            Discriminator(_tag),
            BeforeValidator(_from_name, json_schema_input_type=Any),
        ]

    class Pattern(PatternConfig):
        mixers: tuple[_one_of(choices), ...] = Field(
            min_length=2, strict=False, description=PatternConfig.model_fields["mixers"].description
        )

    AnyMixerConfig = _one_of([*choices, Annotated[Pattern, Tag("pattern")]])

__all__ = [
    "MIXERS",
    "AnyMixerConfig",
    "CustomConfig",
    "MixerConfig",
    "PatternConfig",
    "SequenceMixer",
    "make_mixer",
]
