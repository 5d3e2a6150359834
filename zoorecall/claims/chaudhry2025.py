"""Verdicts on the claims of Chaudhry, Kulkarni and Pehlevan 2025 that the grids test; see `claims`.

C12 has three parts, of which two are judged: that AR is harder than non-AR for every model, and
that pure Mamba2 is worst. That accuracy grows with the share of attention takes hybrids, which
are not run yet.

- AR is *harder* for a model at a size where the interval of AR less non-AR, each at its own best
  learning rate and paired by seed, lies below 0 by more than `CLEARLY`. Where both are at 100 % it
  is not harder at that size.
- It is harder *for a model* if it is at one of the numbers of pairs: the paper's own Llama3 is at
  100 % in both forms of 10 pairs. So that it is not takes all of the paper's numbers to say. One
  that is trained on both forms at once, or on fixed examples, counts as a model of its own.
- Mamba2 is *worst* if it recalls less in AR than every other model of its depth and width, by the
  same rule, at one number of pairs, and if none recalls less than Mamba2 at any.

The paper distils models of 8B parameters from Llama3; here they are small and trained from
scratch. A model that never learns AR counts like any other.
"""

from typing import Any

import pandas as pd

from ..analysis.ablations import ablations
from ..analysis.accuracy import setting_columns
from ..analysis.key_value_sum import AR, FORM, NON_AR, PAIRS, TRAINED_ON, by_form
from ..analysis.three_valued import Row, above, all_of, any_of
from ..columns import DATA, DEPTH, MIXER, WIDTH
from .evidence import Finding, Studies, Verdict, highest, judge, lowest, model, percent, with_room

CLEARLY = 0.01
"""What an accuracy must be lower by, for all of its interval, to be lower."""

HOW = (TRAINED_ON, DATA)
"""How a model was trained, as far as the tables differ in it."""

NUMBERS = (10, 20, 50)
"""The paper's numbers of pairs."""

PURE = "mamba2"


def c12(studies: Studies) -> Verdict:
    grids = ["key_value_sum"]
    tables = [by_form(studies[name].runs) for name in grids if name in studies]
    findings = [_harder(forms) for forms in tables] + [_worst(forms) for forms in tables]
    text = "key-value-sum: AR is harder than non-AR for every model, and pure Mamba2 is worst"
    text += "; that attention's share decides is not judged, as hybrids are not run"
    return judge("C12", text, findings, grids, studies)


def _harder(forms: pd.DataFrame) -> Finding:
    """Whether AR is harder than non-AR for every model."""
    rows = _differences(forms, FORM, NON_AR)
    if rows.empty:
        return Finding(None, "no model is run in both forms")
    found, words, refuted = [], [], []
    for _, sizes in _by_model(rows):
        harder = any_of(_lower(row) for row in sizes.to_dict("records"))
        found.append(harder)
        refuted.append(harder is False and not _left(sizes))
        left = _not_run(sizes) if harder is False else ""
        words.append(_most(lowest(sizes, "difference")) + left)
    text = f"AR less non-AR, the most: {', '.join(words)}"
    return Finding(all_of(found), text, any(refuted))


def _worst(forms: pd.DataFrame) -> Finding:
    """Whether Mamba2 recalls less than every other model."""
    rows = _differences(forms[forms[FORM] == AR], MIXER, PURE)
    if rows.empty:
        return Finding(None, f"{PURE} and other models are not run in AR")
    found, words, refuted = [], [], []
    for _, sizes in _by_model(rows):
        records = sizes.to_dict("records")
        below = any(_lower(row) for row in records)
        more = any_of(above(row, "difference", CLEARLY) for row in records)
        found.append(False if below else more)
        refuted.append(below or (more is False and not _left(sizes)))
        words.append(_most((lowest if below else highest)(sizes, "difference")))
    text = f"others less {PURE} in AR, the most: {', '.join(words)}"
    return Finding(all_of(found), text, any(refuted))


def _differences(forms: pd.DataFrame, column: str, baseline: str) -> pd.DataFrame:
    """Each setting's difference from its baseline, which has the value `baseline` in `column`; none
    of the baselines, nor of settings without one. The interval has room for what learning rates
    beyond the grid's edge could add. One seed does not count where other settings have several."""
    found = []
    for number, runs in forms.groupby(PAIRS) if PAIRS in forms else ():
        columns = setting_columns(runs)
        if column not in columns or baseline not in set(runs[column]):
            continue
        keys = [name for name in columns if name != column]
        table = ablations(runs, {column: baseline}).dropna(subset="difference")
        baselines = {
            tuple(row[key] for key in keys): row
            for row in table[table["is_baseline"]].to_dict("records")
        }
        for row in table[~table["is_baseline"]].to_dict("records"):
            one = with_room(row, baselines[tuple(row[key] for key in keys)])
            found.append({**runs[[x for x in HOW if x in runs]].iloc[0], **one, PAIRS: number})
    several = [row for row in found if row["seeds"] > 1]
    return pd.DataFrame(several or found)


def _by_model(rows: pd.DataFrame) -> Any:
    """The rows of each model, as it was trained."""
    return rows.groupby([MIXER, DEPTH, WIDTH, *(name for name in HOW if name in rows)])


def _lower(row: Row) -> bool | None:
    """Whether a difference is clearly below 0."""
    if row["difference_high"] < -CLEARLY:
        return True
    return False if row["difference_low"] >= -CLEARLY else None


def _left(sizes: pd.DataFrame) -> list[int]:
    return [number for number in NUMBERS if number not in set(sizes[PAIRS])]


def _not_run(sizes: pd.DataFrame) -> str:
    left = ", ".join(map(str, _left(sizes)))
    return f" (within what was run: no, but {left} pairs are not run)" if left else ""


def _most(row: Row) -> str:
    """`2-layer mamba2 -39.4 % [-55.7, -10.0] of 20 pairs (one form)`."""
    how = ", ".join(str(row[name]) for name in HOW if name in row)
    return f"{model(row)} {percent(row, 'difference')} of {row[PAIRS]} pairs ({how})"
