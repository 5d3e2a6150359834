"""Key-value-sum (Chaudhry, Kulkarni and Pehlevan 2025, section 3): its two forms side by side.

AR names the keys of the values to be added, non-AR the values themselves. The two have the same
lists, answers and lengths, so that what AR lacks is recall.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from .. import words
from ..columns import MIXER, MIXER_NAME, MIXER_OPTIONS, RATE, SEED, SLICE, TASK_SIZES
from ..tasks.key_value_sum import OPERANDS, PAIRS, RECALL, VALUES, best_guess
from .accuracy import accuracies, setting_columns

FORM, TRAINED_ON = "task.form", "train.forms"
"""The columns that `by_form` puts in the place of `RECALL`."""

AR, NON_AR = "AR", "non-AR"
FORMS = {"true": AR, "false": NON_AR}
"""What `RECALL` is where a model is trained on one form alone; else on each of them."""

ONE, EACH = "one form", "both forms"

NOTHING = "without_recall"
"""The column with the accuracy of the best guess that recalls nothing; see `best_guess`."""


def by_form(
    runs: pd.DataFrame, column: str = RECALL, forms: Mapping[str, str] = FORMS
) -> pd.DataFrame:
    """One row a run and form of the task: `FORM` says which, `TRAINED_ON` whether the model was
    trained on it alone, and `test_accuracy` is that of the form: a slice's, of a run on both.
    Empty where the runs are of another task."""
    if column not in runs:
        return runs.head(0).assign(**{FORM: "", TRAINED_ON: ""})
    given = runs[column].map(words.value)
    tables = [runs[given == x].assign(**{FORM: form, TRAINED_ON: ONE}) for x, form in forms.items()]
    for form in forms.values():
        measured = f"{SLICE}{form}.test_accuracy"
        if measured in runs:
            each = runs[~given.isin([*forms]) & runs[measured].notna()]
            each = each.assign(test_accuracy=each[measured])
            tables.append(each.assign(**{FORM: form, TRAINED_ON: EACH}))
    return pd.concat(tables, ignore_index=True).drop(columns=column)


def size_columns(forms: pd.DataFrame) -> list[str]:
    """The columns that tell the settings of `by_form` apart, but for mixer, pairs, form, and how
    many of these a model is trained on: layers, width, and what else varies. An option of the task
    may go with a length, and counts as well."""
    rest = (MIXER, PAIRS, FORM, TRAINED_ON, *TASK_SIZES)
    names = [name for name in setting_columns(forms) if name not in rest]
    options = [name for name in map(str, forms) if name.startswith("task.") and name not in rest]
    return names + [x for x in options if x not in names and forms[x].nunique(dropna=False) > 1]


def at_best_rate(forms: pd.DataFrame) -> pd.DataFrame:
    """One row a setting and seed, from a table of `by_form`: the `accuracy`, held out, the best
    learning rate of the setting, and `NOTHING`, what a guess without recall would have."""
    rows = [
        {**one.setting, SEED: seed, RATE: one.rates[one.best], "accuracy": accuracy}
        for one in accuracies(forms)
        for seed, accuracy in one.held_out.items()
    ]
    found = pd.DataFrame(rows)
    keys = [name for name in found if name in forms and name not in (SEED, RATE)]
    more = [MIXER_NAME, MIXER_OPTIONS, FORM, TRAINED_ON, PAIRS, OPERANDS, VALUES]
    more += size_columns(forms)
    told = forms[list(dict.fromkeys([*keys, *more]))].drop_duplicates(keys)
    found = found.merge(told, on=keys, how="left")
    sizes = zip(found[PAIRS], found[OPERANDS], found[VALUES], strict=True)
    return found.assign(**{NOTHING: [best_guess(*map(int, size)) for size in sizes]})


def main_size(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, object]:
    """The values of the columns `names` that the most rows have; of equals, the first by number."""
    counts = rows.groupby(list(names), dropna=False).size()
    return dict(zip(names, counts.index[int(counts.to_numpy().argmax())], strict=True))


def having(rows: pd.DataFrame, values: Mapping[str, object]) -> pd.DataFrame:
    """The rows with these values; nothing set is a value like any other."""
    for name, x in values.items():
        rows = rows[rows[name].isna() if words.missing(x) else rows[name] == x]
    return rows
