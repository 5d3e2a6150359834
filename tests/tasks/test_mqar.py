"""MQAR: pairs, then each key once; gaps by the power law, and as in Zoology."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zoorecall.seeding import Stream
from zoorecall.tasks import make_task
from zoorecall.tasks.mqar import MQARConfig, exponential, order_of_arrival, race

from .making import assert_follows, examples, examples_if_any, rows, several_examples

ONE = MQARConfig(vocab_size=50, seq_len=37, num_kv_pairs=5)
RANDOM = ONE.model_copy(update={"filler": "random"})
SHARED = ONE.model_copy(update={"vocabulary": "shared"})
SMALL = [ONE, RANDOM]
LARGE = [MQARConfig(), MQARConfig(seq_len=512, num_kv_pairs=64, filler="random")]
FEW = [
    MQARConfig(vocab_size=6, seq_len=8, num_kv_pairs=2),
    MQARConfig(vocab_size=6, seq_len=8, num_kv_pairs=2, filler="random"),
    MQARConfig(vocab_size=11, seq_len=5, num_kv_pairs=1),
    MQARConfig(vocab_size=6, seq_len=9, num_kv_pairs=2, vocabulary="shared"),
]
PINS = [
    (ONE, "dc424470fa29ed0c"),
    (RANDOM, "98ee4fbed1fb0b39"),
    (SHARED, "6daa35b0717c835f"),
    (RANDOM.model_copy(update={"vocabulary": "shared"}), "6e1873c376b30657"),
    (ONE.model_copy(update={"power_a": 0.7}), "f88dbe4a21afe3e1"),
    (LARGE[0], "ba3a9fe17661a44c"),
    (LARGE[1], "4955b9675d46aecb"),
]
IMPOSSIBLE = [
    (
        {"num_kv_pairs": 20},
        "num_kv_pairs 20 needs a seq_len of at least 80 (4 tokens a pair), 16 more than 64",
    ),
    (
        {"vocab_size": 16, "num_kv_pairs": 10},
        "vocab_size 16 leaves 7 keys, 3 fewer than num_kv_pairs 10",
    ),
    (
        {"vocab_size": 16, "num_kv_pairs": 10, "vocabulary": "shared"},
        "vocab_size 16 leaves 15 keys and values, 5 fewer than num_kv_pairs 10 needs",
    ),
]
REFUSED = [{"num_pairs": 4}, {"vocab_size": "64"}, {"power_a": 0.0}]


def solve(config: MQARConfig, tokens: list[int]) -> int:
    return tokens[tokens.index(tokens[-1]) + 1]


@st.composite
def configs(draw) -> MQARConfig:
    K = draw(st.integers(1, 9))
    vocabulary = draw(st.sampled_from(["split", "shared"]))
    least = 2 * K + 2 if vocabulary == "split" else 2 * K + 1
    return MQARConfig(
        vocab_size=draw(st.integers(least, least + 12) | st.integers(255, 300)),
        seq_len=4 * K + draw(st.integers(0, 30)),
        num_kv_pairs=K,
        power_a=draw(st.sampled_from([0.01, 0.5, 1.0, 3.0])),
        filler=draw(st.sampled_from(["zero", "random"])),
        vocabulary=vocabulary,
    )


def test_a_filler_changes_neither_the_pairs_nor_the_queries():
    zero = examples(ONE, 300)
    random = examples(RANDOM, 300)
    assert (zero.query_positions == random.query_positions).all()
    assert (zero.targets == random.targets).all()
    assert (zero.tokens[:, :10] == random.tokens[:, :10]).all()


@several_examples
@given(configs(), st.integers(0, 99))
def test_mqar_examples_are_pairs_and_then_each_key_once(config, seed):
    K, V, L = config.num_kv_pairs, config.vocab_size, config.seq_len
    made = examples_if_any(config, 29, seed, "train")
    for tokens, positions, targets, _ in zip(*made, strict=True):
        keys, values, rest = tokens[0 : 2 * K : 2], tokens[1 : 2 * K : 2], tokens[2 * K :]
        assert len({*keys}) == len({*values}) == K and 0 not in keys and 0 not in values
        if config.vocabulary == "split":
            assert keys.max() < V // 2 <= values.min()
        else:
            assert not {*keys} & {*values}
        # query i asks for key i, each at a slot of its own
        assert (tokens[positions] == keys).all() and (targets == values).all()
        gaps = (positions - 2 * K) // 2 + 1
        assert (positions % 2 == 0).all() and len({*gaps}) == K
        assert gaps.min() >= 1 and gaps.max() <= config.num_slots
        # what is neither a pair nor a query
        filler = np.delete(rest, positions - 2 * K)
        assert len(filler) == L - 3 * K and not {*keys} & {*filler}
        assert config.filler == "random" or not filler.any()


@several_examples
@given(
    st.integers(2, 60), st.integers(1, 60), st.integers(1, 16), st.sampled_from(["split", "shared"])
)
def test_mqar_settings_are_refused_exactly_when_they_do_not_fit(V, L, K, vocabulary):
    # split: tokens 1 .. V // 2 - 1 are keys; shared: tokens 1 .. V - 1 are keys and values
    lacks = [4 * K - L, K + 1 - V // 2 if vocabulary == "split" else 2 * K + 1 - V]
    options = {"vocab_size": V, "seq_len": L, "num_kv_pairs": K, "vocabulary": vocabulary}
    if max(lacks) <= 0:
        MQARConfig(**options)
        return
    sentence = f"{lacks[0]} more than" if lacks[0] > 0 else f"{lacks[1]} fewer than"
    with pytest.raises(ValidationError, match=sentence):
        MQARConfig(**options)


def every_list(config: MQARConfig) -> int:
    """How many different lists of pairs a config with a split vocabulary has."""
    keys, values = config.vocab_size // 2 - 1, (config.vocab_size + 1) // 2
    return math.perm(keys, config.num_kv_pairs) * math.perm(values, config.num_kv_pairs)


def test_train_and_test_share_no_list_of_pairs_and_together_have_them_all():
    config = MQARConfig(vocab_size=8, seq_len=13, num_kv_pairs=2, filler="random")
    lists = [rows(examples(config, 3000, 5, split).tokens[:, :4]) for split in ("train", "test")]
    assert not lists[0] & lists[1]
    assert len(lists[0]) + len(lists[1]) == every_list(config) == 72


def test_a_split_without_examples_is_an_error():
    config = MQARConfig(vocab_size=4, seq_len=64, num_kv_pairs=1)  # two lists of pairs
    assert every_list(config) == 2
    splits = []
    for split in ("train", "test"):
        try:
            splits.append(len(examples(config, 3, 0, split).tokens))
        except ValueError as error:
            assert f"none is a {split} example" in str(error)
            splits.append(0)
    assert sorted(splits) == [0, 3]


def gaps(config: MQARConfig, n: int) -> np.ndarray:
    """Gap of each key's query, counted from 1: [n, K]."""
    return (examples(config, n).query_positions - 2 * config.num_kv_pairs) // 2 + 1


