"""Why attention with a convolution on V alone does not recall here, but may elsewhere.

    python experiments/conv_on_values.py

Okpekpe and Orvieto 2025 (arXiv 2508.19029, table 1) report that it solves the task. A query finds
its key where the key stands, and the value comes one position later: a causal convolution brings
the past to V there, not the value. One that is centred brings it, and this tests whether that
suffices. The mixer, `centred_conv.py`, is also an example of one of one's own.

Grid: grids/conv_on_values.yaml, trained into results/conv_on_values if nothing of it is there (two
CPU cores, minutes).
"""

from zoorecall.analysis.ablations import verdicts
from zoorecall.exits import exit_code
from zoorecall.studies import load_study, missing_runs
from zoorecall.tables import print_table, readable


def main() -> None:
    results = load_study("conv_on_values")
    print_table(readable(verdicts(results.runs)))
    print(missing_runs("conv_on_values", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
