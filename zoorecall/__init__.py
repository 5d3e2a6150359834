"""zoorecall: associative recall of sequence models over dense learning-rate grids.

>>> from zoorecall import load_grid, sweep, load_results
>>> results = sweep(load_grid("grids/quick.yaml"))
>>> results.runs.groupby("mixer")["test_accuracy"].max()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import RunConfig
    from .grid import Grid, load_grid, load_space
    from .model.kept import load_models
    from .reporting import report
    from .results import Results, load_results
    from .sweeps.in_process import train
    from .sweeps.merging import merge
    from .sweeps.sweeper import sweep
    from .sweeps.tuner import tune
    from .version import __version__

_HOME = {
    "Grid": "grid",
    "Results": "results",
    "RunConfig": "config",
    "__version__": "version",
    "load_grid": "grid",
    "load_models": "model.kept",
    "load_results": "results",
    "load_space": "grid",
    "merge": "sweeps.merging",
    "report": "reporting",
    "sweep": "sweeps.sweeper",
    "train": "sweeps.in_process",
    "tune": "sweeps.tuner",
}

__all__ = [
    "Grid",
    "Results",
    "RunConfig",
    "__version__",
    "load_grid",
    "load_models",
    "load_results",
    "load_space",
    "merge",
    "report",
    "sweep",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import zoorecall` stays light."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
