"""The long convolution: a filter as long as the sequence."""

from .reference import long_conv, long_conv_flops, with_skip

__all__ = ["long_conv", "long_conv_flops", "with_skip"]
