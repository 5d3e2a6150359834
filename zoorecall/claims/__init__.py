"""What papers claim, and what tables say of it: a file a paper; here, all of them."""

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
