"""What docs/ says is what the code does."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"


def test_the_page_of_mixers_is_made_from_the_code():
    page = runpy.run_path(str(DOCS / "mixers.py"))["page"]
    assert (DOCS / "mixers.md").read_text() == page(), "renew it: make schema"


def test_every_picture_of_the_readme_is_made_by_a_command_and_small():
    shown = re.findall(r'(?:\]\(|src=")(docs/[\w.]+\.(?:png|svg))', README.read_text())
    made = runpy.run_path(str(DOCS / "pictures.py"))["PICTURES"]
    assert sorted(shown) == sorted(f"docs/{name}" for name in made)
    for name in made:
        assert 5_000 < (DOCS / name).stat().st_size <= 200_000, name


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page):
    """As paths from one of these folders; NAME stands for a name of one's own."""
    root = DOCS.parent
    folders = (root, DOCS, root / "zoorecall", root / "tests", root / "tests/kernels")
    named = re.findall(r"`([\w/]+\.(?:py|md|json|yaml))`|\]\(([\w/.]+\.md)\)", page.read_text())
    paths = {one or other for one, other in named if "NAME" not in one}
    own = {"reference.py", "fast.py", "triton.py", "__init__.py"}  # of an operation's folder
    missing = [p for p in paths - own if not any((folder / p).exists() for folder in folders)]
    assert paths and missing == []
