"""The house of the package: imports go down its floors, and what is one file's stays there."""

import ast
import inspect
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import torch

import zoorecall
from zoorecall.config import ModelConfig, RunConfig, TrainConfig
from zoorecall.mixers import MIXERS
from zoorecall.tasks import TASKS

PACKAGE = Path(zoorecall.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    "errors search_path seeding version",
    "arguments columns exits files",
    "ops user_code words",
    "checkpoints layers parquet tables tasks",
    "mixers results",
    "analysis config listing",
    "claims grid model plots",
    "reporting search training",
    "sweeps",
    "bench loggers show",
    "display",
    "studies",
    "cli __init__",
)
"""The rooms from the ground up; each imports only from rooms below its own floor."""

OF_TABLES = ("analysis", "claims", "plots", "reporting", "tables", "words")
OF_TRAINING = ("layers", "mixers", "model", "ops", "sweeps", "training")


def module_of(path: Path) -> tuple[str, ...]:
    """`zoorecall.ops.ssd.fast` in parts; a package's `__init__` is the package."""
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of this package that a file imports, wherever in it it does."""
    package = module_of(path) if path.stem == "__init__" else module_of(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            named = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for module in named:
            if module[0] == PACKAGE.name:
                yield module if module in MODULES else module[:-1]


def room(module: tuple[str, ...]) -> str:
    return module[1] if len(module) > 1 else "__init__"


def arrows() -> set[tuple[str, str]]:
    """Which room imports from which other."""
    found = {(room(m), room(other)) for m, path in MODULES.items() for other in imports(path)}
    return {(one, other) for one, other in found if one != other}


def test_every_room_has_a_floor():
    assert {*" ".join(FLOORS).split()} ^ {room(module) for module in MODULES} == set()


def test_no_arrow_goes_upwards():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    assert [(one, other) for one, other in sorted(arrows()) if floor[one] <= floor[other]] == []


def test_no_file_imports_itself_by_way_of_others():
    """Raises CycleError, which names the circle."""
    TopologicalSorter({module: imports(path) for module, path in MODULES.items()}).prepare()


def test_training_knows_no_files_and_tables_no_training():
    walls = [("training", other) for other in ("files", "results", "sweeps")]
    walls += [(one, other) for one in OF_TABLES for other in OF_TRAINING]
    assert sorted(arrows() & {*walls}) == []


def test_an_operation_is_a_folder_with_the_same_names():
    """Its definition stands on definitions alone, of which dropout is one without a folder."""
    for folder in (path for path in (PACKAGE / "ops").iterdir() if (path / "__init__.py").exists()):
        files = {path.stem for path in folder.glob("*.py")}
        assert {"__init__", "reference"} <= files, folder.name
        assert files <= {"__init__", "reference", "fast", "triton", "triton_chunks", "fla"}
        found = {module[-1] for module in imports(folder / "reference.py")}
        assert found <= {"reference", "dropout"}, folder.name


OPTIONS: dict[str, set[Path]] = {}
"""Each option that only some tasks or mixers have, and the files of those that do."""

for _kind in (*MIXERS.values(), *TASKS.values()):
    for _option in _kind.Config.model_fields:
        OPTIONS.setdefault(_option, set()).add(Path(inspect.getfile(_kind.Config)))
for _known in (  # what every task tells, and what is a model's or a training's too
    {"name", "seq_len", "vocab_size", "num_queries"},
    *(config.model_fields for config in (RunConfig, ModelConfig, TrainConfig)),
):
    for _option in _known:
        OPTIONS.pop(_option, None)

LABELS = PACKAGE / "claims"
"""Where a paper's mixers are named as rows name them: `attention (conv=k)`."""


def is_torchs(name: str) -> bool:
    """Whether torch has a function of this name, such as `norm`, so that anybody may call it."""
    return hasattr(torch.Tensor, name) or hasattr(torch.nn.functional, name)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Attributes, keywords and strings of a file that may name an option, each with its line."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_torchs(node.attr):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg and not is_torchs(node.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Constant) and type(node.value) is str and id(node) not in prose:
            yield node.lineno, node.value.rpartition(".")[2]
            if LABELS not in path.parents:
                yield from ((node.lineno, name) for name in re.findall(r"(\w+)=", node.value))


def test_an_option_of_a_task_or_mixer_is_named_in_its_own_file_only():
    """What is about one task's tables takes the names of its columns from the task's file."""
    assert OPTIONS.keys() >= {"num_kv_pairs", "recall", "rope", "d_state"}
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in FILES
        for line, name in names(path)
        if name in OPTIONS and path not in OPTIONS[name]
    ]
    assert found == []
