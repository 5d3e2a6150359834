"""zoorecall: associative recall of sequence models over dense learning-rate grids.

>>> from zoorecall import load_grid, sweep, load_results
>>> results = sweep(load_grid("grids/quick.yaml"))
>>> results.runs.groupby("mixer")["test_accuracy"].max()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .grid import Grid, load_grid
    from .results import Results, load_results
    from .sweeper import sweep

__version__ = "0.1.0"

_HOME = {
    "Grid": "grid",
    "Results": "results",
    "load_grid": "grid",
    "load_results": "results",
    "sweep": "sweeper",
}

__all__ = ["Grid", "Results", "load_grid", "load_results", "sweep"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import zoorecall` stays light."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
