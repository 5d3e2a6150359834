"""The tasks: the same bytes everywhere, valid for every valid config, solvable, split cleanly.

Shape letters: n examples, L length, Q queries, K pairs, V vocabulary, S slots.
"""

import hashlib
import itertools
import math
import re
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from zoorecall.seeding import Stream
from zoorecall.tasks import (
    TASKS,
    AnyTaskConfig,
    Examples,
    KeyValueSumConfig,
    MQARConfig,
    TaskConfig,
    key_value_sum,
    make_task,
)
from zoorecall.tasks.base import CHUNK, Pool, below, is_test
from zoorecall.tasks.mqar import exponential, order_of_arrival, race

SMALL_MQAR = MQARConfig(vocab_size=50, seq_len=37, num_kv_pairs=5)
SMALL_SUM = KeyValueSumConfig(num_pairs=6, num_operands=2, num_values=7, num_keys=9)
SMALL_BOTH = SMALL_SUM.model_copy(update={"recall": "both"})
several_examples = settings(max_examples=60, deadline=None, derandomize=True)


def examples(config: TaskConfig, n: int, seed: int = 0, split: str = "train", block: int = 0):
    return make_task(config).examples(n, seed, split, block)


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


def solve_mqar(config: MQARConfig, tokens: list[int]) -> int:
    return tokens[tokens.index(tokens[-1]) + 1]


def solve_key_value_sum(config: KeyValueSumConfig, tokens: list[int]) -> int:
    add, recall = config.vocab_size - 3, config.vocab_size - 2
    question = next(i for i, token in enumerate(tokens) if token in (add, recall))
    operands = tokens[question + 1 : -1]
    if tokens[question] == recall:
        operands = [tokens[tokens.index(key) + 1] for key in operands]
    return sum(operands)


def solve(config: TaskConfig, made: Examples) -> np.ndarray:
    """The answers of a brute-force solver, which sees the tokens up to each query and no more."""
    solver, _ = EVERY_TASK[config.name]
    rows = zip(made.tokens.tolist(), made.query_positions.tolist(), strict=True)
    return np.array([[solver(config, row[: q + 1]) for q in queries] for row, queries in rows])


@st.composite
def mqar_configs(draw) -> MQARConfig:
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


@st.composite
def key_value_sum_configs(draw) -> KeyValueSumConfig:
    num_pairs = draw(st.integers(1, 12))
    return KeyValueSumConfig(
        num_pairs=num_pairs,
        num_operands=draw(st.integers(1, num_pairs)),
        num_values=draw(st.integers(2, 20)),
        num_keys=num_pairs + draw(st.integers(0, 12)),
        recall=draw(st.sampled_from([True, False, "both"])),
    )


EVERY_TASK = {
    "mqar": (solve_mqar, mqar_configs()),
    "key_value_sum": (solve_key_value_sum, key_value_sum_configs()),
}
"""By name, a brute-force solver, which answers the last of the tokens it gets, and configs."""

every_task = pytest.mark.parametrize("name", sorted(TASKS))


def examples_if_any(config: TaskConfig, n: int, seed: int, split: str) -> Examples:
    """Examples of a config that may be so small that the split is empty."""
    try:
        return examples(config, n, seed, split)
    except ValueError as error:
        assert "none of" in str(error)
        reject()


@pytest.mark.parametrize(
    ("config", "pin"),
    [
        (SMALL_MQAR, "dc424470fa29ed0c"),
        (SMALL_MQAR.model_copy(update={"filler": "random"}), "98ee4fbed1fb0b39"),
        (SMALL_MQAR.model_copy(update={"vocabulary": "shared"}), "6daa35b0717c835f"),
        (
            SMALL_MQAR.model_copy(update={"filler": "random", "vocabulary": "shared"}),
            "6e1873c376b30657",
        ),
        (SMALL_MQAR.model_copy(update={"power_a": 0.7}), "f88dbe4a21afe3e1"),
        (MQARConfig(), "ba3a9fe17661a44c"),
        (MQARConfig(seq_len=512, num_kv_pairs=64, filler="random"), "4955b9675d46aecb"),
        (KeyValueSumConfig(), "43dfbddf28432c5d"),
        (KeyValueSumConfig(recall=False), "3458530166828dd0"),
        (KeyValueSumConfig(recall="both"), "5b912e1e9801e2e1"),
        (SMALL_SUM, "c74f3c946cc99372"),
    ],
)
def test_the_bytes_of_an_example_never_change(config, pin):
    train = examples(config, 2 * CHUNK + 31, seed=42)
    assert digest(train, examples(config, 61, 7, "test", block=3)) == pin


