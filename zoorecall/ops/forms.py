"""Which form of an operation runs: on a GPU a Triton kernel, if Triton is installed and the sizes
fit it (the delta rule of wider heads: flash-linear-attention's, if that is), else plain torch. The
choice changes speed, never results.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, TypeVar

import torch

HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None
HAS_FLA = HAS_TRITON and find_spec("fla") is not None

T = TypeVar("T")
_names: ContextVar[set[str] | None] = ContextVar("names", default=None)


def call(form: Callable[..., T], *args: Any) -> T:
    """Run the form that was chosen, and tell its name to who is `recording`."""
    if not torch.compiler.is_compiling():  # what is compiled runs outside of it too, to evaluate
        names = _names.get()
        if names is not None:
            names.add(form.__name__)
    return form(*args)


@contextmanager
def recording(names: set[str]) -> Iterator[None]:
    """Add the name of each form that runs meanwhile to `names`."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def tf32() -> bool:
    """Whether matrix products of float32 may use TensorFloat32."""
    return torch.get_float32_matmul_precision() != "highest"
