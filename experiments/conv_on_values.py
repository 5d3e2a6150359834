"""Why attention with a convolution on V alone does not recall here, but may elsewhere.

    python experiments/conv_on_values.py

Okpekpe and Orvieto 2025 (arXiv 2508.19029, table 1) report that it solves the task. A query finds
its key where the key stands, and the value comes one position later: a causal convolution brings
the past to V there, not the value. One that is centred brings it, and this tests whether that
suffices. It is also an example of a mixer of one's own.

Grid: grids/conv_on_values.yaml, trained into results/conv_on_values if nothing of it is there (two
CPU cores, minutes).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoorecall.analysis.ablations import verdicts
from zoorecall.cli import exit_code
from zoorecall.studies import load_study, missing_runs
from zoorecall.tables import print_table, readable


class ConvOnValues(nn.Module):
    """One head of causal attention whose values see three positions: [B, L, D] -> [B, L, D].

    `centred`: the position before, their own and the next one; else their own and two before.
    """

    def __init__(self, d_model: int, centred: bool):
        super().__init__()
        self.reach = (1, 1) if centred else (2, 0)
        self.conv = nn.Conv1d(d_model, d_model, 3, groups=d_model)
        self.qkv = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(3))
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(F.pad(x.mT, self.reach)).mT
        q, k, v = (linear(u)[:, None] for linear, u in zip(self.qkv, (x, x, seen), strict=True))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])


def main() -> None:
    results = load_study("conv_on_values")
    print_table(readable(verdicts(results.runs)))
    print(missing_runs("conv_on_values", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
