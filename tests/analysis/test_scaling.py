"""Scaling in width and depth, on runs that gain from one and not from the other."""

import numpy as np
import pytest
from made_up import hat, made_up_runs

from zoorecall.analysis.scaling import along, along_depth, along_width, smallest_widths

WIDTHS, LENGTHS = (64, 128, 256), (64, 128, 256)


def accuracy(mixer, layers, width, length, x, seed):
    """Attention needs two layers, a recurrent mixer a width of at least the length."""
    spread = {42: -0.02, 123: 0.0, 777: 0.02}[seed]
    if mixer == "attention":
        return hat(x, -4, -2) * (0.25 if layers == 1 else 1.0)
    return hat(x, -3.25, -2.5) * (1.0 if width >= length else 0.6 * width / length + spread)


def runs(**axes):
    defaults = {"layers": (1, 2), "widths": WIDTHS, "lengths": LENGTHS}
    return made_up_runs(accuracy, mixers=("attention", "hyena"), **{**defaults, **axes})


def test_recurrent_models_gain_from_width_and_attention_from_depth():
    wide = along_width(runs(lengths=(256,)))
    wide = wide.set_index(["mixer", "model.num_layers", "model.d_model"])["gain"]
    np.testing.assert_allclose(wide["attention"], 0)
    np.testing.assert_allclose(wide["hyena", 1], [0, 0.15, 0.85])
    deep = along_depth(runs(lengths=(256,))).set_index(["mixer", "model.num_layers"])["gain"]
    np.testing.assert_allclose(deep["attention", 2], 0.75)
    np.testing.assert_allclose(deep["hyena", 2], 0, atol=1e-12)


def test_a_gain_has_an_interval_over_paired_seeds():
    rows = along_width(runs(layers=(1,), lengths=(256,), widths=(64, 128, 256)))
    rows = rows[rows["mixer"] == "hyena"].set_index("model.d_model")
    # what a seed adds at both widths cancels, what it adds at one of them stays
    np.testing.assert_allclose(rows.loc[128, ["gain_low", "gain_high"]].astype(float), 0.15)
    half = 4.302653 * 0.02 / np.sqrt(3)
    ends = rows.loc[256, ["gain_low", "gain_high"]].astype(float)
    np.testing.assert_allclose(ends, [0.85 - half, 0.85 + half])
    single = along_width(runs(seeds=(42,)))
    assert single[["gain_low", "gain_high"]].isna().all(axis=None)


def test_sizes_stand_beside_the_accuracy():
    rows = along_width(runs(layers=(2,), lengths=(64,)))
    assert rows.loc[rows["model.d_model"] == 128, "state_size"].unique() == [16 * 2 * 128]
    assert rows["parameters"].is_monotonic_increasing or len(rows) == 6


def test_an_axis_that_tells_no_settings_apart_is_an_error():
    with pytest.raises(ValueError, match=r"do not vary in model\.mlp_ratio"):
        along(runs(), "model.mlp_ratio")


def test_the_smallest_width_that_solves_each_length():
    found = smallest_widths(runs()).set_index(["mixer", "model.num_layers", "task.seq_len"])
    assert found["width"]["hyena", 1].to_dict() == {64: 64, 128: 128, 256: 256}
    assert found["width_low"]["hyena", 2].to_dict() == {64: 64, 128: 128, 256: 256}
    assert (found["width"]["attention", 2] == 64).all()
    assert found["width"]["attention", 1].isna().all()
    assert (
        (found["narrowest"] == 64).all()
        and (found["widest"] == 256).all()
        and (found["relapses"] == 0).all()
    )


def test_seeds_that_disagree_leave_the_smallest_width_in_an_interval():
    def uncertain(mixer, layers, width, length, x, seed):
        solves = {64: (), 128: (42, 123), 256: (42, 123, 777)}[width]
        return hat(x, -3, -2) * (1.0 if seed in solves else 0.9)

    found = smallest_widths(made_up_runs(uncertain, widths=WIDTHS)).iloc[0]
    assert (found["width_low"], found["width"], found["width_high"]) == (128, 128, 256)


@pytest.mark.parametrize(("seeds", "low", "high"), [((42, 123, 777), 64, 128), ((42,), None, None)])
def test_a_width_with_one_seed_is_not_ruled_out(seeds, low, high):
    made = made_up_runs(lambda m, n, d, length, x, s: hat(x, -3, -2), widths=WIDTHS, seeds=seeds)
    made = made[(made["model.d_model"] > 64) | (made["seed"] == 42)]
    found = smallest_widths(made).iloc[0]
    ends = [None if np.isnan(found[name]) else found[name] for name in ("width_low", "width_high")]
    assert found["width"] == 64 and ends == [low, high]


def test_a_wider_model_that_fails_is_counted():
    def relapsing(mixer, layers, width, length, x, seed):
        return hat(x, -3, -2) * (0.5 if width == 128 else 1.0)

    found = smallest_widths(made_up_runs(relapsing, widths=WIDTHS)).iloc[0]
    assert found["width"] == 64 and found["relapses"] == 1
