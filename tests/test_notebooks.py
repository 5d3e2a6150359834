"""The notebooks run from top to bottom on the committed tables."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook):
    code = (
        "import sys, nbformat, nbclient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, kernel_name='python3').execute()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(notebook)],
        cwd=notebook.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_committed_notebooks_have_outputs_and_are_small():
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        text = notebook.read_text()
        assert '"image/png"' in text and len(text) < 1_000_000
