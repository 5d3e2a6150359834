"""Grid files: a YAML file with a base and axes becomes the runs of a sweep."""

from .expand import Grid, load_grid
from .schema import grid_schema

__all__ = ["Grid", "grid_schema", "load_grid"]
