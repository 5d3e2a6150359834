"""What papers claim, and what tables say of it: a file a paper; here, all of them."""

from dataclasses import replace

from ..results import Results
from .chaudhry2025 import c12
from .evidence import Studies, Verdict
from .okpekpe2025 import c1, c2, c3, c4, c5, c6, c10
from .okpekpe2025_variants import c7, c8, c9, c11

CLAIMS = (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12)


def verdicts(studies: Studies) -> list[Verdict]:
    """The verdict on every claim."""
    return [claim(studies) for claim in CLAIMS]


def verdicts_with_dropout(studies: Studies) -> list[Verdict]:
    """Those on 2-layer models and learning rates, of runs in which a tenth of the embedding was
    dropped, as Zoology's code does by default; the study, inspired by it, does not say."""
    return [claim(studies, ("embed_dropout",)) for claim in (c1, c2, c3)]


def readings(studies: Studies) -> dict[str, Studies]:
    """Other readings of the same runs, on which no verdict should hang: solved from 90 or 99 % on,
    each seed left out that claims rest on, and every run at its best evaluation, as if it had
    stopped there."""
    grids = {name for claim in CLAIMS for name in claim(Studies({})).grids}
    judged = [studies[name].runs["seed"] for name in sorted(grids & set(studies))]
    seeds = sorted({int(seed) for column in judged for seed in column.unique()})
    found = {f"{100 * x:.0f} %": replace(studies, solved=x) for x in (0.9, 0.99)}
    for seed in seeds:
        found[f"without {seed}"] = replace(studies, results=_without(studies, seed))
    best = {
        name: Results(x.runs.assign(test_accuracy=x.runs["best_test_accuracy"]), x.curves)
        for name, x in studies.items()
    }
    return {**found, "at its best": replace(studies, results=best)}


def _without(studies: Studies, seed: int) -> dict[str, Results]:
    left = {name: x.runs[x.runs["seed"] != seed] for name, x in studies.items()}
    return {name: Results(x, studies[name].curves) for name, x in left.items() if len(x)}