@pytest.mark.parametrize("config", [SMALL_MQAR, SMALL_SUM, SMALL_BOTH], ids=str)
def test_examples_differ_with_the_seed_the_split_and_the_block_and_with_nothing_else(config):
    cases = [(0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 1)]
    task = make_task(config)
    digests = {case: digest(task.examples(19, *case)) for case in cases}
    for case in reversed(cases):
        assert digest(make_task(config).examples(19, *case)) == digests[case]
    assert len({*digests.values()}) == len(cases)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "config",
    [SMALL_MQAR, SMALL_MQAR.model_copy(update={"filler": "random"}), SMALL_SUM, SMALL_BOTH],
    ids=str,
)
def test_the_first_examples_do_not_depend_on_how_many_are_made(config, split):
    task, longest = make_task(config), 3 * CHUNK + 5
    whole = task.examples(longest, 3, split)
    for m in (0, 1, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 1, longest):
        assert digest(task.examples(m, 3, split)) == digest(Examples(*(a[:m] for a in whole)))


def test_a_filler_changes_neither_the_pairs_nor_the_queries():
    zero = examples(SMALL_MQAR, 300)
    random = examples(SMALL_MQAR.model_copy(update={"filler": "random"}), 300)
    assert (zero.query_positions == random.query_positions).all()
    assert (zero.targets == random.targets).all()
    assert (zero.tokens[:, :10] == random.tokens[:, :10]).all()


@every_task
@several_examples
@given(st.data(), st.integers(0, 99), st.sampled_from(["train", "test"]))
def test_a_brute_force_solver_answers_every_query(name, data, seed, split):
    config = data.draw(EVERY_TASK[name][1])
    made = examples_if_any(config, 23, seed, split)
    assert (solve(config, made) == made.targets).all()


@pytest.mark.parametrize(
    "config",
    [
        MQARConfig(),
        MQARConfig(seq_len=512, num_kv_pairs=64, filler="random"),
        KeyValueSumConfig(num_pairs=50),
        KeyValueSumConfig(num_pairs=50, recall="both"),
    ],
    ids=str,
)
def test_a_brute_force_solver_answers_every_query_of_the_papers_sizes(config):
    for split in ("train", "test"):
        made = examples(config, 23, 0, split)
        assert (solve(config, made) == made.targets).all()


@every_task
@several_examples
@given(st.data(), st.integers(0, 99))
def test_examples_have_the_shapes_and_the_tokens_their_config_tells(name, data, seed):
    config, n = data.draw(EVERY_TASK[name][1]), 17
    made = examples_if_any(config, n, seed, "train")
    Q = config.num_queries
    shapes = [(n, config.seq_len), (n, Q), (n, Q), (n, Q if config.slices else 0)]
    assert [a.shape for a in made] == shapes
    assert [a.dtype for a in made] == [np.int32, np.int32, np.int32, np.int8]
    assert ((made.slices >= -1) & (made.slices < len(config.slices))).all()
    assert made.tokens.min() >= 0 and made.tokens.max() < config.vocab_size
    assert made.targets.min() >= 0 and made.targets.max() < config.vocab_size
    assert made.query_positions.min() >= 0 and made.query_positions.max() < config.seq_len


@several_examples
@given(mqar_configs(), st.integers(0, 99))
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
@given(key_value_sum_configs(), st.integers(0, 99))
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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"name": "mqar", "num_kv_pairs": 20},
            "num_kv_pairs 20 needs a seq_len of at least 80 (4 tokens a pair), 16 more than 64",
        ),
        (
            {"name": "mqar", "vocab_size": 16, "num_kv_pairs": 10},
            "vocab_size 16 leaves 7 keys, 3 fewer than num_kv_pairs 10",
        ),
        (
            {"name": "mqar", "vocab_size": 16, "num_kv_pairs": 10, "vocabulary": "shared"},
            "vocab_size 16 leaves 15 keys and values, 5 fewer than num_kv_pairs 10 needs",
        ),
        (
            {"name": "key_value_sum", "num_pairs": 3, "num_operands": 5},
            "num_operands 5 needs as many pairs, 2 more than num_pairs 3",
        ),
        (
            {"name": "key_value_sum", "num_pairs": 50, "num_keys": 30},
            "num_keys 30 is 20 fewer than num_pairs 50",
        ),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_with_what_is_missing(options, sentence):
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        TypeAdapter(AnyTaskConfig).validate_python(options)


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


