"""Examples, and what tests ask about them."""

import hashlib
import math

import numpy as np
from hypothesis import reject, settings

from zoorecall.tasks import Examples, TaskConfig, make_task

several_examples = settings(max_examples=60, deadline=None, derandomize=True)


def examples(config: TaskConfig, n: int, seed: int = 0, split: str = "train", block: int = 0):
    return make_task(config).examples(n, seed, split, block)


def examples_if_any(config: TaskConfig, n: int, seed: int, split: str) -> Examples:
    """Examples of a config that may be so small that the split is empty."""
    try:
        return examples(config, n, seed, split)
    except ValueError as error:
        assert "none is a" in str(error)
        reject()


def digest(*parts: Examples) -> str:
    """Of tokens, positions and targets, and of slices where there are any."""
    arrays = [array.astype("<i4") for part in parts for array in part]
    return hashlib.blake2b(b"".join(a.tobytes() for a in arrays), digest_size=8).hexdigest()


def rows(array: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in array}


def assert_follows(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Pearson's chi-square, whose mean is its degrees of freedom df and its variance 2 df."""
    expected = counts.sum() * probabilities / probabilities.sum()
    assert expected.min() > 20
    statistic = ((counts - expected) ** 2 / expected).sum()
    df = counts.size - 1
    assert abs(statistic - df) < 5 * math.sqrt(2 * df)
