"""Are the Triton kernels right, and how fast are they on this GPU? Less than 90 seconds.

    python experiments/check_kernels.py          errors, times and rates
    python experiments/check_kernels.py --tune   times of other chunk and tile sizes of the scan

Errors are norms relative to the plain torch definition in float64, of outputs and all gradients.
GB/s counts every tensor that a pass must read or write once, the stored states included; TFLOP/s
counts the products of the head, those that the backward makes again included.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from triton.testing import do_bench

from zoorecall.ops import selective_scan_triton as scan
from zoorecall.ops.linear_cross_entropy import linear_cross_entropy_reference
from zoorecall.ops.linear_cross_entropy_triton import linear_cross_entropy_triton
from zoorecall.ops.selective_scan import selective_scan_recurrent

DEVICE = "cuda"
SCAN_CHECKED = [(2, 64, 64, 128, 16), (2, 5, 131, 200, 16)]  # R, B, L, C, N
SCAN_TIMED = [(1, 512, 64, 128, 16), (16, 512, 64, 128, 16)]
HEAD_CHECKED = [(2, 2048, 8192, 64), (2, 777, 1001, 128)]  # R, M, V, D
HEAD_TIMED = [(1, 2048, 8192, 64), (16, 2048, 8192, 64)]
LARGEST_ERROR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
UNITS = {"GB": 1e9, "TFLOP": 1e12}


def scan_inputs(R: int, B: int, L: int, C: int, N: int, dtype: torch.dtype) -> list[Tensor]:
    normal = partial(torch.randn, device=DEVICE)
    u, B_, C_ = (normal(R, B, L, width).to(dtype) for width in (C, N, N))
    delta, A, D = normal(R, B, L, C).abs() / 4, -4 * normal(R, C, N).abs(), normal(R, C)
    return [u, delta, A, B_, C_, D]  # delta in float32, as Mamba makes it


def head_inputs(R: int, M: int, V: int, D: int, dtype: torch.dtype) -> list[Tensor]:
    normal = partial(torch.randn, device=DEVICE)
    return [normal(R, M, D).to(dtype), (normal(R, V, D) / 4).to(dtype)]


def losses(function: Callable, R: int, M: int, V: int) -> Callable[..., Tensor]:
    """A head's loss as a function of hidden and weight, with fixed targets."""
    targets = torch.randint(V, (R, M), device=DEVICE)
    return lambda hidden, weight: function(hidden, weight, targets)[0]


def results(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output and the gradient of every input, always under the same cotangent."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = function(*inputs)
    dy = torch.linspace(-1, 1, y.numel(), device=DEVICE).bfloat16().view_as(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y.dtype))]


def check(title: str, names: str, kernel: Callable, exact: Callable, inputs: list[Tensor]) -> None:
    expected = results(exact, [x.double() for x in inputs])
    pairs = zip(results(kernel, inputs), expected, strict=True)
    errors = [((x.double() - y).norm() / y.norm()).item() for x, y in pairs]
    words = (f"{name} {error:.1e}" for name, error in zip(names.split(), errors, strict=True))
    print(f"{title:38}", *words)
    limit = LARGEST_ERROR[inputs[0].dtype]
    if not all(error < limit for error in errors):
        raise SystemExit(f"{title}: an error is not below {limit}")


def milliseconds(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[float, float]:
    """Of the forward without gradients, and of forward and backward."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    dy = torch.ones_like(function(*inputs))

    def forward() -> None:
        with torch.no_grad():
            function(*inputs)

    return do_bench(forward), do_bench(lambda: torch.autograd.grad(function(*inputs), inputs, dy))


def measure(
    title: str, function: Callable, inputs: list[Tensor], work: tuple[int, int], unit: str
) -> None:
    ms = milliseconds(function, inputs)
    rates = "".join(f"{w / t * 1e3 / UNITS[unit]:9.1f}" for w, t in zip(work, ms, strict=True))
    print(f"{title:38}{ms[0]:9.3f}{ms[1]:9.3f}{ms[1] / len(inputs[0]):9.4f}{rates} {unit}/s")


def scan_bytes(inputs: list[Tensor]) -> tuple[int, int]:
    """Bytes that the forward without gradients, and both passes, cannot avoid."""
    u, _, A, *_ = inputs
    y, states = scan._outputs(u, A, save_states=True)
    all_inputs = sum(x.nbytes for x in inputs)
    # the backward reads the inputs, dy and the states, and writes a gradient for each input
    return all_inputs + y.nbytes, 3 * all_inputs + 2 * y.nbytes + 2 * states.nbytes


def check_and_time(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    for sizes in SCAN_CHECKED:
        title, inputs = f"scan {name} {sizes}", scan_inputs(*sizes, dtype)
        names = "y u delta A B C D"
        check(title, names, scan.selective_scan_triton, selective_scan_recurrent, inputs)
    for sizes in HEAD_CHECKED:
        title, inputs = f"head {name} {sizes}", head_inputs(*sizes, dtype)
        torch.manual_seed(1)
        kernel = losses(linear_cross_entropy_triton, *sizes[:3])
        torch.manual_seed(1)
        exact = losses(linear_cross_entropy_reference, *sizes[:3])
        check(title, "loss hidden weight", kernel, exact, inputs)

    print(f"{'milliseconds':38}{'forward':>9}{'both':>9}{'a run':>9}{'forward':>9}{'both':>9}")
    for sizes in SCAN_TIMED:
        inputs = scan_inputs(*sizes, dtype)
        work = scan_bytes(inputs)
        measure(f"scan {name} {sizes}", scan.selective_scan_triton, inputs, work, "GB")
    for sizes in HEAD_TIMED:
        inputs, product = head_inputs(*sizes, dtype), 2 * math.prod(sizes)
        kernel = losses(linear_cross_entropy_triton, *sizes[:3])
        measure(f"head {name} {sizes}", kernel, inputs, (product, 5 * product), "TFLOP")
        plain = losses(linear_cross_entropy_reference, *sizes[:3])
        measure("     in plain torch", plain, inputs, (product, 3 * product), "TFLOP")
    print()


def tune() -> None:
    sizes = SCAN_TIMED[-1]
    inputs = scan_inputs(*sizes, torch.bfloat16)
    for scan.CHUNK in (2, 3, 4, 8):
        for scan.CELLS in (256, 512, 1024):
            forward, both = milliseconds(scan.selective_scan_triton, inputs)
            print(
                f"scan {sizes} CHUNK {scan.CHUNK} CELLS {scan.CELLS}: {forward:.3f} {both:.3f} ms"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tune", action="store_true", help="time other sizes of the scan")
    torch.manual_seed(0)
    if parser.parse_args().tune:
        tune()
    else:
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
        check_and_time(torch.float32)
        check_and_time(torch.bfloat16)