@pytest.mark.parametrize(
    "options",
    [
        {"name": "mqar", "num_pairs": 4},
        {"name": "mqar", "vocab_size": "64"},
        {"name": "mqar", "power_a": 0.0},
        {"name": "key_value_sum", "recall": 1},
        {"name": "key_value_sum", "recall": "AR"},
        {"name": "key_value_sum", "num_values": 1},
        {"name": "multiquery_ar"},
        {},
    ],
    ids=str,
)
def test_unknown_or_mistyped_options_are_refused(options):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyTaskConfig).validate_python(options)


def test_a_name_picks_the_task():
    for name, task in TASKS.items():
        config: TaskConfig = TypeAdapter(AnyTaskConfig).validate_python({"name": name})
        assert type(config) is task.Config and type(make_task(config)) is task
        assert make_task(config).config == config


def every_mqar(config: MQARConfig) -> int:
    """How many different lists of pairs a config with a split vocabulary has."""
    keys, values = config.vocab_size // 2 - 1, (config.vocab_size + 1) // 2
    return math.perm(keys, config.num_kv_pairs) * math.perm(values, config.num_kv_pairs)


@pytest.mark.parametrize(
    "config",
    [
        MQARConfig(vocab_size=6, seq_len=8, num_kv_pairs=2),
        MQARConfig(vocab_size=6, seq_len=8, num_kv_pairs=2, filler="random"),
        MQARConfig(vocab_size=11, seq_len=5, num_kv_pairs=1),
        MQARConfig(vocab_size=6, seq_len=9, num_kv_pairs=2, vocabulary="shared"),
        KeyValueSumConfig(num_pairs=3, num_operands=2, num_values=2, num_keys=3),
        KeyValueSumConfig(num_pairs=3, num_operands=2, num_values=2, num_keys=3, recall=False),
        KeyValueSumConfig(num_pairs=3, num_operands=2, num_values=2, num_keys=3, recall="both"),
    ],
    ids=str,
)
def test_train_and_test_share_no_example_even_where_there_are_few(config):
    train = np.concatenate([examples(config, 2000, seed).tokens for seed in (0, 1)])
    test = np.concatenate([examples(config, 2000, seed, "test").tokens for seed in (0, 1)])
    assert len(rows(train)) < len(train) and not rows(train) & rows(test)


def test_train_and_test_share_no_list_of_pairs_and_together_have_them_all():
    config = MQARConfig(vocab_size=8, seq_len=13, num_kv_pairs=2, filler="random")
    lists = [rows(examples(config, 3000, 5, split).tokens[:, :4]) for split in ("train", "test")]
    assert not lists[0] & lists[1]
    assert len(lists[0]) + len(lists[1]) == every_mqar(config) == 72


def test_one_candidate_in_eight_is_a_test_example():
    contents = below(Stream(0, "contents").halves(3, 80_000), 1000)
    share = is_test(contents)
    assert abs(share.mean() - 1 / 8) < 5 * math.sqrt(7 / 64 / 80_000)
    # neither does it follow one of the numbers
    for number in contents:
        assert abs(np.corrcoef(number, share)[0, 1]) < 5 / math.sqrt(80_000)


def test_a_split_without_examples_is_an_error():
    config = MQARConfig(vocab_size=4, seq_len=64, num_kv_pairs=1)  # two lists of pairs
    assert every_mqar(config) == 2
    splits = []
    for split in ("train", "test"):
        try:
            splits.append(len(examples(config, 3, 0, split).tokens))
        except ValueError as error:
            assert f"mqar has no {split} examples at these settings" in str(error)
            splits.append(0)
    assert sorted(splits) == [0, 3]


def test_a_split_must_be_train_or_test():
    with pytest.raises(ValueError, match="split 'valid' is neither"):
        examples(SMALL_MQAR, 3, 0, "valid")


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


def test_keys_and_values_are_uniform_at_every_place_and_in_both_splits():
    config = MQARConfig(vocab_size=13, seq_len=12, num_kv_pairs=3, vocabulary="shared")
    made = [examples(config, 20_000, 0, split).tokens for split in ("train", "test")]
    for tokens in made:
        for place in range(6):
            assert_follows(np.bincount(tokens[:, place], minlength=13)[1:], np.ones(12))


@several_examples
@given(key_value_sum_configs(), st.integers(0, 99), st.sampled_from(["train", "test"]))
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
@given(key_value_sum_configs(), st.integers(0, 99), st.sampled_from(["train", "test"]))
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
        variants = examples(SMALL_BOTH, 20_000, 0, split).slices[:, 0]
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
