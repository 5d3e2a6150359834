"""What the committed results say of each claim: the table of verdicts in results/README.md.

    python experiments/verdicts.py

Reads every folder of results/ that holds finished runs and writes the table anew, between two
marks; the rest of the page is written by hand. Twice is as once.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zoorecall.claims import verdicts, verdicts_with_dropout
from zoorecall.claims.evidence import Verdict
from zoorecall.cli import exit_code
from zoorecall.results import Results
from zoorecall.studies import trained_studies
from zoorecall.tables import markdown

PAGE = Path("results/README.md")
BEGIN, END = "<!-- verdicts: by experiments/verdicts.py -->", "<!-- end of verdicts -->"
DROPOUT = (
    "By the same rules, of the runs in which a tenth of the embedding was dropped, as Zoology's "
    "code does by default. The claims' paper calls its code inspired by Zoology's and does not say:"
)
BEST = "A run counts by its last evaluation. By its best, as if it had stopped there, "
PAPERS = "Okpekpe and Orvieto report more than 3,000 runs and about 20,000 GPU-hours on A100s"


def judged(found: dict[str, Results]) -> dict[str, list[Verdict]]:
    """The verdicts by recipe: that of the paper's text, under no name, and that with dropout."""
    return {"": verdicts(found), " with dropout": verdicts_with_dropout(found)}


def written(found: dict[str, Results], of: dict[str, list[Verdict]]) -> str:
    """The verdicts as Markdown tables, whether they depend on when runs stop, and the cost."""
    stated, dropped = of.values()
    return "\n\n".join([table(stated), DROPOUT, table(dropped), by_best(found, of), cost(found)])


def by_best(found: dict[str, Results], of: dict[str, list[Verdict]]) -> str:
    """Which verdicts would be others if each run had stopped at its best evaluation."""
    best = {
        name: Results(x.runs.assign(test_accuracy=x.runs["best_test_accuracy"]), x.curves)
        for name, x in found.items()
    }
    changed = [
        f"{x.claim}{recipe} is {y.verdict}"
        for recipe, others in judged(best).items()
        for x, y in zip(of[recipe], others, strict=True)
        if x.verdict != y.verdict
    ]
    return BEST + (", ".join(changed) or "every verdict is the same") + "."


def table(of: Sequence[Verdict]) -> str:
    rows = [(x.claim, x.statement, f"**{x.verdict}**", x.evidence, ", ".join(x.grids)) for x in of]
    columns = ["claim", "in short", "verdict", "evidence", "grids"]
    return markdown(pd.DataFrame(rows, columns=columns))


def cost(found: dict[str, Results]) -> str:
    runs = pd.concat([results.runs[["device", "seconds"]] for results in found.values()])
    runs = runs[runs["device"].str.startswith("NVIDIA")]
    hours = runs["seconds"].sum() / 3600
    devices = " and ".join(f"{n} on {name}" for name, n in runs["device"].value_counts().items())
    return (
        f"Runs so far: {len(runs)}, {devices}. Their `seconds` add up to {hours:.2f} hours, which "
        "counts a GPU once for each of the packs that shared it; the wall-clock hours stand in the "
        f"README of each folder. {PAPERS}."
    )


def renewed(page: str, new: str) -> str:
    """The page with what stands between its marks replaced; raises ValueError without marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the table: {PAGE} should have the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def main() -> None:
    found = trained_studies()
    of = judged(found)
    PAGE.write_text(renewed(PAGE.read_text(), written(found, of)))
    for recipe, verdicts_of_it in of.items():
        for x in verdicts_of_it:
            print(f"{x.claim + recipe:<16} {x.verdict:<15} {x.statement}")
    print(f"\nevidence  {PAGE}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
