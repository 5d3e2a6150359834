"""Makes Triton's interpreter compute as a GPU does, and in small steps."""

import pytest
import torch

from .comparing import INTERPRETED

if INTERPRETED:
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from zoorecall.ops.causal_conv import triton as causal_conv_triton
    from zoorecall.ops.gated_norm import triton as gated_norm_triton

    patch, patched = interpreter._patch_lang, set()

    def patch_once(fn):
        """Triton 3.6 patches its language anew at every call of a kernel's function, which takes
        most of the time, and here all that runs is interpreted."""
        if id(fn.__globals__) not in patched:
            patch(fn)
            patched.add(id(fn.__globals__))
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patch_once
    # the type of a tuple, for which only the compiler asks
    tl.core._type_for_tuple_values = lambda values, fields=None: None
    find_dtype, found = interpreter._get_np_dtype, {}

    def find_dtype_once(dtype):
        name = dtype.scalar.name
        if name not in found:
            found[name] = find_dtype(dtype)
        return found[name]

    interpreter._get_np_dtype = find_dtype_once
    # sizes as small as these overflow nowhere
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(
        sanitize_overflow=False
    )

    @pytest.fixture(autouse=True)
    def bfloat16_as_on_a_gpu(monkeypatch):
        """Triton 3.6 interprets a dot of bfloat16 as one of their bit patterns, and truncates."""
        dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

        def widened_dot(self, *args):
            is_half = [getattr(x, "dtype", None) == tl.bfloat16 for x in args]
            pairs = zip(args, is_half, strict=True)
            return dot(self, *(self.create_fp_ext(x, tl.float32) if h else x for x, h in pairs))

        def rounded_cast(self, x, dtype):
            if (x.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
                return cast(self, x, dtype)
            bits = torch.tensor(x.data).bfloat16().view(torch.uint16).numpy()
            return TensorHandle(bits, tl.bfloat16)

        monkeypatch.setattr(InterpreterBuilder, "create_dot", widened_dot)
        monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounded_cast)

    @pytest.fixture(autouse=True)
    def small_tiles(monkeypatch):
        """So that small tensors need several programs, and the interpreter not minutes."""
        monkeypatch.setattr(causal_conv_triton, "SPAN", 4)
        monkeypatch.setattr(causal_conv_triton, "TILES", 3)
        monkeypatch.setattr(gated_norm_triton, "NUMBERS", 128)
        monkeypatch.setattr(gated_norm_triton, "TILES", 3)
