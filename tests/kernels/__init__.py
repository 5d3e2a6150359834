"""The Triton kernels against their definitions: a file an operation, and one for what all keep.

A GPU runs all of it (`pytest -m gpu tests/kernels`). Without one, Triton's interpreter runs what is
small (`TRITON_INTERPRET=1 pytest tests/kernels`, of which `tests/test_interpreted_kernels.py` makes
one test), and only the tests of plain torch are left in this process.
"""

import pytest

pytest.register_assert_rewrite("kernels.comparing")
