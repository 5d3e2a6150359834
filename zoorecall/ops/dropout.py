"""Dropout whose mask is a function of a key and an element's place, with no state anywhere: what a
run drops depends neither on its pack nor on where it was interrupted.

Srivastava et al. 2014, section 4, scaled in training instead of in evaluation. A word is 32 bits,
held in an int64 so that no product overflows.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

WORDS = 2**32


def mix(words: Tensor) -> Tensor:
    """A bijection of words in which every output bit depends on every input bit, by alternating
    shifts and products, as in the finalizer of MurmurHash3."""
    words = (words ^ (words >> 16)) * 0x21F0AAAD & (WORDS - 1)
    words = (words ^ (words >> 15)) * 0x735A2D97 & (WORDS - 1)
    return words ^ (words >> 15)


class Dropped(NamedTuple):
    """What is dropped: a share of each run's elements; `keys` [R], a word a run, decides which."""

    rate: float
    keys: Tensor

    def of_layer(self, layer: int) -> "Dropped":
        """The same share of other elements in each layer, counted from 0."""
        return Dropped(self.rate, mix(self.keys ^ (layer + 1)))


def dropout(x: Tensor, rate: float, keys: Tensor) -> Tensor:
    """x [R, ...] with a share `rate` of each run's elements set to 0 and the others divided by
    1 - rate. `keys` [R], a word a run, decides which."""
    places = torch.arange(math.prod(x.shape[1:]), device=x.device).view(x.shape[1:])
    drawn = mix(mix(places) ^ keys.view(-1, *(1 for _ in x.shape[1:])))
    return torch.where(drawn < round(rate * WORDS), 0.0, x / (1 - rate))
