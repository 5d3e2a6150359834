"""Are the Triton kernels right and how fast are they on this GPU? Less than 90 seconds.

    python experiments/check_kernels.py          errors, times and rates
    python experiments/check_kernels.py --tune   times of other chunk and tile sizes of the scan

Errors are norms relative to the plain torch definition in float64, for outputs and all gradients.
GB/s counts each input, output, gradient and stored state once as read and once as written where it
is both; TFLOP/s counts the products of the head, those that the backward repeats included.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from triton.testing import do_bench

from zoorecall.ops import selective_scan_triton as scan
from zoorecall.ops.linear_cross_entropy import linear_cross_entropy_reference
from zoorecall.ops.linear_cross_entropy_triton import linear_cross_entropy_triton
from zoorecall.ops.selective_scan import selective_scan_recurrent

SCAN_NAMES = ("y", "u", "delta", "A", "B", "C", "D")
HEAD_NAMES = ("loss", "hidden", "weight")
LARGEST_ERROR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def scan_inputs(R: int, B: int, L: int, C: int, N: int, dtype: torch.dtype) -> list[Tensor]:
    normal = partial(torch.randn, device="cuda")
    inputs = [normal(R, B, L, C), normal(R, B, L, C).abs() / 4, -normal(R, C, N).abs() * 4]
    inputs += [normal(R, B, L, N), normal(R, B, L, N), normal(R, C)]
    return [x if i in (2, 5) else x.to(dtype) for i, x in enumerate(inputs)]


def head_inputs(R: int, M: int, V: int, D: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    hidden, weight = torch.randn(R, M, D, device="cuda"), torch.randn(R, V, D, device="cuda") / 4
    return [hidden.to(dtype), weight.to(dtype)], torch.randint(V, (R, M), device="cuda")


def first_output(function: Callable[..., tuple[Tensor, Tensor]], targets: Tensor) -> Callable:
    return lambda *inputs: function(*inputs, targets)[0]


def results(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output and the gradient of every input under one fixed cotangent."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = function(*inputs)
    torch.manual_seed(1)
    dy = torch.randn(y.shape, device="cuda").bfloat16()
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y.dtype))]


def report_errors(
    title: str, names: tuple[str, ...], kernel: Callable, exact: Callable, inputs: list[Tensor]
) -> None:
    expected = results(exact, [x.double() for x in inputs])
    actual = results(kernel, inputs)
    errors = {
        name: ((x.double() - y).norm() / y.norm()).item()
        for name, x, y in zip(names, actual, expected, strict=True)
    }
    print(f"{title:34}", *(f"{name} {error:.1e}" for name, error in errors.items()))
    limit = LARGEST_ERROR[inputs[0].dtype]
    if not all(error < limit for error in errors.values()):
        raise SystemExit(f"an error of {title} is above {limit}")


def times(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[float, float]:
    """Milliseconds of the forward without gradients, and of forward and backward."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    dy = torch.ones_like(function(*inputs))

    def forward() -> None:
        with torch.no_grad():
            function(*inputs)

    def both() -> None:
        torch.autograd.grad(function(*inputs), inputs, dy)

    return do_bench(forward), do_bench(both)


def report_times(title: str, runs: int, ms: tuple[float, float], work: str, rates: list) -> None:
    rate = "  ".join(f"{amount / t / 1e9:8.2f}" for amount, t in zip(rates, ms, strict=True))
    print(f"{title:34} {ms[0]:9.3f} {ms[1]:9.3f} {ms[1] / runs:9.4f}   {rate} {work}/s")


def size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def scan_bytes(inputs: list[Tensor]) -> list[float]:
    """Bytes, in thousands, that the forward alone and both passes cannot avoid."""
    states = scan._outputs(inputs[0], inputs[2], save_states=True)[1]
    forward = size(*inputs) + size(inputs[0])
    # then the backward reads the inputs, dy and the states, and writes a gradient of each input
    return [forward / 1e3, (forward + 2 * size(*inputs) + size(inputs[0]) + 2 * size(states)) / 1e3]


def check() -> None:
    print("relative errors")
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for sizes in ((2, 64, 64, 128, 16), (2, 5, 131, 200, 16)):
            inputs = scan_inputs(*sizes, dtype)
            kernel, exact = scan.selective_scan_triton, selective_scan_recurrent
            report_errors(f"scan {name} {sizes}", SCAN_NAMES, kernel, exact, inputs)
        for sizes in ((2, 2048, 8192, 64), (2, 777, 1001, 128)):
            inputs, targets = head_inputs(*sizes, dtype)
            kernel = first_output(linear_cross_entropy_triton, targets)
            exact = first_output(linear_cross_entropy_reference, targets)
            report_errors(f"head {name} {sizes}", HEAD_NAMES, kernel, exact, inputs)


def time() -> None:
    print(f"\n{'':34} forward ms   both ms     a run   rates of forward and of both")
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for R in (1, 16):
            sizes = (R, 512, 64, 128, 16)
            inputs = scan_inputs(*sizes, dtype)
            ms = times(scan.selective_scan_triton, inputs)
            rates = [x / 1e3 for x in scan_bytes(inputs)]
            report_times(f"scan {name} {sizes}", R, ms, "GB", rates)
        for R in (1, 16):
            sizes = (R, 2048, 8192, 64)
            inputs, targets = head_inputs(*sizes, dtype)
            products = 2 * sizes[0] * sizes[1] * sizes[2] * sizes[3] / 1e3
            for kind, function in (
                ("head", linear_cross_entropy_triton),
                ("head in plain torch", linear_cross_entropy_reference),
            ):
                ms = times(first_output(function, targets), inputs)
                repeated = 5 if function is linear_cross_entropy_triton else 3
                report_times(
                    f"{kind} {name} {sizes}", R, ms, "TFLOP", [products, repeated * products]
                )


def tune() -> None:
    print("scan bfloat16 (16, 512, 64, 128, 16)")
    inputs = scan_inputs(16, 512, 64, 128, 16, torch.bfloat16)
    for scan.CHUNK in (2, 3, 4, 8):
        for scan.CELLS in (256, 512, 1024):
            ms = times(scan.selective_scan_triton, inputs)
            print(f"CHUNK {scan.CHUNK} CELLS {scan.CELLS:4}: {ms[0]:7.3f} {ms[1]:7.3f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tune", action="store_true", help="time other sizes of the scan")
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    if parser.parse_args().tune:
        tune()
    else:
        check()
        time()
