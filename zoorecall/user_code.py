"""What code of a user's own is: the version of its distribution, or a hash of its files.

A hash is of the module's file and of the files that it imports, directly or not, from the folder
that its top-level package or module lies in. An edit of one of them changes it; where the folder
lies, and what else is in it, does not. Imports are read, not run: what a module imports by a name
that it makes up while it runs is not seen.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}

OURS = __name__.partition(".")[0]


def find_file(module: str) -> Path:
    """The .py file of a module, which is imported; raises ImportError where it has none."""
    file = getattr(import_module(module), "__file__", None) or ""
    if module == "__main__" or not (file.endswith(".py") or _distributions(module, Path(file))):
        raise ImportError(f"{module} should be a .py file that another process can import")
    return Path(file)


@functools.cache
def source_of(module: str) -> str:
    """What a module's code is, in one short text; kept until `source_of.cache_clear()`."""
    file = find_file(module)
    installed = _distributions(module, file)
    if installed:
        return ", ".join(f"{name} {version(name)}" for name in installed)
    return _digest(module, file)


def _distributions(module: str, file: Path) -> list[str]:
    """The installed distributions that a module's package comes from; none if it is a user's."""
    if not INSTALLED.intersection(file.parts):
        return []
    return sorted(set(packages_distributions().get(module.partition(".")[0], ())))


def _digest(module: str, file: Path) -> str:
    place = file.parent if file.name == "__init__.py" else file
    root = place.parents[module.count(".")]
    contents: dict[str, bytes] = {}
    waiting = {file, *_files(root, module)}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name not in contents:
            contents[name] = path.read_bytes()
            waiting.update(*(_files(root, other) for other in _imports(contents[name], name)))
    digest = hashlib.blake2b(digest_size=6)
    for name, text in sorted(contents.items()):
        digest.update(f"{name}\n{len(text)}\n".encode() + text)
    return digest.hexdigest()


def _files(root: Path, module: str) -> Iterator[Path]:
    """The files under the root that importing a module runs: its own and its packages'."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1) if parts[0] != OURS else ():
        place = root.joinpath(*parts[:end])
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                yield path
                break


def _imports(text: bytes, name: str) -> Iterator[str]:
    """The modules that a file imports, by their full names; some may be values of a module."""
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = name.split("/")[: -node.level] if node.level else []
            module = ".".join([*around, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)
