"""The tasks, by the name a grid gives them."""

import functools
import operator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..columns import TASK_SIZES
from . import key_value_sum, mqar
from .base import Examples, Task, TaskConfig
from .key_value_sum import KeyValueSum
from .mqar import MQAR

TASKS: dict[str, type[Task]] = {
    "mqar": MQAR,
    "key_value_sum": KeyValueSum,
}

PAIRS = (mqar.PAIRS, key_value_sum.PAIRS)
"""The columns that count the pairs of an example."""

if TYPE_CHECKING:
    AnyTaskConfig = TaskConfig
else:  # made from the registry, which a type checker cannot follow
    AnyTaskConfig = Annotated[
        functools.reduce(operator.or_, (task.Config for task in TASKS.values())),
        Field(discriminator="name"),
    ]


def make_task(config: TaskConfig) -> Task:
    """The task of a config."""
    return TASKS[config.name](config)


@functools.cache
def check_splits(config: TaskConfig) -> None:
    """Raise ValueError where a config allows so few examples that a split has none."""
    make_task(config).check_splits()


def sizes(config: TaskConfig) -> dict[str, int]:
    """The sizes that every task's config tells, by the names of their columns."""
    return {name: getattr(config, name.removeprefix("task.")) for name in TASK_SIZES}


__all__ = [
    "PAIRS",
    "TASKS",
    "AnyTaskConfig",
    "Examples",
    "Task",
    "TaskConfig",
    "check_splits",
    "make_task",
    "sizes",
]
