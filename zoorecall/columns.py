"""The schema of a row: the names of its columns, what each means, and what tells runs apart.

A run's config is a row's first part, under the names a grid uses (`train.learning_rate`). The rest
is in `COLUMNS`: what the task tells of its sizes, what training measured, and the machine.

An identity is what of a config is not at its default. Defaults never change, and `defaults.json`
is the record of them, so a new option changes no old id; a test holds it against the code.
Nothing here needs torch: tables are read and shown without it.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from keyword import iskeyword
from typing import Any, Literal, NamedTuple

RUN_ID, MIXER, SEED, CONFIG = "run_id", "mixer", "seed", "config"
MIXER_NAME, MIXER_OPTIONS = "mixer.name", "mixer.options"
MIXER_TITLE = "mixer.title"
"""What a user calls a mixer, in tables that were given such a name."""

FOLDER = "folder"
"""Which results folder a run is from, in tables of several."""

NUM_PAIRS = "pairs"
"""The pairs of an example, by whatever option its task has for them."""

TASK, LENGTH, VOCABULARY, QUERIES = (
    "task.name", "task.seq_len", "task.vocab_size", "task.num_queries",
)  # fmt: skip
TASK_SIZES = (LENGTH, VOCABULARY, QUERIES)
"""What every task tells of itself, as options or as what follows from them."""

WIDTH, DEPTH, POSITIONS, DROPPED = (
    "model.d_model", "model.num_layers", "model.positions", "model.embed_dropout",
)  # fmt: skip
OPTIMIZER, RATE, WARMUP, PRECISION, DATA, ORDER, KEEP = (
    "train.optimizer", "train.learning_rate", "train.warmup", "train.precision", "train.data",
    "train.order", "train.keep",
)  # fmt: skip
SOLVED = 0.95
"""The accuracy from which the papers call a task solved."""

SLICE = "slice."


def slice_accuracy(name: str) -> str:
    """The column of the accuracy on one of a task's slices: `slice.AR.test_accuracy`."""
    return f"{SLICE}{name}.test_accuracy"


def slices(names: Iterable[Hashable]) -> dict[str, str]:
    """The slices that a table has columns of: the column of each by its name."""
    found = [name for name in map(str, names) if name.startswith(SLICE)]
    return {name.removeprefix(SLICE).rpartition(".")[0]: name for name in found}


FILE = ".file"
"""Where a row is from, while it is read."""

CURVE = "curve."
"""What the columns of a curve begin with in a shard, where each is a list."""

MAX_LAYERS = 2**10

PARTS = ("task", "model", "train")
"""Of a config, besides the seed."""

CONFIG_PREFIXES = tuple(f"{name}." for name in PARTS)
ATTENTION_SHARE = "attention_share"
MIXER_SOURCE = "mixer.source"
"""Tells the versions of a user's own mixer apart."""

Options = Mapping[str, Any]
"""A config, or a part of one, as JSON holds it."""

Decider = Literal["config", "task", "training", "machine"]


class Column(NamedTuple):
    """One column of a row that is no option of the config."""

    name: str
    unit: str
    meaning: str
    decided_by: Decider


COLUMNS = tuple(
    Column(*row)
    for row in (
        (RUN_ID, "", "hash of what of the config is not at its default", "config"),
        (MIXER, "", "the mixer with its options, a text of its own for each", "config"),
        (MIXER_NAME, "", "the mixer's name", "config"),
        (MIXER_OPTIONS, "JSON", "the mixer's options that are not at their defaults", "config"),
        (ATTENTION_SHARE, "share", "of the layers; empty with a mixer of the user's own", "config"),
        (MIXER_SOURCE, "", "hash of the source of a user's own mixer", "config"),
        (LENGTH, "tokens", "longest sequence of training and test", "task"),
        (VOCABULARY, "tokens", "how many different tokens there are", "task"),
        (QUERIES, "", "answers asked for in each sequence", "task"),
        ("test_accuracy", "share", "of answers, at the last evaluation", "training"),
        ("test_sequence_accuracy", "share", "of sequences with every answer right", "training"),
        ("test_loss", "nats", "of an answer, at the last evaluation", "training"),
        ("train_accuracy", "share", "of answers to training examples, at the end", "training"),
        ("train_sequence_accuracy", "share", "of training sequences, at the end", "training"),
        ("train_loss", "nats", "of an answer to training examples, at the end", "training"),
        ("best_test_accuracy", "share", "the highest of all evaluations", "training"),
        ("best_step", "steps", "when it was reached first", "training"),
        ("steps_to_solve", "steps", "to the first evaluation of 95 % or more", "training"),
        ("diverged_at", "steps", "before loss or gradient was not finite", "training"),
        ("stopped_at", "steps", "to the accuracy at which the run was to end", "training"),
        ("num_steps", "steps", "of the whole training", "config"),
        ("parameters", "numbers", "that are trained", "config"),
        ("state_size", "numbers", "carried past a position; empty where unknown", "config"),
        ("forward_flops", "FLOPs", "of one sequence; empty where unknown", "config"),
        ("pack_id", "", "pack key: equal for runs that can train together", "machine"),
        ("pack_size", "runs", "trained together", "machine"),
        ("seconds", "s", "of training; where k runs train together, the k-th part", "machine"),
        ("tokens_per_second", "1/s", "of one run", "machine"),
        ("device", "", "as its maker names it", "machine"),
        ("kernels", "", "which form of each operation ran", "machine"),
        ("zoorecall_version", "", "of this package", "machine"),
        ("torch_version", "", "of torch", "machine"),
        ("git_commit", "", "of this package, + where it was changed since", "machine"),
        ("user_code", "", "commit or hash of a mixer of the user's own", "machine"),
    )
)

