"""What the committed results say of each claim: the table of verdicts in results/README.md.

    python experiments/verdicts.py

Reads every folder of results/ that holds finished runs and writes the table anew, between two
marks; the rest of the page is written by hand. Twice is as once.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zoorecall.claims import CLAIMS, WITH_DROPOUT, sensitivity, verdicts
from zoorecall.claims.evidence import Studies, Verdict
from zoorecall.exits import exit_code
from zoorecall.results import Results
from zoorecall.studies import trained_studies
from zoorecall.tables import markdown

PAGE = Path("results/README.md")
BEGIN, END = "<!-- verdicts: by experiments/verdicts.py -->", "<!-- end of verdicts -->"
BRACKETS = (
    "Accuracies are held out: each seed's is that at the learning rate which is best for the other "
    "seeds. What stands in brackets is, behind an accuracy or a difference of accuracies, the 95 % "
    "t interval of the mean over seeds (paired where seeds are shared; it covers less where seeds "
    "either solve or fail); behind windows, the 95 % t interval of the mean width of a seed's own, "
    "with the room that the steps of the grid leave; behind a share of missed grids, the same by "
    "those widths. A window is given by its inner span, from its first to its last rate that "
    "solves, and its outer one, up to the rates that fail."
)
DROPOUT = (
    "By the same rules, of the runs in which a tenth of the embedding was dropped, as Zoology's "
    "code does by default, but for Mamba. The claims' paper calls its code inspired by Zoology's "
    "and does not say:"
)
SENSITIVITY = (
    "The same verdicts by other readings of the same runs: a task solved from 90 or 99 % on in the "
    "place of 95, each seed left out, and every run by its best evaluation, as if it had stopped "
    "there (empty where a seed is not in the claim's runs):"
)
SHORT = {
    "reproduced": "yes",
    "not reproduced": "no",
    "open (within what was run: no)": "open (no)",
}
PAPERS = "Okpekpe and Orvieto report more than 3,000 runs and about 20,000 GPU-hours on A100s"
RECIPES = {"": CLAIMS, " with dropout": WITH_DROPOUT}
"""The claims by recipe: that of the paper's text, under no name, and that with dropout."""


def written(found: dict[str, Results]) -> str:
    """The verdicts as Markdown tables, what they depend on, and the cost."""
    studies = Studies(found)
    stated, dropped = (table(verdicts(studies, claims)) for claims in RECIPES.values())
    parts = [BRACKETS, stated, DROPOUT, dropped, SENSITIVITY, readings(studies), cost(found)]
    return "\n\n".join(parts)


def readings(studies: Studies) -> str:
    """How the verdicts would be otherwise, one column a reading."""
    rows = [
        row | {"claim": row["claim"] + recipe}
        for recipe, claims in RECIPES.items()
        for row in sensitivity(studies, claims)
    ]
    found = pd.DataFrame(rows)
    last = found.pop("at its best")
    return markdown(found.assign(**{"at its best": last}).replace(SHORT).fillna(""))


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
    PAGE.write_text(renewed(PAGE.read_text(), written(found)))
    for recipe, claims in RECIPES.items():
        for x in verdicts(Studies(found), claims):
            print(f"{x.claim + recipe:<16} {x.verdict:<31} {x.statement}")
    print(f"\nevidence  {PAGE}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
