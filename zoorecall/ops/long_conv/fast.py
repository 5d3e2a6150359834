"""The long convolution by FFT, and by a Toeplitz matrix. See `reference` for the definition.

Milliseconds forward and backward in float32 on one core, sizes (R, B, C):

    L                     32      64      96     128     256
    (4, 64, 32)   fft     3.6    10.6    15.4    22.5    46.7
             toeplitz     1.9     6.9    15.0    27.2   173.8
    (4, 128, 64)  fft    17.6    66.0    99.0     303     584
             toeplitz     9.3    25.2    50.4    87.3     477

On one H100 in bfloat16, not compiled, FFT against Toeplitz: 4.18 against 1.39 at L 256 (2, 256,
256), and 2.16 against 7.50 at L 1024 (4, 64, 64).
"""

import torch
from torch import Tensor

TOEPLITZ_UP_TO = {"cpu": 64, "cuda": 256}
"""The length up to which the Toeplitz product was the faster form."""


def long_conv_fft(u: Tensor, h: Tensor) -> Tensor:
    """O(L log L), in at least float32: there is no FFT of half precision for every length."""
    L, dtype = u.shape[2], torch.promote_types(u.dtype, torch.float32)
    # twice the length, so that the end does not wrap around to the start
    u_f = torch.fft.rfft(u.to(dtype).transpose(2, 3), n=2 * L)  # [R, B, C, L + 1]
    h_f = torch.fft.rfft(h.to(dtype).transpose(1, 2), n=2 * L).unsqueeze(1)
    return torch.fft.irfft(u_f * h_f, n=2 * L)[..., :L].transpose(2, 3).to(u.dtype)


def long_conv_toeplitz(u: Tensor, h: Tensor) -> Tensor:
    """O(L^2), but a matrix product, and in half precision one of half precision."""
    return torch.einsum("rcts,rbsc->rbtc", toeplitz(h.to(u.dtype)), u)


def toeplitz(h: Tensor) -> Tensor:
    """The lower triangular matrices T[t, s] = h[t - s] of filters: [R, L, C] -> [R, C, L, L].

    A row of 2L + 1 numbers repeated and cut again one number shorter moves on by one in each row
    (and where 2L is a multiple of 8, GPUs read rows at full width). Its gradient is a sum over
    rows, which is faster than scattering and gives the same bytes each time.
    """
    R, L, C = h.shape
    row = torch.cat([h[:, :1], h.new_zeros(R, L + 1, C), h[:, 1:].flip(1)], dim=1)  # [R, 2L + 1, C]
    repeated = row.mT.unsqueeze(2).expand(R, C, L, 2 * L + 1).flatten(2)
    return repeated[..., : L * 2 * L].view(R, C, L, 2 * L)[..., :L]
