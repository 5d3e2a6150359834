"""Patterns of mixers: which layer has which, one of length one, and what a pattern costs."""

import pytest
import torch
from torch.testing import assert_close

from zoorecall import columns, train
from zoorecall.analysis.summary import summarize
from zoorecall.config import RunConfig
from zoorecall.errors import GridError
from zoorecall.grid import load_grid
from zoorecall.mixers import MIXERS
from zoorecall.model.cost import count_parameters, forward_flops, state_size
from zoorecall.model.model import build_model

MAMBA2 = {"name": "mamba2", "d_state": 4, "headdim": 8}


def run(mixer, num_layers=4, **model) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": {"name": "mqar", "vocab_size": 32, "seq_len": 12, "num_kv_pairs": 2},
            "model": {"d_model": 16, "num_layers": num_layers, "mixer": mixer, **model},
            "train": {"train_examples": 40, "batch_size": 20, "test_examples": 10}
            | {"evaluations": 1, "epochs": 1},
        }
    )


def pattern(*mixers, **options) -> dict:
    return {"name": "pattern", "mixers": list(mixers), **options}


def layers(mixer, num_layers) -> str:
    """The first letter of each layer's mixer."""
    model = build_model(run(mixer, num_layers))
    return "".join(type(layer.mixer).__name__[0] for layer in model.each_layer())


def test_mixers_are_repeated_to_the_depth():
    assert layers(pattern("hyena", "gla", "attention"), 7) == "HGAHGAH"


def test_attention_stands_where_it_is_asked_for_and_the_others_share_the_rest():
    assert layers(pattern("attention", "hyena", "delta_net", attention_at=[0, 3]), 6) == "AHDAHD"
    assert layers(pattern("hyena", "attention", attention_at=[]), 3) == "HHH"


@pytest.mark.parametrize(
    ("share", "depth", "at"),
    [
        ("50", 12, (1, 3, 5, 7, 9, 11)),
        ("75", 12, (3, 7, 11)),
        ("83", 12, (5, 11)),
        ("87.5", 8, (7,)),
    ],
)
def test_a_share_is_a_name_for_a_list(share, depth, at):
    named = run(pattern("hyena", "attention", attention_at=share), depth)
    assert named.model.mixer.attention_at == at
    assert named.run_id == run(pattern("hyena", "attention", attention_at=list(at)), depth).run_id
    (row,) = [columns.attention_share(named.model_dump(mode="json")["model"]["mixer"], depth)]
    assert row == len(at) / depth


@pytest.mark.parametrize("name", MIXERS)
def test_a_pattern_of_one_mixer_is_that_mixer(name):
    one, plain = run(pattern(name), d_model=32), run(name, d_model=32)
    assert one == plain and one.run_id == plain.run_id


def test_a_model_of_one_mixer_twice_has_its_numbers_bit_for_bit():
    twice, once = run(pattern("gla", "gla")), run("gla")
    assert twice.run_id != once.run_id  # it is known by what it says
    for parameter, other in zip(
        build_model(twice).parameters(), build_model(once).parameters(), strict=True
    ):
        assert torch.equal(parameter, other)
    for cost in (count_parameters, state_size, forward_flops):
        assert cost(twice) == cost(once)


def test_state_parameters_and_flops_are_sums_over_layers():
    mixed, costs = run(pattern(MAMBA2, "hyena"), 4), (count_parameters, state_size)
    for cost in costs:
        assert 2 * cost(mixed) == cost(run(MAMBA2, 4)) + cost(run("hyena", 4))


def test_step_by_step_equals_all_at_once():
    model = build_model(run(pattern(MAMBA2, {"name": "attention", "rope": True}, "delta_net"), 3))
    tokens = torch.randint(0, 32, (1, 2, 12))
    everywhere = torch.arange(12).expand(1, 2, 12)
    state, logits = model.initial_state(1, 2, 12), []
    for token in tokens.unbind(2):
        y, state = model.step(token, state)
        logits.append(y)
    assert_close(torch.stack(logits, 2), model(tokens, everywhere), rtol=1e-4, atol=1e-5)


def test_positions_are_learned_where_a_mixer_of_the_papers_has_them():
    assert run(pattern("gla", "attention")).model.positions == "learned"
    rope = {"name": "attention", "rope": True}
    assert run(pattern("gla", rope)).model.positions == "none"


def test_each_pattern_is_a_row_of_its_own_and_an_option_at_its_default_changes_no_id():
    plain = pattern("hyena", "attention")
    found = train([run(plain), run(pattern("attention", "hyena")), run("hyena")], device="cpu")
    assert list(summarize(found).table()["mixer"]) == [
        "attention + hyena", "hyena", "hyena + attention",
    ]  # fmt: skip
    assert sorted(found.runs["attention_share"]) == [0.0, 0.5, 0.5]
    explicit = pattern("hyena", {"name": "attention", "num_heads": 1})
    assert run(explicit).run_id == run(plain).run_id
    assert run(pattern("hyena", "attention", attention_at=[1])).model.mixer.label == (
        "hyena + attention at 1"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("mixers: [gla, attention], attention_at: [9]", "[9] is beyond the last of num_layers 2"),
        ("mixers: [gla, hyena], attention_at: [1]", "needs attention once among the mixers"),
        ("mixers: [gla, attention], attention_at: [1, 0]", "should be layers in order"),
        ('mixers: [gla, attention], attention_at: "75"', "needs num_layers 2 in groups of 4"),
        ("mixers: [gla, {name: attention, num_head: 2}]", "did you mean 'num_heads'?"),
        ("mixers: [gla, atention]", "there is no mixer 'atention', did you mean 'attention'?"),
        ("mixers: [gla, {name: pattern, mixers: [gla, hyena]}]", "there is no mixer 'pattern'"),
        ("mixers: gla", "should be a list"),
    ],
)
def test_a_pattern_that_cannot_be_is_one_line(options, said, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(f"axes:\n  model.mixer:\n    - attention\n    - {{name: pattern, {options}}}\n")
    with pytest.raises(GridError) as error:
        load_grid(path)
    assert f"{path}:4: model.mixer" in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)
