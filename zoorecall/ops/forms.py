"""Which form of an operation runs: on a GPU a Triton kernel, if Triton is installed and the sizes
fit it, else plain torch. The choice changes speed, never results.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import torch

HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None
HAS_FLA = HAS_TRITON and find_spec("fla") is not None

T = TypeVar("T")
_called: set[str] = set()


def call(form: Callable[..., T], *args: Any) -> T:
    """Run the form that was chosen, and remember its name."""
    if not torch.compiler.is_compiling():  # what is compiled runs outside of it too, to evaluate
        _called.add(form.__name__)
    return form(*args)


def tf32() -> bool:
    """Whether matrix products of float32 may use TensorFloat32."""
    return torch.get_float32_matmul_precision() != "highest"


def forget_forms() -> None:
    """Start the record of `kernels` anew."""
    _called.clear()


def kernels(device: torch.device) -> str:
    """The forms that ran since `forget_forms`, for the record of a run on a GPU."""
    if device.type == "cpu":
        return "torch"
    return ", ".join([*sorted(_called), "compiled, captured"])
