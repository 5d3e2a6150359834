"""The delta rule: a linear recurrence that overwrites what its state returns for a key.

    S_t = S_{t-1} + k_t [beta_t (v_t - S_{t-1}^T k_t)]^T,    o_t = S_t^T q_t / sqrt(K)

Schlag et al. 2021 (arXiv 2102.11174, section 4.2); parallel over the length as Yang et al. 2024
(arXiv 2406.06484, section 3). Shape letters: R runs, B batch, L length, H heads, K key dim, V
value dim, C chunk. q, k: [R, B, L, H, K]; v: [R, B, L, H, V]; beta: [R, B, L, H]. Half precision
is computed in float32.

Unlike the published code, a chunk is solved as a triangular system instead of by an inverse (the
UT transform): the inverse as the product (I - A)(I + A^2)(I + A^4)... is exact on paper, but its
powers reach 1e8 where keys repeat, as they do in recall tasks, and float32 loses every digit.
"""

import torch
from einops import rearrange
from torch import Tensor


def delta_rule_recurrent(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The definition, one position after the other: [R, B, L, H, V]."""
    R, B, _, H, K = q.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    state = v.new_zeros(R, B, H, K, v.shape[-1], dtype=wide)
    outputs = []
    for q_t, k_t, v_t, beta_t in zip(*(t.unbind(2) for t in (q, k, v, beta)), strict=True):
        y, state = delta_rule_step(q_t, k_t, v_t, beta_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: o_t [R, B, H, V] in v's dtype and S_t, of tensors without L and S_{t-1}
    [R, B, H, K, V]."""
    dtype = v.dtype
    q, k, v, beta = (t.to(state.dtype) for t in (q, k, v, beta))
    error = v - torch.einsum("...kv,...k->...v", state, k)
    state = state + torch.einsum("...k,...v->...kv", k, beta[..., None] * error)
    y = torch.einsum("...kv,...k->...v", state, q) * q.shape[-1] ** -0.5
    return y.to(dtype), state


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, chunk_size: int = 64) -> Tensor:
    """The same, parallel inside chunks of `chunk_size` positions: [R, B, L, H, V].

    With u_t the value that position t writes, the recurrence inside a chunk is the unit lower
    triangular system u_t + sum_{s<t} beta_t (k_t . k_s) u_s = beta_t (v_t - S^T k_t).
    """
    wide, scale = torch.promote_types(v.dtype, torch.float32), q.shape[-1] ** -0.5
    heads_first = (
        rearrange(t.to(wide), "r b l h d -> r b h l d") for t in (q, k, v, beta[..., None])
    )
    chunks = zip(*(t.split(chunk_size, dim=3) for t in heads_first), strict=True)
    outputs, state = [], None
    for q_c, k_c, v_c, beta_c in chunks:  # [R, B, H, C, ...]
        q_c = q_c * scale
        error = v_c if state is None else v_c - k_c @ state
        system = beta_c * (k_c @ k_c.mT)  # [R, B, H, C, C]; only what is below the diagonal counts
        written = torch.linalg.solve_triangular(
            system, beta_c * error, upper=False, unitriangular=True
        )
        read = (q_c @ k_c.mT).tril() @ written
        outputs.append(read if state is None else read + q_c @ state)
        state = k_c.mT @ written if state is None else state + k_c.mT @ written
    return rearrange(torch.cat(outputs, dim=3), "r b h l d -> r b l h d").to(v.dtype)
