"""The delta rule in parallel inside chunks, as in Yang et al. 2024 (arXiv 2406.06484, section 3).

See `reference` for the definition and shapes; C is a chunk's length.

Unlike the published code, a chunk is solved as a triangular system instead of by an inverse (the
UT transform): the inverse as the product (I - A)(I + A^2)(I + A^4)... is exact on paper, but its
powers reach 1e8 where keys repeat, as they do in recall tasks, and float32 loses every digit.
"""

import torch
from einops import rearrange
from torch import Tensor


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, chunk_size: int = 64) -> Tensor:
    """The definition, parallel inside chunks of `chunk_size` positions: [R, B, L, H, V].

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
