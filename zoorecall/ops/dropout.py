"""Dropout whose mask is a function of a key and a number's place, with no state anywhere: what a
run drops depends neither on its pack nor on where it was interrupted.

Srivastava et al. 2014, section 4, with the factor in training. Words are 32 bits in int64, which
every product here fits.
"""

import math

import torch
from torch import Tensor

WORDS = 2**32


def mix(words: Tensor) -> Tensor:
    """A bijection of the words of which every bit of the result depends on every bit: shifts and
    products by turns, as in the finalizer of MurmurHash3."""
    words = (words ^ (words >> 16)) * 0x21F0AAAD & (WORDS - 1)
    words = (words ^ (words >> 15)) * 0x735A2D97 & (WORDS - 1)
    return words ^ (words >> 15)


def dropout(x: Tensor, rate: float, keys: Tensor) -> Tensor:
    """x [R, ...], of each run a share `rate` set to 0 and the rest divided by 1 - rate; which ones,
    `keys` [R] decide, a word a run."""
    places = torch.arange(math.prod(x.shape[1:]), device=x.device).view(x.shape[1:])
    drawn = mix(mix(places) ^ keys.view(-1, *(1 for _ in x.shape[1:])))
    return torch.where(drawn < round(rate * WORDS), 0.0, x / (1 - rate))
