"""What code of a user's own is: the version of its distribution, or a hash of its files.

A hash is of the module's file and of the files that it imports, directly or not, from the folder
that its top-level package or module lies in. An edit of one of them changes it; where the folder
lies, and what else is in it, does not. Imports are read, not run: what a module imports by a name
that it makes up while it runs is not seen.
"""

import ast
import functools
import hashlib
import importlib
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

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
    digest, root = hashlib.blake2b(digest_size=6), _root(module, file)
    contents = _contents(module, file)
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in contents):
        digest.update(f"{name}\n{len(contents[path])}\n".encode() + contents[path])
    return digest.hexdigest()


_imported: dict[str, str] = {}
"""What the code of a module was when this process imported it."""


def import_as_it_is(module: str) -> ModuleType:
    """Import a module; anew, with the files of the user's own that it imports, where one of these
    was edited since, as happens in a notebook."""
    found, source = import_module(module), source_of(module)
    if _imported.setdefault(module, source) != source:
        files = {str(path) for path in _contents(module, find_file(module))}
        for name, other in list(sys.modules.items()):
            if getattr(other, "__file__", None) in files:
                del sys.modules[name]
        importlib.invalidate_caches()
        found, _imported[module] = import_module(module), source
    return found


def _distributions(module: str, file: Path) -> list[str]:
    """The installed distributions that a module's package comes from; none if it is a user's."""
    if not INSTALLED.intersection(file.parts):
        return []
    return sorted(set(packages_distributions().get(module.partition(".")[0], ())))


def _root(module: str, file: Path) -> Path:
    """The folder of a module's top-level package or module."""
    place = file.parent if file.name == "__init__.py" else file
    return place.parents[module.count(".")]


def _contents(module: str, file: Path) -> dict[Path, bytes]:
    """The file of a module, and those that it imports from its folder, with what is in them."""
    root, contents = _root(module, file), dict[Path, bytes]()
    waiting = {file, *_files(root, module)}
    while waiting:
        path = waiting.pop()
        if path not in contents:
            contents[path], name = path.read_bytes(), path.relative_to(root).as_posix()
            waiting.update(*(_files(root, other) for other in _imports(contents[path], name)))
    return contents


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
