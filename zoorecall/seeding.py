"""Random streams that are functions of (seed, purpose, index), with no state anywhere.

Every draw of the lab (initial weights, examples, epoch order) starts here, so a run can be
stopped, resumed, packed with other runs or moved to another machine and still draws the same.
Only Philox's raw 64-bit outputs are used: NumPy promises that those never change between
versions, which it does not promise for the distributions on top.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
from numpy.random import mtrand


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 128-bit seed for one purpose, e.g. `derive_seed(42, "order", epoch)`."""
    text = repr((int(seed), *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


class Stream:
    """A sequential reader of one counter-based random stream."""

    def __init__(self, seed: int, *purpose: str | int):
        self._philox = np.random.Philox(key=derive_seed(seed, *purpose))

    def bits(self, *shape: int) -> np.ndarray:
        """Uniform 64-bit words, uint64 of the given shape."""
        return self._philox.random_raw(int(np.prod(shape))).reshape(shape)

    def halves(self, *shape: int) -> np.ndarray:
        """Uniform 32-bit words, uint32 of the given shape: two from each 64-bit word."""
        size = int(np.prod(shape))
        words = self._philox.random_raw((size + 1) // 2).astype("<u8", copy=False)
        return words.view("<u4")[:size].reshape(shape)

    def permutation(self, n: int) -> np.ndarray:
        """A uniform permutation of range(n), int64 [n]."""
        return np.argsort(self.bits(n), kind="stable")


_INSTEAD = np.random.MT19937(0)
"""NumPy's global generator while code of others is seeded: to swap them is a hundred times as fast
as to save and restore one."""


@contextlib.contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Inside, what code of others draws from the generators of torch, NumPy and Python follows from
    the seed. Afterwards these are as they were before."""
    import torch  # who only reads tables does without

    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    of_numpy, of_python = mtrand.get_bit_generator(), random.getstate()
    with torch.random.fork_rng(gpus):
        try:
            mtrand.set_bit_generator(_INSTEAD)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            torch.default_generator.manual_seed(seed % 2**63)
            for gpu in gpus:
                torch.cuda.default_generators[gpu].manual_seed(seed % 2**63)
            yield
        finally:
            mtrand.set_bit_generator(of_numpy)
            random.setstate(of_python)
