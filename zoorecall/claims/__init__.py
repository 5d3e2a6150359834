"""What papers claim, and what tables say of it: a file a paper; here, all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ..results import Results
from .chaudhry2025 import c12
from .evidence import Studies, Verdict
from .okpekpe2025 import c1, c2, c3, c4, c5, c6, c10, c18, c19
from .okpekpe2025_variants import c7, c8, c9, c11, c16

Claim = Callable[[Studies], Verdict]

CLAIMS: tuple[Claim, ...] = (
    *(c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12),
    *(c16, c18, c19),
)

WITH_DROPOUT: tuple[Claim, ...] = tuple(partial(x, grids=("embed_dropout",)) for x in (c1, c2, c3))
"""Those on 2-layer models and learning rates, of runs in which a tenth of the embedding was
dropped, as Zoology's code does by default; the study, inspired by it, does not say."""


def verdicts(studies: Studies, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """The verdict on every claim."""
    return [claim(studies) for claim in claims]


def sensitivity(studies: Studies, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, str]]:
    """A row a claim: its verdict, and what it would be by other readings of the same runs, on
    which none should hang; see `readings`."""
    rows = []
    for claim in claims:
        stated = claim(studies)
        used = {name: studies[name] for name in stated.grids if name in studies}
        others = readings(replace(studies, results=used))
        row = {"claim": stated.claim, f"{100 * studies.solved:.0f} %": stated.verdict}
        rows.append(row | {name: claim(other).verdict for name, other in others.items()})
    return rows


def readings(studies: Studies) -> dict[str, Studies]:
    """The same runs, solved from 90 or 99 % on; with each seed left out; and with every run at its
    best evaluation, as if it had stopped there."""
    found = {f"{100 * x:.0f} %": replace(studies, solved=x) for x in (0.9, 0.99)}
    for seed in sorted({int(x) for study in studies.values() for x in study.runs["seed"].unique()}):
        left = {name: x.runs[x.runs["seed"] != seed] for name, x in studies.items()}
        kept = {name: Results(x, studies[name].curves) for name, x in left.items() if len(x)}
        found[f"without {seed}"] = replace(studies, results=kept)
    best = {
        name: Results(x.runs.assign(test_accuracy=x.runs["best_test_accuracy"]), x.curves)
        for name, x in studies.items()
    }
    return {**found, "at its best": replace(studies, results=best)}
