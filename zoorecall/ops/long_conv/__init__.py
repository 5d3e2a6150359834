"""The long convolution: a filter as long as the sequence."""

from torch import Tensor

from .fast import TOEPLITZ_UP_TO, long_conv_fft, long_conv_toeplitz
from .reference import long_conv_flops, with_skip

__all__ = ["long_conv", "long_conv_flops", "with_skip"]


def long_conv(u: Tensor, h: Tensor) -> Tensor:
    """The long convolution, as `reference.long_conv_direct` defines it."""
    is_short = u.shape[2] <= TOEPLITZ_UP_TO.get(u.device.type, 0)
    return (long_conv_toeplitz if is_short else long_conv_fft)(u, h)
