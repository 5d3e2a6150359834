"""Key-value-sum: pairs, then a question; both variants alike but for what they name."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoorecall.seeding import Stream
from zoorecall.tasks import key_value_sum
from zoorecall.tasks.key_value_sum import KeyValueSumConfig

from .making import assert_follows, examples, examples_if_any, several_examples

ONE = KeyValueSumConfig(num_pairs=6, num_operands=2, num_values=7, num_keys=9)
BOTH = ONE.model_copy(update={"recall": "both"})
SMALL = [ONE, BOTH]
LARGE = [KeyValueSumConfig(num_pairs=50), KeyValueSumConfig(num_pairs=50, recall="both")]
FEW = [
    KeyValueSumConfig(num_pairs=3, num_operands=2, num_values=2, num_keys=3, recall=recall)
    for recall in (True, False, "both")
]
PINS = [
    (KeyValueSumConfig(), "43dfbddf28432c5d"),
    (KeyValueSumConfig(recall=False), "3458530166828dd0"),
    (KeyValueSumConfig(recall="both"), "5b912e1e9801e2e1"),
    (ONE, "c74f3c946cc99372"),
]
IMPOSSIBLE = [
    (
        {"num_pairs": 3, "num_operands": 5},
        "num_operands 5 needs as many pairs, 2 more than num_pairs 3",
    ),
    ({"num_pairs": 50, "num_keys": 30}, "num_keys 30 is 20 fewer than num_pairs 50"),
]
REFUSED = [{"recall": 1}, {"recall": "AR"}, {"num_values": 1}]


def solve(config: KeyValueSumConfig, tokens: list[int]) -> int:
    add, recall = config.vocab_size - 3, config.vocab_size - 2
    question = next(i for i, token in enumerate(tokens) if token in (add, recall))
    operands = tokens[question + 1 : -1]
    if tokens[question] == recall:
        operands = [tokens[tokens.index(key) + 1] for key in operands]
    return sum(operands)


@st.composite
def configs(draw) -> KeyValueSumConfig:
    num_pairs = draw(st.integers(1, 12))
    return KeyValueSumConfig(
        num_pairs=num_pairs,
        num_operands=draw(st.integers(1, num_pairs)),
        num_values=draw(st.integers(2, 20)),
        num_keys=num_pairs + draw(st.integers(0, 12)),
        recall=draw(st.sampled_from([True, False, "both"])),
    )


@several_examples
@given(configs(), st.integers(0, 99))
def test_key_value_sum_examples_are_pairs_and_then_a_question_of_different_pairs(config, seed):
    P, numbers = config.num_pairs, config.num_numbers
    made = examples_if_any(config, 29, seed, "train")
    add, recall, equals = range(numbers + config.num_keys, config.vocab_size)
    for tokens, positions, targets, slices in zip(*made, strict=True):
        recalls = [config.slices[i] == "AR" for i in slices] if config.slices else [config.recall]
        keys, values, operands = (
            tokens[0 : 2 * P : 2],
            tokens[1 : 2 * P : 2],
            tokens[2 * P + 1 : -1],
        )
        assert len({*keys}) == P and keys.min() >= numbers and keys.max() < add
        assert values.min() >= 0 and values.max() < config.num_values
        assert tokens[2 * P] == (recall if recalls[0] else add)
        assert positions.tolist() == [len(tokens) - 1] and tokens[-1] == equals
        assert len(operands) == config.num_operands and 0 <= targets[0] < numbers
        if recalls[0]:
            assert {*operands} <= {*keys} and len({*operands}) == len(operands)
        else:
            assert all((values == o).sum() >= (operands == o).sum() for o in operands)


@several_examples
@given(configs(), st.integers(0, 99), st.sampled_from(["train", "test"]))
def test_both_variants_have_the_same_lists_indices_and_answers(config, seed, split):
    P = config.num_pairs
    ar, plain = (
        examples_if_any(config.model_copy(update={"recall": recall}), 31, seed, split)
        for recall in (True, False)
    )
    assert (ar.targets == plain.targets).all()
    assert (ar.query_positions == plain.query_positions).all()
    differ = (ar.tokens != plain.tokens).any(axis=0)
    assert differ.tolist() == [False] * 2 * P + [True] * (1 + config.num_operands) + [False]
    # the values that the one variant names are those of the keys that the other names
    for with_keys, with_values in zip(ar.tokens, plain.tokens, strict=True):
        value_of = dict(zip(with_keys[0 : 2 * P : 2], with_keys[1 : 2 * P : 2], strict=True))
        recalled = [value_of[key] for key in with_keys[2 * P + 1 : -1]]
        assert recalled == with_values[2 * P + 1 : -1].tolist()


@several_examples
@given(configs(), st.integers(0, 99), st.sampled_from(["train", "test"]))
def test_an_example_of_both_is_that_of_the_variant_its_slice_names(config, seed, split):
    ar, plain, both = (
        examples_if_any(config.model_copy(update={"recall": recall}), 31, seed, split)
        for recall in (True, False, "both")
    )
    assert {*both.slices.flat} <= {0, 1}
    for i, variant in enumerate(both.slices[:, 0]):
        for ours, theirs in zip(both[:3], (ar, plain)[variant][:3], strict=True):
            assert (ours[i] == theirs[i]).all()


def test_both_variants_are_as_frequent_in_either_split_and_each_on_its_own():
    for split in ("train", "test"):
        variants = examples(BOTH, 20_000, 0, split).slices[:, 0]
        assert_follows(np.bincount(2 * variants[::2] + variants[1::2]), np.ones(4))


def test_indices_are_uniform_over_ordered_choices():
    config = KeyValueSumConfig(num_pairs=4, num_operands=2, num_values=50, num_keys=20)
    tokens = examples(config, 60_000).tokens
    keys, named = tokens[:, 0:8:2], tokens[:, 9:11]
    a, b = (keys == named[:, [0]]).argmax(axis=1), (keys == named[:, [1]]).argmax(axis=1)
    counts = np.bincount(4 * a + b, minlength=16).reshape(4, 4)
    apart = ~np.eye(4, dtype=bool)
    assert not counts[~apart].any()
    assert_follows(counts[apart], np.ones(12))
    assert_follows(np.bincount(tokens[:, 1]), np.ones(50))


def test_the_best_guess_is_that_of_all_choices_counted_one_by_one(monkeypatch):
    monkeypatch.setattr(key_value_sum, "LISTS", 40)
    key_value_sum.best_guess.cache_clear()
    words = Stream(0, "without recall", 6, 3, 4).bits(40, 6) % np.uint64(4)
    shares = []
    for values in words.astype(int):
        counts = Counter(sum(chosen) for chosen in itertools.combinations(values.tolist(), 3))
        shares.append(max(counts.values()) / sum(counts.values()))
    assert key_value_sum.best_guess(6, 3, 4) == pytest.approx(np.mean(shares))
    key_value_sum.best_guess.cache_clear()


def test_who_is_asked_for_all_values_needs_no_recall():
    assert key_value_sum.best_guess(3, 3, 10) == 1
