"""Grid files: a YAML file with a base and axes becomes the runs of a sweep, or what to search."""

from .expand import Grid, load_grid
from .ranges import Range
from .schema import grid_schema
from .space import Searched, Space, load_space

__all__ = ["Grid", "Range", "Searched", "Space", "grid_schema", "load_grid", "load_space"]
