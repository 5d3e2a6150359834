"""Figures: one function each, from tables to a matplotlib figure; `save` writes it.

`KINDS` are those that any results can be drawn as. A mixer has the same colour in all of them. The
figures do not pass through pyplot, so nothing has to be closed, and a notebook shows them as values
of its cells (after `%matplotlib inline`).
"""

from ..analysis.sparse_grids import ZOOLOGY_RATES
from .ablations import ablation_table, against_baseline
from .dynamics import curves_by_kind, training_dynamics
from .errors import what_runs_came_to
from .key_value_sum import recall_by_pairs, recall_by_size
from .kinds import KINDS, figure, selected
from .learning_rates import accuracy_by_learning_rate, accuracy_by_precision
from .published import accuracy_beside_published
from .scaling import (
    accuracy_by_depth,
    accuracy_by_parameters,
    accuracy_by_state_size,
    accuracy_by_width,
)
from .step_cost import step_cost
from .style import FORMATS, WIDTH, save

__all__ = [
    "FORMATS",
    "KINDS",
    "WIDTH",
    "ZOOLOGY_RATES",
    "ablation_table",
    "accuracy_beside_published",
    "accuracy_by_depth",
    "accuracy_by_learning_rate",
    "accuracy_by_parameters",
    "accuracy_by_precision",
    "accuracy_by_state_size",
    "accuracy_by_width",
    "against_baseline",
    "curves_by_kind",
    "figure",
    "recall_by_pairs",
    "recall_by_size",
    "save",
    "selected",
    "step_cost",
    "training_dynamics",
    "what_runs_came_to",
]
