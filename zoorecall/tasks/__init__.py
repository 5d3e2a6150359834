"""The tasks, by the name a grid gives them."""

from typing import Annotated

from pydantic import Field

from ..columns import TASK_SIZES
from .base import Examples, Task, TaskConfig
from .key_value_sum import KeyValueSum, KeyValueSumConfig
from .mqar import MQAR, MQARConfig

TASKS: dict[str, type[Task]] = {
    "mqar": MQAR,
    "key_value_sum": KeyValueSum,
}

AnyTaskConfig = Annotated[MQARConfig | KeyValueSumConfig, Field(discriminator="name")]


def make_task(config: TaskConfig) -> Task:
    """The task of a config."""
    return TASKS[config.name](config)


def sizes(config: TaskConfig) -> dict[str, int]:
    """The sizes that every task's config tells, by the names of their columns."""
    return {name: getattr(config, name.removeprefix("task.")) for name in TASK_SIZES}


__all__ = [
    "TASKS",
    "AnyTaskConfig",
    "Examples",
    "KeyValueSumConfig",
    "MQARConfig",
    "Task",
    "TaskConfig",
    "make_task",
    "sizes",
]
