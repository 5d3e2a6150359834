"""Writes docs/mixers.md from the mixers of the registry; `make schema` runs it.

A mixer's page has the docstring of its module, its options, the size of its state, the forms of
the operations that it uses, and its oracle.
"""

import ast
import importlib
import inspect
import itertools
from pathlib import Path
from types import ModuleType

import torch
from pydantic.fields import FieldInfo

from zoorecall import layers
from zoorecall.mixers import MIXERS, MixerConfig, PatternConfig, make_mixer

ROOT = Path(__file__).parents[1]
WIDTH, LENGTHS = 64, (64, 256)

HEAD = f"""\
# The mixers

Made from the code by `make schema`. A grid names a mixer, `model.mixer: gla`, or names it with
options, `model.mixer: {{name: gla, num_heads: 2}}`. The state is what one layer carries from one
position to the next, counted in numbers at width {WIDTH} with default options.

"""


def page() -> str:
    """The text of docs/mixers.md."""
    modules = itertools.groupby(MIXERS.items(), lambda item: item[1].__module__)
    sections = [_section(module, [name for name, _ in items]) for module, items in modules]
    pattern = inspect.getmodule(PatternConfig)
    assert pattern is not None
    sections.append("\n".join([f"## pattern\n\n{_prose(pattern)}\n", *_options(PatternConfig)]))
    own = "## Your own\n\n`name: package.module:Class`: any `torch.nn.Module`, see `own-mixer.md`."
    return HEAD + _overview() + "\n" + "\n\n".join([*sections, own]) + "\n"


def _overview() -> str:
    lengths = [f"state after {length} tokens" for length in LENGTHS]
    rows = [["mixer", *lengths], ["---"] + ["---:"] * len(LENGTHS)]
    for name in MIXERS:
        sizes = (f"{_state_size(name, length):,}" for length in LENGTHS)
        rows.append([f"[{name}](#{name})", *sizes])
    return "".join(_row(row) for row in rows)


def _state_size(name: str, length: int) -> int | None:
    with torch.device("meta"):
        return make_mixer(MIXERS[name].Config(), WIDTH, length, 2, 0).state_size(length)


def _section(module_name: str, names: list[str]) -> str:
    module = importlib.import_module(module_name)
    file = module_name.rpartition(".")[2]
    lines = [*(f"## {name}\n" for name in names), _prose(module), ""]
    for name in names:
        options = _options(MIXERS[name].Config)
        title = f"Options of {name}:" if len(names) > 1 else "Options:"
        lines += [title, "", *options, ""] if options else [f"{name} has no options.", ""]
    for op in _operations(module):
        forms = sorted(path.stem for path in op.glob("*.py") if path.stem != "__init__")
        lines.append(f"- Operation `ops/{op.name}`: {', '.join(forms) or 'plain torch'}")
    oracle = ROOT / f"tests/mixers/test_{file}.py"
    said = ast.get_docstring(ast.parse(oracle.read_text())) or ""
    lines.append(f"- Oracle, in `tests/mixers/{oracle.name}`: {' '.join(said.split())}")
    return "\n".join(lines)


def _prose(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "")


def _options(config: type[MixerConfig]) -> list[str]:
    """A table of a config's options, a line each."""
    fields = {name: field for name, field in config.model_fields.items() if name != "name"}
    if not fields:
        return []
    rows = [["option", "default", "what it is"], ["---"] * 3]
    rows += [[f"`{name}`", _default(field), _meaning(field)] for name, field in fields.items()]
    return [_row(row).rstrip("\n") for row in rows]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    words = {None: "null", True: "true", False: "false", "": "''"}
    default = field.default
    is_word = default is None or isinstance(default, bool | str)
    return f"`{words.get(default, default) if is_word else default}`"


def _meaning(field: FieldInfo) -> str:
    """The description, or the values there are where that says enough."""
    if field.description:
        return field.description
    values = getattr(field.annotation, "__args__", ())
    return ", ".join(f"`{value!r}`" for value in values if isinstance(value, str))


def _operations(module: ModuleType) -> list[Path]:
    """The folders of `ops` whose functions a mixer's module uses, by itself or by its layers."""
    used = _imported(module, "ops.")
    of_layers = {name: op for op, names in _imported(layers, "ops.").items() for name in names}
    for primitive in itertools.chain(*_imported(module, "layers").values()):
        tree = ast.parse(inspect.getsource(getattr(layers, primitive)))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {of_layers[name]: [] for name in sorted(names & of_layers.keys())}
    folder = Path(layers.__file__).parent
    return [folder / op.replace(".", "/") for op in sorted(used)]


def _imported(module: ModuleType, start: str) -> dict[str, list[str]]:
    """The names that a module imports from modules of this package that begin like this."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    return {
        node.module: [alias.name for alias in node.names]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.level and (node.module or "").startswith(start)
    }


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    (ROOT / "docs/mixers.md").write_text(page(), encoding="utf-8")
