"""The tasks, by the name a grid gives them."""

from typing import Annotated

from pydantic import Field

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


__all__ = [
    "TASKS",
    "AnyTaskConfig",
    "Examples",
    "KeyValueSumConfig",
    "MQARConfig",
    "Task",
    "TaskConfig",
    "make_task",
]
