"""What a table of runs comes to, where other tests do not hold it."""

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_runs

from zoorecall.analysis.summary import Summary


@pytest.mark.parametrize("seeds", [(42,), (42, 123, 777)])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_slices_are_those_of_the_runs_whose_accuracy_stands_beside_them(seeds, share):
    """The mean over two slices of a run is its accuracy, and so it is of a setting, also where some
    of the runs are missing."""
    rng = np.random.default_rng(3)
    runs = made_up_runs(lambda *_: rng.uniform(), widths=range(1, 21), seeds=seeds)
    accuracy, apart = runs["test_accuracy"], rng.uniform(0, 0.5, len(runs))
    slices = {
        "slice.AR.test_accuracy": accuracy - apart,
        "slice.sum.test_accuracy": accuracy + apart,
    }
    runs = runs.assign(**slices).sample(frac=share, random_state=0)
    table = Summary(runs, pd.DataFrame()).table()
    np.testing.assert_allclose((table["AR"] + table["sum"]) / 2, table["accuracy"])
