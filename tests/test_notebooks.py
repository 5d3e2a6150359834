"""The notebooks run from top to bottom on the committed tables."""

import builtins
import sys
from pathlib import Path
from unittest.mock import patch

import matplotlib
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

SHORTER = {"your_own_mixer": ("epochs: 3,", "epochs: 0.3,")}
"""What a notebook says that it trains, and what is trained here."""


class Shell(InteractiveShell):
    """What runs the cells in a notebook's kernel, without a process of its own."""

    def enable_gui(self, gui=None):
        pass


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.syspath_prepend("")  # the folder of work, as in a kernel
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    with patch.dict(vars(builtins)), matplotlib.rc_context():
        yield Shell.instance(config=Config(HistoryManager={"enabled": False}))
    Shell.clear_instance()
    matplotlib.use("agg")
    sys.modules.pop("my_mixer", None)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, shell, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    cells = nbformat.read(notebook, as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    long, short = SHORTER.get(notebook.stem, ("", ""))
    assert any(long in source for source in sources)
    for source in sources:
        shell.run_cell(source.replace(long, short)).raise_error()


def test_the_committed_notebooks_have_outputs_and_are_small():
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        text = notebook.read_text()
        assert '"image/png"' in text and len(text) < 1_000_000
