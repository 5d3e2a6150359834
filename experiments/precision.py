"""Does training in bfloat16 change what attention and DeltaNet reach, against float32?

    python experiments/precision.py

Grid: grids/precision.yaml, trained into results/precision if nothing of it is there. Compared are
the seeds and learning rates that both precisions have.
Analysis: zoorecall/analysis/precision.py, which says when a difference is within the seed spread;
its whole table is written to results/precision/comparison.csv.
Figure: results/precision/precision.png and .pdf.
"""

from pathlib import Path

import pandas as pd

from zoorecall.analysis.precision import in_all_precisions, precision_differences
from zoorecall.columns import PRECISION
from zoorecall.exits import exit_code
from zoorecall.files import replacing
from zoorecall.plots import accuracy_by_precision
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table

BRACKETS = (
    "accuracies held out, windows from the first to the last rate that solves; [range of seeds], "
    "behind a difference [95 % t interval], of windows with room for the steps of the grid"
)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison for people: accuracies in per cent and inner spans of seeds' own windows in
    decades with their ranges over seeds, differences with their intervals."""

    def cells(name: str, ends: tuple[str, str], unit: float = 1) -> list[str]:
        numbers = (table[[name, *(name + end for end in ends)]] * unit).to_numpy()
        return [f"{x:.2f} [{low:.2f}, {high:.2f}]" for x, low, high in numbers]

    seeds, interval = ("_min", "_max"), ("_low", "_high")
    return pd.DataFrame(
        {
            "mixer": table["mixer"],
            "precision": table[PRECISION],
            "accuracy, %": cells("accuracy", seeds, 100),
            "fp32 accuracy": cells("reference_accuracy", seeds, 100),
            "difference": cells("accuracy_difference", interval, 100),
            "window, decades": cells("inner", seeds),
            "edge": table["edge"],
            "fp32 window": cells("reference_inner", seeds),
            "fp32 edge": table["reference_edge"],
            "wider by": cells("window_difference", interval),
        }
    )


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """What is within the seed spread, and where the two are furthest apart, in per cent."""
    return pd.DataFrame(
        {
            "mixer": table["mixer"],
            "precision": table[PRECISION],
            "largest difference": [f"{100 * x:.2f}" for x in table["largest_difference"]],
            "seed range there": [f"{100 * x:.2f}" for x in table["largest_range"]],
            "at rate": [f"{x:.1e}" for x in table["largest_rate"]],
            "accuracy within seed spread": table["accuracy_within"],
            "window within": table["window_within"],
            "both": table["within_seed_spread"],
            "rates": table["rates"],
            "seeds": table["seeds"],
        }
    )


def main() -> None:
    results = load_study("precision")
    compared = in_all_precisions(results.runs)
    if len(compared):
        draw("precision", {"precision": accuracy_by_precision(compared)})
        table = precision_differences(compared)
        with replacing(Path("results/precision/comparison.csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        print_table(readable(table))
        print(BRACKETS)
        print_table(verdicts(table))
    print(missing_runs("precision", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
