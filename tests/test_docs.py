"""What docs/ says is what the code does."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_mixers_is_made_from_the_code():
    page = runpy.run_path(str(DOCS / "mixers.py"))["page"]
    assert (DOCS / "mixers.md").read_text() == page(), "renew it: make schema"
