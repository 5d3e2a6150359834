"""A grid file: YAML to validated runs, and to one line that says what is wrong where.

Text becomes nodes (values that know their line), nodes become settings (a path such as
`train.epochs` and a node). A point is settings that go together, an axis is a list of points. The
points of the product of the axes are laid over the base, broad paths before narrow ones, so that
`model.mixer.num_heads` finds the mixer that `model.mixer` chose. A value that names its choice
(`{name: attention}`) replaces what was there, any other mapping is merged into it.
"""

import difflib
import itertools
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from .config import PRESETS, RunConfig
from .errors import GridError

MAX_RUNS = 1_000_000
SECTIONS = {
    "description": (str, "one sentence: what the grid is for"),
    "preset": (str, "settings of a paper, under the base: " + ", ".join(PRESETS)),
    "base": (dict, "settings of every run"),
    "axes": (dict, "the runs are the product of these, the first axis slowest"),
    "exclude": (list, "drops the runs of the axes that match every setting of an entry"),
    "include": (list, "runs to add: each entry is axes of its own, on the same base"),
}
SPACES = ("linspace", "logspace")

Path_ = tuple[str, ...]
