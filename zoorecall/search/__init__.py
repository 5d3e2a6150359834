"""Searches: which runs of a grid with ranges to train next, and which to end early.

Nothing here trains. Whoever does asks for runs, tells what they come to at their evaluations and at
their end, and ends those that are not worth going on.
"""

from .pruners import PRUNERS
from .samplers import SAMPLERS
from .search import Answer, Search
from .storage import JOURNAL

__all__ = ["JOURNAL", "PRUNERS", "SAMPLERS", "Answer", "Search"]
