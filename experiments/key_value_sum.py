"""Recall beside arithmetic alone: key-value-sum of Chaudhry, Kulkarni and Pehlevan 2025, section 3.

    python experiments/key_value_sum.py

AR names the keys whose values are to be added, non-AR the values themselves. Prints the accuracy
of every mixer at its best learning rate in both, by the number of pairs; of runs that are trained
on both forms, that of either slice.

Grid: grids/key_value_sum.yaml, trained into results/key_value_sum if nothing of it is there (hours
of a GPU; its README says which parts). Where it is trained, grids/key_value_sum_small.yaml, of a
size for CPUs, is a second study. Figures, in the folder of each as .png and .pdf: recall, both
forms against the number of pairs; sizes, AR by operands, depth, width and whatever else varies.
"""

import pandas as pd

from zoorecall import words
from zoorecall.analysis.key_value_sum import (
    FORM,
    FORMS,
    NOTHING,
    ONE,
    PAIRS,
    TRAINED_ON,
    at_best_rate,
    by_form,
    size_columns,
)
from zoorecall.columns import MIXER, RATE, name
from zoorecall.exits import exit_code
from zoorecall.plots import recall_by_pairs, recall_by_size
from zoorecall.studies import draw, is_trained, load_study, missing_runs
from zoorecall.tables import print_table, readable

STUDIES = ("key_value_sum", "key_value_sum_small")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a mixer and size, a column a form of the task: of `at_best_rate`, the mean over seeds
    with their range, and the learning rate."""

    def cell(of: pd.DataFrame) -> str:
        x, rate = of["accuracy"], words.rate(of[RATE].iloc[0])
        several = f" [{x.min():.2f}, {x.max():.2f}]" if len(x) > 1 else " (one seed)"
        return f"{x.mean():.2f}{several} at {rate}"

    keys = [*size_columns(rows), PAIRS, MIXER, NOTHING]
    cells = {key: cell(of) for key, of in rows.groupby([*keys, FORM, TRAINED_ON], dropna=False)}
    names = [*keys, FORM, TRAINED_ON]
    found = pd.Series(cells).rename_axis(names).unstack([FORM, TRAINED_ON])
    found.columns = [form if of == ONE else f"{form}, of {of}" for form, of in found.columns]
    return found.fillna("").reset_index().rename(columns=name)


def main() -> None:
    for study in STUDIES:
        if study != STUDIES[0] and not is_trained(study):
            continue
        results = load_study(study)
        rows = at_best_rate(by_form(results.runs))
        figures = {"recall": recall_by_pairs(rows)}
        if (rows[FORM] == next(iter(FORMS.values()))).any():
            figures["sizes"] = recall_by_size(rows)
        draw(study, figures)
        print_table(readable(table(rows)))
        print("held out: each seed's at the rate that is best for the others; [range of seeds]")
        print(missing_runs(study, results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