@pytest.mark.parametrize(
    ("seq_len", "num_kv_pairs", "num_slots"),
    [(64, 4, 28), (128, 8, 56), (256, 16, 112), (512, 64, 192), (256, 64, 64), (13, 3, 3)],
)
def test_queries_have_as_many_slots_as_in_zoology(seq_len, num_kv_pairs, num_slots):
    config = MQARConfig(seq_len=seq_len, num_kv_pairs=num_kv_pairs, power_a=1.0)
    found = gaps(config, 400)
    assert config.num_slots == num_slots
    assert (found.min(), found.max()) == (1, num_slots)


@pytest.mark.parametrize("power_a", [0.01, 0.6, 1.0, 2.5])
def test_the_gap_of_a_single_pair_follows_the_power_law(power_a):
    config = MQARConfig(vocab_size=64, seq_len=38, num_kv_pairs=1, power_a=power_a)
    g = np.arange(1, config.num_slots + 1)
    counts = np.bincount(gaps(config, 120_000)[:, 0], minlength=len(g) + 1)[1:]
    assert_follows(counts, power_a * g ** (power_a - 1))


def test_the_gaps_of_two_pairs_are_drawn_one_after_the_other():
    config = MQARConfig(vocab_size=64, seq_len=20, num_kv_pairs=2)
    S = config.num_slots
    weight = np.arange(1.0, S + 1) ** -0.99
    first, second = gaps(config, 200_000).T - 1
    joint = np.outer(weight, weight) / (weight.sum() - weight)[:, None]  # P(i) P(j | not i)
    apart = ~np.eye(S, dtype=bool)
    counts = np.bincount(first * S + second, minlength=S * S).reshape(S, S)
    assert not counts[~apart].any()
    assert_follows(counts[apart], joint[apart])
    assert first.mean() < second.mean()  # an earlier key tends to a smaller gap


