"""What holds of every mixer, whatever its options."""

import pytest

from zoorecall.mixers import MIXERS, make_mixer

WIDTH, LONGEST = 12, 13

CASES = [
    ("attention", {}, 120, 264),
    ("attention", {"num_heads": 3, "conv": "q", "conv_size": 2}, 132, 276),
    ("attention", {"num_heads": 2, "conv": "k", "conv_size": 3}, 144, 288),
    ("attention", {"conv": "v"}, 156, 300),
    ("attention", {"conv": "qk", "rope": True}, 192, 336),
    ("attention", {"num_heads": 3, "conv": "qv", "rope": True}, 192, 336),
    ("attention", {"conv": "kv", "conv_size": 9}, 312, 456),
    ("attention", {"num_heads": 3, "conv": "qkv", "conv_size": 3}, 192, 336),
    ("attention", {"num_heads": 2, "rope": True}, 120, 264),
    ("based", {}, 1989, 1989),
    ("based", {"num_heads": 3, "feature_dim": 5}, 315, 315),
    ("h3", {}, 432, 432),
    ("h3", {"head_dim": 1, "d_state": 2}, 36, 36),
    ("h3", {"head_dim": 3, "d_state": 5}, 192, 192),
    ("hyena", {}, 132, 204),
    (
        "hyena",
        {"conv_size": 4, "filter_order": 7, "filter_freq": 2.0, "emb_dim": 5, "init_std": 0.3},
        168,
        240,
    ),
    ("rwkv", {}, 48, 48),
    ("mamba", {}, 456, 456),
    ("mamba", {"expand": 3, "d_state": 5, "d_conv": 3, "dt_rank": 2, "init_std": 0.3}, 252, 252),
    ("mamba", {"conv": False, "norm": True}, 384, 384),
    ("mamba", {"gating": False, "d_state": 3}, 144, 144),
    ("s6", {}, 192, 192),
    ("s6", {"conv": True, "d_state": 5, "d_conv": 3, "dt_rank": 2, "init_std": 0.3}, 84, 84),
    ("mamba2", {"headdim": 8}, 3912, 3912),
    (
        "mamba2",
        {"headdim": 4, "expand": 3, "d_state": 5, "d_conv": 3, "ngroups": 3, "init_std": 0.3},
        312,
        312,
    ),
    ("delta_net", {}, 252, 252),
    ("delta_net", {"num_heads": 3, "conv_size": 3}, 120, 120),
    ("delta_net", {"conv": False}, 144, 144),
    ("gated_delta_net", {}, 432, 432),
    ("gated_delta_net", {"num_heads": 3, "expand_v": 1, "conv_size": 3}, 120, 120),
    ("gated_delta_net", {"num_heads": 2, "head_dim": 5, "conv": False}, 100, 100),
    ("gated_delta_net", {"gating": False}, 432, 432),
    ("gla", {}, 72, 72),
    (
        "gla",
        {"num_heads": 3, "expand_k": 1.0, "expand_v": 0.5, "conv": True, "conv_size": 3},
        84,
        84,
    ),
    ("gla", {"gating": False}, 72, 72),
]
"""A mixer, its options, and the size of its state after 5 and after 11 positions."""

each_mixer = pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES])


def solo(name, options):
    """A mixer of one run."""
    config = MIXERS[name].Config(**options)
    config.check(WIDTH)
    return make_mixer(config, WIDTH, LONGEST, num_layers=2, layer=1)


def test_every_mixer_has_a_case_of_each_option():
    for name, mixer in MIXERS.items():
        given = {option for case, options, *_ in CASES if case == name for option in options}
        assert {"name", *given} == set(mixer.Config.model_fields)


@pytest.mark.parametrize(("name", "options", "after_5", "after_11"), CASES)
def test_state_size_is_known(name, options, after_5, after_11):
    mixer = solo(name, options)
    assert (mixer.state_size(5), mixer.state_size(11)) == (after_5, after_11)
