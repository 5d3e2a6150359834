"""The published points of Zoology's figure 2 beside made-up runs."""

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_runs

from zoorecall.claims.arora2023 import BASE_CONV, BASE_CONV_2023, POINTS, WIDTHS, beside_published

RATES = (1e-4, 1e-3, 1e-2)


def hyena(order, layers=(2,)):
    """One seed is best at 1e-3 and the other at 1e-2."""
    found = {(42, -3): 0.5, (42, -2): 0.4, (7, -3): 0.1, (7, -2): 0.3}
    sizes = {"layers": layers, "widths": (128,), "lengths": (128,), "rates": RATES}
    runs = made_up_runs(
        lambda *at: found.get((at[-1], round(at[-2])), 0.0), ("hyena",), seeds=(42, 7), **sizes
    )
    return runs.assign(**{"train.order": order})


def test_a_point_is_beside_each_seed_at_its_best_rate():
    table = beside_published(hyena("fixed"))
    assert len(table) == 2 * len(WIDTHS) and set(table["mixer"]) == {"hyena"}
    (run,) = table.dropna(subset=["accuracy"]).to_dict("records")
    assert (run["task.seq_len"], run["model.d_model"], run["seeds"]) == (128, 128, 2)
    assert (run["least"], run["accuracy"], run["most"]) == pytest.approx((0.3, 0.4, 0.5))
    assert run["published"] == 0.65 and run["difference"] == pytest.approx(-0.25)


def test_each_depth_and_order_has_a_row_of_its_own():
    runs = pd.concat([hyena("fixed", (2, 4)), hyena("shuffled")])
    run = beside_published(runs).dropna(subset=["accuracy"])
    variants = run[["model.num_layers", "train.order"]].to_numpy().tolist()
    assert variants == [[2, "fixed"], [2, "shuffled"], [4, "fixed"]]
    assert np.allclose(run["published"], 0.65)


def test_the_base_conv_of_2023_has_the_points_of_base_conv():
    sizes = {"layers": (8,), "widths": (64,), "lengths": (64,), "rates": RATES, "seeds": (42,)}
    runs = made_up_runs(lambda *at: 0.75, (BASE_CONV_2023,), **sizes)
    (run,) = (
        beside_published(runs.assign(**{"train.order": "shuffled"})).dropna().to_dict("records")
    )
    assert run["difference"] == pytest.approx(0.75 - 0.70)


def test_there_is_a_point_for_each_width_of_each_mixer():
    assert [*POINTS] == [64, 128] and POINTS[64].keys() == POINTS[128].keys() > {BASE_CONV}
    assert all(len(x) == len(WIDTHS) for of in POINTS.values() for x in of.values())
