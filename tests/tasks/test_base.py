"""What tasks are made of: splits by a hash, and pools that draw without repetition."""

import math

import numpy as np

from zoorecall.seeding import Stream
from zoorecall.tasks.base import Pool, below, is_test

from .making import assert_follows


def test_one_candidate_in_eight_is_a_test_example():
    contents = below(Stream(0, "contents").halves(3, 80_000), 1000)
    share = is_test(contents)
    assert abs(share.mean() - 1 / 8) < 5 * math.sqrt(7 / 64 / 80_000)
    # neither does it follow one of the numbers
    for number in contents:
        assert abs(np.corrcoef(number, share)[0, 1]) < 5 / math.sqrt(80_000)


def test_a_pool_gives_every_arrangement_alike_and_is_whole_again_afterwards():
    pool, counts = Pool(9, 4000), np.zeros((5, 5, 5))
    whole = pool.items.copy()
    for i in range(6):
        # three of 0 to 4, then two of 5 to 8
        a, b, c, *others = pool.draw(Stream(i, "pool"), [(0, 5), (1, 5), (2, 5), (5, 9), (6, 9)])
        np.add.at(counts, (a, b, c), 1)
        assert min(o.min() for o in others) == 5 and (others[0] != others[1]).all()
        assert (np.sort(pool.items, axis=0) == whole).all()
        pool.restore()
        assert (pool.items == whole).all()
    different = np.array([len({*abc}) == 3 for abc in np.ndindex(5, 5, 5)]).reshape(5, 5, 5)
    assert not counts[~different].any()
    assert_follows(counts[different], np.ones(60))
