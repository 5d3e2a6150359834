"""A mixer or a task is added by its file, two lines of the registry and its oracle.

The toys of `tests/toys` are added so to a copy of the repository, in which the tests that run over
the registries are then run for them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests/toys"

MADE = """
import json, runpy, sys
from pathlib import Path
from zoorecall.config import current_defaults
from zoorecall.grid import grid_schema

Path("zoorecall/defaults.json").write_text(json.dumps(current_defaults(), indent=1) + "\\n")
Path("grids/grid.schema.json").write_text(json.dumps(grid_schema(), indent=1) + "\\n")
runpy.run_path("docs/mixers.py", run_name="__main__")

import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
"""What `make schema` does, and then tests."""

FOR_ALL = ("mixers", "tasks", "grid", "test_both.py", "test_columns.py", "test_docs.py")
"""Where tests run over the registries, or over what is made from them."""


def add(text: str, import_line: str, registry: str, entry: str) -> str:
    """A package's `__init__` with one more in its registry."""
    assert text.count(registry) == 1
    imports, rest = text.split(registry)
    return imports.replace("from .base", f"{import_line}\nfrom .base", 1) + registry + entry + rest


def copy_with_toys(folder: Path) -> None:
    """The repository without its results, with the toys in their places."""
    for name in ("zoorecall", "tests", "docs", "grids", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    shutil.copy(TOYS / "mixer.py", folder / "zoorecall/mixers/running_mean.py")
    shutil.copy(TOYS / "mixer_oracle.py", folder / "tests/mixers/test_running_mean.py")
    shutil.copy(TOYS / "task.py", folder / "zoorecall/tasks/echo.py")
    shutil.copy(TOYS / "task_oracle.py", folder / "tests/tasks/test_echo.py")
    shutil.copy(TOYS / "both.py", folder / "tests/test_both.py")
    mixers, tasks = (folder / f"zoorecall/{kind}/__init__.py" for kind in ("mixers", "tasks"))
    line, entry = "from .running_mean import RunningMean", '\n    "running_mean": RunningMean,'
    registry = "MIXERS: dict[str, type[SequenceMixer]] = {"
    mixers.write_text(add(mixers.read_text(), line, registry, entry))
    line, entry = "from .echo import Echo", '\n    "echo": Echo,'
    tasks.write_text(add(tasks.read_text(), line, "TASKS: dict[str, type[Task]] = {", entry))


def test_a_toy_of_each_works_wherever_mixers_and_tasks_do(tmp_path):
    copy_with_toys(tmp_path)
    command = [sys.executable, "-c", MADE, "-q", "-p", "no:cacheprovider", "--assert=plain"]
    command += ["-k", "running_mean or echo or recorded or made_from"]
    command += [f"tests/{name}" for name in FOR_ALL]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