def test_a_race_over_every_slot_orders_them_as_drawing_one_after_the_other():
    scale = np.array([1.0, 2.0, 4.0, 0.5])
    drawn = race(Stream(0, "race").halves(240_000, 4), scale, 4)
    probabilities, counts = [], []
    for order in itertools.permutations(range(4)):
        left = [sum(1 / scale[slot] for slot in order[i:]) for i in range(4)]
        probabilities.append(np.prod([1 / scale[s] / w for s, w in zip(order, left, strict=True)]))
        counts.append((drawn == order).all(axis=1).sum())
    assert_follows(np.array(counts), np.array(probabilities))


def test_exponential_times_are_the_logarithms_of_the_words_and_positive():
    words = np.concatenate(
        [Stream(0, "words").halves(10_000), np.array([0, 1, 2**32 - 2, 2**32 - 1], np.uint32)]
    )
    times = exponential(words)
    np.testing.assert_allclose(times, -np.log((words + 0.5) / 2**32), rtol=0, atol=1e-12)
    assert times.min() > 0


def test_a_random_filler_is_any_token_but_the_keys():
    config = MQARConfig(vocab_size=14, seq_len=31, num_kv_pairs=3, filler="random")
    made = examples(config, 20_000)
    last = made.tokens[:, -1]  # an odd length leaves a last token that is never a query
    counts = np.zeros((2, 14))
    for token in range(14):
        free = (made.tokens[:, 0:6:2] != token).all(axis=1)
        counts[:, token] = (last == token).sum(), free.sum()
    # each of the 14 - 3 tokens that are not keys has the same chance
    assert_follows(counts[0], counts[1])


def test_keys_and_values_are_uniform_at_every_place_and_in_both_splits():
    config = MQARConfig(vocab_size=13, seq_len=12, num_kv_pairs=3, vocabulary="shared")
    made = [examples(config, 20_000, 0, split).tokens for split in ("train", "test")]
    for tokens in made:
        for place in range(6):
            assert_follows(np.bincount(tokens[:, place], minlength=13)[1:], np.ones(12))


@pytest.mark.parametrize("filler", ["zero", "random"])
def test_long_examples_are_made_quickly_and_in_little_memory(filler):
    task = make_task(MQARConfig(seq_len=512, num_kv_pairs=64, filler=filler))
    n = 20_000
    start = time.perf_counter()
    made = task.examples(n, 0, "train")
    assert time.perf_counter() - start < 4  # about 0.2 on one core
    tracemalloc.start()
    task.examples(1000, 0, "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = sum(array.nbytes for array in made) * 1000 / n
    assert peak - arrays < 32 * 2**20


@pytest.mark.parametrize(("length", "pairs"), [(64, 4), (32, 4), (256, 64)])
def test_what_positions_give_away_is_what_a_count_of_examples_finds(length, pairs):
    config = MQARConfig(seq_len=length, num_kv_pairs=pairs, vocab_size=256)
    made = make_task(config).examples(6000, seed=1, split="train")
    slots = (made.query_positions - 2 * pairs) // 2
    counts = np.zeros((config.num_slots, pairs), dtype=int)
    np.add.at(counts, (slots[:4000].ravel(), np.tile(np.arange(pairs), 4000)), 1)
    right = (counts.argmax(axis=1)[slots[4000:]] == np.arange(pairs)).mean()
    assert make_task(config).without_recall() == pytest.approx(right, abs=0.015)


def test_the_order_of_arrival_is_that_of_all_orders_one_by_one():
    scale, k = np.array([1.0, 2.0, 5.0, 0.5]), 2
    expected = np.zeros((k, 4))
    for order in itertools.permutations(range(4), k):
        left, chance = set(range(4)), 1.0
        for slot in order:
            chance *= (1 / scale[slot]) / sum(1 / scale[i] for i in left)
            left.remove(slot)
        for place, slot in enumerate(order):
            expected[place, slot] += chance
    np.testing.assert_allclose(order_of_arrival(scale, k), expected, atol=1e-6)
