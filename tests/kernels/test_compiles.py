"""Every kernel is one that Triton's compiler makes a program of for an H100, also without a GPU."""

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from . import comparing, test_layer_norm
from .test_every_kernel import OF_SEQUENCES, OF_TOKENS, each

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="the GPU's own tests compile them"
)


class NoGPU:
    """What Triton asks of a driver in order to compile."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled(monkeypatch):
    """The names of the kernels that were called, which are compiled and not launched."""
    names, run = [], JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        program = run(self, *args, grid=grid, warmup=True, **options)
        assert program.asm["cubin"]
        names.append(self.__name__)

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", NoGPU())
    return names


@each(OF_TOKENS + OF_SEQUENCES, "LARGE")
def test_forward_and_backward_compile_for_an_h100(make, compiled):
    kernel, _, inputs = make()
    comparing.results(kernel, inputs)
    assert any("forward" in name for name in compiled)
    assert any("backward" in name or "gradient" in name for name in compiled)


@pytest.mark.parametrize("sizes", test_layer_norm.LARGE_SIZES, ids=str)
def test_the_norm_of_evaluations_compiles_for_an_h100(sizes, compiled):
    test_layer_norm.kernel(*test_layer_norm.make_inputs(*sizes, dtype=torch.bfloat16))
    assert compiled == ["_layer_norm_kernel"]