CURVE_COLUMNS = tuple(
    Column(*row)
    for row in (
        ("step", "steps", "after which the run was evaluated", "training"),
        ("train_loss", "nats", "mean over the steps since the evaluation before", "training"),
        ("test_loss", "nats", "of an answer", "training"),
        ("test_accuracy", "share", "of answers", "training"),
        ("test_sequence_accuracy", "share", "of sequences with every answer right", "training"),
        ("max_loss", "nats", "the largest of a step since the evaluation before", "training"),
        ("max_grad_norm", "", "the largest of a step since then, before clipping", "training"),
    )
)
"""Those of a curve; each slice of a task adds its `slice.NAME.test_accuracy`."""

MAYBE_UNKNOWN = ("state_size", "forward_flops")
"""Empty for a mixer of the user's own that does not tell."""

TEXTS = {RUN_ID, MIXER, CONFIG, "pack_id", "device", "kernels", "zoorecall_version",
         "torch_version", "git_commit", "user_code"}  # fmt: skip
WHOLE = {*TASK_SIZES, "best_step", "num_steps", "parameters", "pack_size", "step"}
"""The columns of a file that hold texts, and whole numbers; the rest are numbers or NaN."""

DERIVED = {MIXER_NAME, MIXER_OPTIONS, ATTENTION_SHARE, MIXER_SOURCE}
"""Columns that no file has: they follow from a config when it is read."""

NEWER = {*TASK_SIZES, "user_code", "max_loss", "max_grad_norm"}
"""Columns that files of earlier versions lack."""

PROVENANCE = tuple(column.name for column in COLUMNS if column.decided_by == "machine")

NAMES = {TASK: "task", DEPTH: "layers", WIDTH: "width", LENGTH: "length", RATE: "learning rate"}


def name(column: str) -> str:
    """What people call a column: `layers`, `width`, or an option's own name."""
    return NAMES.get(column, column.rpartition(".")[2])


@cache
def defaults() -> dict[str, Any]:
    """The default of every option: of `model` and `train`, of each `task` and `mixer` by name."""
    return json.loads(files(__package__).joinpath("defaults.json").read_text(encoding="utf-8"))


def with_defaults(config: Options) -> dict[str, Any]:
    """A config, as JSON holds it, with the options that came after it was written."""

    def whole(part: Options, default: Options) -> dict[str, Any]:
        return {**part, **{key: x for key, x in default.items() if key not in part}}

    return {**config, **{name: _changed(name, config[name], whole) for name in PARTS}}


def read_config(text: str) -> dict[str, Any]:
    """A config from the JSON of a row, with the options that came after it was written.

    Raises ValueError where the text is no config of a run that this version knows.
    """
    try:
        config = with_defaults(json.loads(text))
        options = [(config, {SEED: 0})] + [(config[x], defaults()[x]) for x in ("model", "train")]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no config of a run: {type(error).__name__} {error}") from error
    for part, default in options:
        for key, number in default.items():
            if _is_number(number) and not _is_number(part.get(key)):
                raise ValueError(f"no config of a run: {key} is {part.get(key)!r}, not a number")
    if (depth := config["model"]["num_layers"]) not in range(1, MAX_LAYERS + 1):
        raise ValueError(f"no config of a run: num_layers is {depth}, not from 1 to {MAX_LAYERS}")
    return config


def _is_number(value: object) -> bool:
    """Whether it is a number that an option may have: none is negative."""
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < math.inf


def identity(config: Options) -> dict[str, Any]:
    """What of a resolved config, as JSON holds it, is not at its default; names and seed always
    count."""
    return {**config, **{name: identity_of(name, config[name]) for name in PARTS}}


