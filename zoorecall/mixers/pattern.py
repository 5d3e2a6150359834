"""Patterns: a mixer a layer, for hybrids such as Mamba2 with attention in a few of its layers.

    {name: pattern, mixers: [mamba2, attention]}                          alternating, Mamba2 first
    {name: pattern, mixers: [mamba2, attention], attention_at: [5, 11]}   attention in these layers

Layers count from 0. Without `attention_at` the mixers are repeated to the depth. With it, the
layers listed have attention, one of the mixers, and the others are repeated over the rest.
The hybrids of "From recall to reasoning" are named by the per cent of their layers that are not
attention: "50", "75", "83" at depth 12, "87.5" at 8. Such a name stands for a list of layers, and a
run's config has the list. A pattern of one mixer is that mixer. Patterns are not nested.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ..columns import pattern_layers
from .base import MixerConfig

SHARES = {"50": 2, "75": 4, "83": 6, "87.5": 8}
"""One layer of so many is attention, the last of each group: 1, 3, 5, ... for 50."""


class PatternConfig(MixerConfig):
    """`mixers` are configs of the other mixers; `mixers/__init__` says which there are."""

    name: Literal["pattern"] = "pattern"
    mixers: tuple[Any, ...] = Field(
        min_length=2, strict=False, description="names or configs of the mixers, in order"
    )
    attention_at: (
        Annotated[tuple[int, ...], Field(strict=False)] | Literal["50", "75", "83", "87.5"] | None
    ) = Field(None, description="the layers of attention, or the per cent of the others")

    def model_post_init(self, context: Any, /) -> None:
        names = [mixer.name for mixer in self.mixers]
        if self.attention_at is not None and names.count("attention") != 1:
            raise ValueError(f"attention_at needs attention once among the mixers {names}")
        at = self.attention_at if isinstance(self.attention_at, tuple) else ()
        if list(at) != sorted(set(at)) or any(layer < 0 for layer in at):
            raise ValueError(
                f"attention_at {list(at)} should be layers in order, each once, from 0"
            )

    @property
    def each(self) -> tuple[MixerConfig, ...]:
        return self.mixers

    @property
    def own_block(self) -> bool:
        return all(mixer.own_block for mixer in self.mixers)

    def with_zoology_options(self, d_model: int) -> "PatternConfig":
        mixers = tuple(mixer.with_zoology_options(d_model) for mixer in self.mixers)
        return self.model_copy(update={"mixers": mixers})

    def at_depth(self, num_layers: int) -> "PatternConfig":
        """With the layers of attention as a list; raises ValueError where they are not there."""
        at = self.attention_at
        if isinstance(at, str):
            every = SHARES[at]
            if num_layers % every:
                raise ValueError(
                    f"attention_at {at} needs num_layers {num_layers} in groups of {every}"
                )
            at = tuple(range(every - 1, num_layers, every))
        if at and at[-1] >= num_layers:
            raise ValueError(
                f"attention_at {list(at)} is beyond the last of num_layers {num_layers}"
            )
        return self.model_copy(update={"attention_at": at})

    def of_layer(self, layer: int, num_layers: int) -> MixerConfig:
        names = [mixer.name for mixer in self.mixers]
        at = self.attention_at if isinstance(self.attention_at, tuple) else None
        return self.mixers[pattern_layers(names, at, num_layers)[layer]]

    def check(self, d_model: int) -> None:
        for mixer in self.mixers:
            mixer.check(d_model)
