"""Where the kernels run, what they are compared with, and how.

Triton decides at import whether it interprets, so it holds for a whole process.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

# for what only a GPU can do, large sizes among it
gpu = pytest.mark.gpu
# for what Triton's interpreter can do too: in its process this needs no GPU
on_device = pytest.mark.interpreted if INTERPRETED else gpu
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)
# norm of the error by norm of the float64 result of the same inputs
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


class Case(NamedTuple):
    """A kernel, its definition in plain torch, and inputs of both.

    Every input and the first output have the runs as their first axis.
    """

    kernel: Callable[..., Any]
    definition: Callable[..., Any]
    inputs: list[Tensor]


def on_sizes(small: Sequence[tuple], large: Sequence[tuple]) -> pytest.MarkDecorator:
    """A test of `sizes`, of which the large need a GPU."""
    sizes = [*small, *(pytest.param(sizes, marks=gpu) for sizes in large)]
    return pytest.mark.parametrize("sizes", sizes, ids=str)


def cotangent(y: Tensor) -> Tensor:
    """The same for every y of this shape."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).bfloat16()


def results(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    dtype: torch.dtype | None = None,
    dy: Tensor | None = None,
) -> list[Tensor]:
    """A function's outputs and the gradients of its first, under `dy` or its `cotangent`.

    The gradients are those of the inputs that are not integers; these are cast to `dtype`.
    """
    inputs = [
        x.detach().to(dtype or x.dtype).requires_grad_() if x.is_floating_point() else x
        for x in inputs
    ]
    y = function(*inputs)
    y, *others = y if isinstance(y, tuple) else (y,)
    dy = cotangent(y) if dy is None else dy
    wanted = [x for x in inputs if x.requires_grad]
    return [y.detach(), *others, *torch.autograd.grad(y, wanted, dy.to(y))]


def kernel_results(
    function: Callable[..., Any], inputs: Sequence[Tensor], dy: Tensor | None = None
) -> list[Tensor]:
    """`results` while fresh memory holds NaN, which shows what a kernel forgot to write."""
    torch.use_deterministic_algorithms(True)
    try:
        return results(function, inputs, dy=dy)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(
    actual: Sequence[Tensor],
    expected: Sequence[Tensor],
    names: Sequence[str],
    tolerance: float,
    spread: float | None = None,
) -> None:
    """Of every run, the norm of the error is at most `tolerance` of the norm.

    With `spread`, every element is within `tolerance` of its own size and of `spread` times the
    root mean square.
    """
    for name, x, exact in zip(names, actual, expected, strict=True):
        if exact.dtype == torch.bool:  # a choice between logits that round to the same is free
            assert (x != exact).sum() <= exact.numel() // 1000, name
            continue
        for run, (a, b) in enumerate(zip(x, exact, strict=True)):
            assert (a - b).norm() <= tolerance * b.norm(), f"{name} of run {run}"
        if spread is not None:
            atol = spread * tolerance * exact.square().mean().sqrt().item()
            assert_close(
                x.to(exact), exact, rtol=tolerance, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Equal to the last bit."""
    for i, (x, other) in enumerate(zip(actual, expected, strict=True)):
        assert torch.equal(x, other), f"result {i}"


def strided(x: Tensor) -> Tensor:
    """The same numbers with the runs next to each other in memory."""
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(x: Tensor) -> Tensor:
    """The same numbers inside of a wider tensor."""
    return F.pad(x, (3, 2), value=torch.nan)[..., 3:-2]


def features_first(x: Tensor) -> Tensor:
    """The same numbers with the last axis outermost in memory."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)