def identity_of(name: str, part: Options) -> dict[str, Any]:
    """What of one of a config's `PARTS` is not at its default."""

    def changed(part: Options, default: Options) -> dict[str, Any]:
        return {key: x for key, x in part.items() if key not in default or x != default[key]}

    return _changed(name, part, changed)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config's settings by the names a grid uses, as `train.learning_rate`; lists as text."""
    settings: dict[str, Any] = {}
    for key, x in config.items():
        if isinstance(x, dict):
            settings |= flat(x, f"{prefix}{key}.")
        else:
            settings[prefix + key] = x if isinstance(x, bool | int | float | str) else str(x)
    return settings


def run_id(config: Mapping[str, Any]) -> str:
    """The hash of a config's identity."""
    return digest(identity(config))


UNSHOWN = ("name", "source")


def mixer_options(mixer: Mapping[str, Any]) -> dict[str, Any]:
    """A mixer's options that are not at their defaults; of a user's own, those of the class."""
    if mixer["name"] == "pattern":
        mixers = [{"name": one["name"], **mixer_options(one)} for one in mixer["mixers"]]
        at = mixer.get("attention_at")
        return {"mixers": mixers} | ({} if at is None else {"attention_at": at})
    default = _of_mixer(mixer["name"]) | {key: mixer[key] for key in mixer if key in UNSHOWN}
    given = {key: x for key, x in mixer.items() if x != default.get(key)}
    return given.pop("options", {}) | given


def mixer_label(mixer: Mapping[str, Any]) -> str:
    """A mixer's name and options as one text, which no other mixer has: `attention (conv=qkv)`."""
    if mixer["name"] == "pattern":
        at = ", ".join(map(str, mixer.get("attention_at") or ()))
        return " + ".join(map(mixer_label, mixer["mixers"])) + (f" at {at}" if at else "")
    options = ", ".join(f"{key}={_shown(x)}" for key, x in mixer_options(mixer).items())
    return f"{mixer['name']} ({options})" if options else mixer["name"]


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """What to call each mixer: a user's own without its module, where that stays different."""
    short = {label: _without_module(label) for label in dict.fromkeys(labels)}
    taken = list(short.values())
    return {label: x if taken.count(x) == 1 else label for label, x in short.items()}


_to_text = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def digest(data: Mapping[str, Any]) -> str:
    return hashlib.blake2b(_to_text(data).encode(), digest_size=6).hexdigest()


def pattern_layers(
    names: Sequence[str], attention_at: Sequence[int] | None, num_layers: int
) -> list[int]:
    """Which of a pattern's mixers each layer has, by its place in `names`; see `mixers.pattern`."""
    places = range(len(names))
    if attention_at is None:
        return [i % len(names) for i in range(num_layers)]
    others = itertools.cycle([i for i in places if names[i] != "attention"])
    attention = names.index("attention")
    return [attention if i in attention_at else next(others) for i in range(num_layers)]


def attention_share(mixer: Mapping[str, Any], num_layers: int) -> float | None:
    """The share of a model's layers that are attention; None where a mixer is the user's own."""
    names = [one["name"] for one in _each(mixer)]
    if any(":" in name for name in names):
        return None
    layers = pattern_layers(names, mixer.get("attention_at"), num_layers)
    return sum(names[i] == "attention" for i in layers) / num_layers


def mixer_source(mixer: Mapping[str, Any]) -> str:
    """What the code of a user's own mixers was; empty for those of this package."""
    return ", ".join(one["source"] for one in _each(mixer) if one.get("source"))


def _each(mixer: Mapping[str, Any]) -> list[Any]:
    """The mixers of a pattern, or the one."""
    return list(mixer["mixers"]) if mixer["name"] == "pattern" else [mixer]


def _changed(
    name: str, part: Options, change: Callable[[Options, Options], dict[str, Any]]
) -> dict[str, Any]:
    """One of a config's `PARTS` with each mapping that holds options changed, given the defaults of
    these."""

    def changed(mixer: Options) -> dict[str, Any]:
        if mixer["name"] == "pattern":
            mixer = {**mixer, "mixers": [changed(one) for one in mixer["mixers"]]}
        return change(mixer, _of_mixer(mixer["name"]))

    if name == "task":
        return change(part, defaults()["task"][part["name"]])
    if name == "model":
        part = {**part, "mixer": changed(part["mixer"])}
    return change(part, defaults()[name])


def _of_mixer(name: str) -> dict[str, Any]:
    return defaults()["mixer"]["custom" if ":" in name else name]


def _shown(value: Any) -> str:
    """An option's value; a string as it is where nothing else is written so."""
    plain = isinstance(value, str) and value.isidentifier() and not iskeyword(value)
    return value if plain else repr(value)


def _without_module(label: str) -> str:
    module, colon, rest = label.partition(":")
    return rest if colon and " (" not in module else label
