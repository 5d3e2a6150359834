"""A good grid, and what can be wrong with it: each case is one mutation, the line that a reader is
to be sent to, and what that line of text must say."""

from typing import NamedTuple

GOOD = """\
# a grid                                                                                  line 1
description: A good grid.
preset: paper
base:
  task:
    name: mqar
    vocab_size: 256
  model: {d_model: 32}
  train:
    batch_size: 64
    train_examples: 1024
    precision: fp32
axes:
  seed: [1, 2]
  model.mixer:
    - attention
    - {name: attention, conv: qkv, num_heads: 2}
  size:
    - {task.seq_len: 32, task.num_kv_pairs: 4}
    - {task.seq_len: 64, task.num_kv_pairs: 8}
  model.num_layers: [1, 2]
  train.learning_rate: {logspace: [1e-4, 1e-2, 3]}
exclude:
  - {model.num_layers: 1, model.mixer.conv: qkv}
  - {model.num_layers: 2, seed: [2]}
include:
  - {model.mixer: attention, train.learning_rate: [1e-1], seed: [3, 4]}
"""


class Malformed(NamedTuple):
    name: str
    contents: bytes
    line: int
    says: tuple[str, ...]


def _mutant(name: str, old: str, new: str, line: int, *says: str) -> Malformed:
    assert GOOD.count(old) == 1, (name, old)
    return Malformed(name, GOOD.replace(old, new).encode(), line, says)


MALFORMED = [
    # the file
    Malformed("empty", b"", 1, ("file: is empty", "mapping")),
    Malformed("only comments", b"# nothing\n\n", 1, ("file: is empty",)),
    Malformed("a top-level list", b"# runs\n- seed: 1\n", 2, ("file: is a list", "mapping")),
    Malformed("a top-level string", b"attention\n", 1, ("'attention' is a string", "mapping")),
    Malformed("not UTF-8", GOOD.encode() + b"# caf\xe9\n", 28, ("file: ", "UTF-8")),
    Malformed("a control character", GOOD.encode() + b"x: \x07\n", 28, ("syntax: ", "character")),
    Malformed(
        "two documents", GOOD.encode() + b"---\nseed: 1\n", 28, ("syntax: ", "single document")
    ),
    Malformed("nested too deep", b"base: " + b"[" * 1000, 1, ("syntax: ", "too deep")),
    # YAML
    _mutant("a bracket left open", "seed: [1, 2]", "seed: [1, 2", 14, "syntax: "),
    _mutant("a quote left open", "precision: fp32", 'precision: "fp32', 12, "syntax: "),
    _mutant("a tab", "    batch_size", "\tbatch_size", 10, "syntax: "),
    _mutant("bad indentation", "  seed: [1, 2]", "   seed: [1, 2]", 15, "syntax: "),
    _mutant("two colons", "name: mqar", "name: mqar: x", 6, "syntax: ", "mapping values"),
    _mutant(
        "a key twice",
        "    train_examples: 1024",
        "    batch_size: 64",
        11,
        "batch_size: ",
        "line 10",
    ),
    _mutant("a section twice", "preset: paper", "base: {}", 4, "base: ", "line 3"),
    _mutant("a key that is a number", "  seed: [1, 2]", "  1: [1, 2]", 14, "1: ", "string"),
    _mutant("a tag", "name: mqar", "name: !!python/name:os.system x", 6, "tag"),
    _mutant("an unknown alias", "seed: [1, 2]", "seed: *seeds", 14, "syntax: ", "alias", "seeds"),
    _mutant(
        "an alias in itself",
        "[1, 2]\n  model.mixer",
        "&a [*a]\n  model.mixer",
        1,
        "syntax: ",
        "alias",
    ),
    # sections
    _mutant("an unknown section", "axes:", "axis:", 13, "axis: unknown key", "'axes'"),
    Malformed(
        "a base that is a list", b"base:\n  - seed: 1\n", 1, ("base: is a list", "a mapping")
    ),
    _mutant("an empty section", "description: A good grid.", "exclude:", 23, "exclude: ", "line 2"),
    _mutant("no description", "A good grid.", "", 2, "description: is empty", "a string"),
    _mutant(
        "a number for a description",
        "A good grid.",
        "3",
        2,
        "description: 3 is an integer",
        "a string",
    ),
    _mutant(
        "an unknown preset", "preset: paper", "preset: papers", 3, "preset: ", "'papers'", "'paper'"
    ),
    _mutant(
        "a preset list", "preset: paper", "preset: [paper]", 3, "preset: is a list", "a string"
    ),
    _mutant(
        "an exclude entry that is a word",
        "  - {model.num_layers: 2, seed: [2]}",
        "  - seed",
        25,
        "exclude: 'seed' is a string",
        "mapping",
    ),
    _mutant(
        "an include that is a mapping",
        "  - {model.mixer: attention,",
        "  x: {model.mixer: attention,",
        26,
        "include: is a mapping",
        "a list",
    ),
    # keys
    _mutant(
        "an unknown key in base",
        "batch_size: 64",
        "batchsize: 64",
        10,
        "train.batchsize: unknown key",
        "'batch_size'",
    ),
    _mutant(
        "an unknown part of base",
        "  train:\n",
        "  training:\n",
        9,
        "training: unknown key",
        "'train'",
    ),
    _mutant(
        "an unknown key of the task",
        "vocab_size: 256",
        "vocabsize: 256",
        7,
        "task.vocabsize: unknown key",
        "'vocab_size'",
    ),
    _mutant(
        "an unknown key of a mixer",
        "num_heads: 2",
        "num_head: 2",
        17,
        "model.mixer.num_head: unknown key",
        "'num_heads'",
    ),
    _mutant(
        "an option in the wrong place",
        "{d_model: 32}",
        "{conv_size: 3}",
        8,
        "model.conv_size: unknown key",
        "'model.mixer.conv_size'",
    ),
    _mutant(
        "an axis that does not exist",
        "model.num_layers: [1, 2]",
        "model.layers: [1, 2]",
        21,
        "model.layers: unknown key",
        "'num_layers'",
    ),
    _mutant(
        "an axis without its section",
        "train.learning_rate: {",
        "learning_rate: {",
        22,
        "learning_rate: unknown key",
        "'train.learning_rate'",
    ),
    _mutant(
        "an axis in the plural", "seed: [1, 2]", "seeds: [1, 2]", 14, "seeds: unknown key", "'seed'"
    ),
    _mutant(
        "an axis below a value",
        "seed: [1, 2]",
        "seed.x: [1, 2]",
        14,
        "seed.x: unknown key",
        "seed is a value",
    ),
    _mutant(
        "an unknown key that moves together",
        "{task.seq_len: 64",
        "{task.seqlen: 64",
        20,
        "task.seqlen: unknown key",
        "'seq_len'",
    ),
    _mutant(
        "an unknown key in exclude",
        "model.mixer.conv: qkv",
        "model.mixer.cnov: qkv",
        24,
        "model.mixer.cnov: unknown key",
        "'conv'",
    ),
    _mutant(
        "an unknown key in include", "seed: [3, 4]", "sed: [3, 4]", 27, "sed: unknown key", "'seed'"
    ),
    _mutant(
        "a setting in two axes",
        "seed: [1, 2]",
        "task.seq_len: [32]",
        19,
        "task.seq_len: ",
        "axis 'task.seq_len'",
    ),
    # axes
    _mutant("an axis without values", "seed: [1, 2]", "seed: []", 14, "seed: is an empty list"),
    _mutant(
        "logspace of two",
        "[1e-4, 1e-2, 3]",
        "[1e-4, 1e-2]",
        22,
        "train.learning_rate.logspace: ",
        "[first, last, count]",
    ),
    _mutant(
        "logspace of a number",
        "[1e-4, 1e-2, 3]",
        "3",
        22,
        "train.learning_rate.logspace: ",
        "[first, last, count]",
    ),
    _mutant(
        "logspace from zero",
        "[1e-4, 1e-2, 3]",
        "[0, 1e-2, 3]",
        22,
        "logspace: 0 is too small",
        "greater than 0",
    ),
    _mutant(
        "logspace to a word",
        "[1e-4, 1e-2, 3]",
        "[1e-4, high, 3]",
        22,
        "logspace: 'high' is a string",
        "a number",
    ),
    _mutant(
        "logspace of no values",
        "[1e-4, 1e-2, 3]",
        "[1e-4, 1e-2, 0]",
        22,
        "logspace: ",
        "count",
        "from 1",
    ),
    _mutant(
        "logspace of half a value",
        "[1e-4, 1e-2, 3]",
        "[1e-4, 1e-2, 1.5]",
        22,
        "logspace: ",
        "1.5 is a number",
        "an integer",
    ),
    _mutant(
        "logspace of far too many",
        "[1e-4, 1e-2, 3]",
        "[1e-4, 1e-2, 10000000]",
        22,
        "logspace: ",
        "10000000",
    ),
    _mutant("logspace misspelt", "logspace:", "logspac:", 22, "'logspac'", "'logspace'"),
    _mutant(
        "too many runs",
        "seed: [1, 2]",
        "seed: {linspace: [1, 50000, 50000]}",
        13,
        "axes: ",
        "1,200,002 runs",
        "1,000,000",
    ),
    # values
    _mutant(
        "a word for a number",
        "batch_size: 64",
        "batch_size: many",
        10,
        "train.batch_size: 'many' is a string",
        "an integer",
    ),
    _mutant(
        "a fraction for an integer",
        "batch_size: 64",
        "batch_size: 0.5",
        10,
        "train.batch_size: 0.5 is a number",
        "an integer",
    ),
    _mutant(
        "a list for a number",
        "batch_size: 64",
        "batch_size: [64, 128]",
        10,
        "train.batch_size: is a list",
        "an integer",
    ),
    _mutant(
        "nothing for a number",
        "batch_size: 64",
        "batch_size:",
        10,
        "train.batch_size: is empty",
        "an integer",
    ),
    _mutant(
        "a truth value for a number",
        "seed: [1, 2]",
        "seed: [1, true]",
        14,
        "seed: true is a truth value",
        "an integer",
    ),
    _mutant(
        "a number for a section",
        "model: {d_model: 32}",
        "model: 32",
        8,
        "model: 32 is an integer",
        "a mapping",
    ),
    _mutant(
        "a number too small",
        "{d_model: 32}",
        "{d_model: 0}",
        8,
        "model.d_model: 0 is too small",
        "at least 1",
    ),
    _mutant(
        "a number too small in an axis",
        "num_layers: [1, 2]\n",
        "num_layers:\n    - 1\n    - -2\n",
        23,
        "model.num_layers: -2 is too small",
        "at least 1",
    ),
    _mutant(
        "a number too large",
        "precision: fp32",
        "warmup: 1.5",
        12,
        "train.warmup: 1.5 is too large",
        "less than 1",
    ),
    _mutant(
        "a number beyond all floats",
        "precision: fp32",
        "weight_decay: 1e999",
        12,
        "1e999",
        "largest float",
    ),
    _mutant(
        "a precision that does not exist",
        "precision: fp32",
        "precision: fp16",
        12,
        "train.precision: 'fp16'",
        "'fp32'",
    ),
    _mutant("a pair of one", "precision: fp32", "betas: [0.9]", 12, "train.betas: ", "too few"),
    _mutant(
        "a pair of three",
        "precision: fp32",
        "betas: [0.9, 0.9, 0.9]",
        12,
        "train.betas: ",
        "3 items",
        "2",
    ),
    _mutant(
        "a pair of a number and a word",
        "precision: fp32",
        "betas: [0.9, high]",
        12,
        "train.betas: 'high' is a string",
        "a number",
    ),
    _mutant(
        "an unknown task",
        "name: mqar",
        "name: mqr",
        6,
        "task: there is no task 'mqr'",
        "'mqar'",
        "key_value_sum",
    ),
    _mutant(
        "an unknown mixer",
        "    - attention",
        "    - atention",
        16,
        "model.mixer: there is no mixer 'atention'",
        "'attention'",
        "package.module:Class",
    ),
    _mutant(
        "an unknown mixer with options",
        "{name: attention,",
        "{name: atention,",
        17,
        "model.mixer: there is no mixer 'atention'",
        "'attention'",
        "package.module:Class",
    ),
    _mutant(
        "a number for a mixer",
        "    - attention",
        "    - 3",
        16,
        "model.mixer: 3 is an integer",
        "name",
        "attention",
    ),
    _mutant(
        "an import path that is none",
        "    - attention",
        "    - my package:My Mixer",
        16,
        "model.mixer: ",
        "my package:My Mixer",
        "package.module:Class",
    ),
    _mutant(
        "a word for an option",
        "num_heads: 2",
        "num_heads: two",
        17,
        "model.mixer.num_heads: 'two' is a string",
        "an integer",
    ),
    _mutant(
        "an option too small",
        "num_heads: 2",
        "num_heads: 0",
        17,
        "model.mixer.num_heads: 0 is too small",
        "at least 1",
    ),
    _mutant(
        "an option that does not exist",
        "conv: qkv, num",
        "conv: kqv, num",
        17,
        "model.mixer.conv: 'kqv'",
        "'qkv'",
    ),
    _mutant(
        "a bad value in exclude",
        "model.mixer.conv: qkv}",
        "model.mixer.conv: kqv}",
        24,
        "model.mixer.conv: 'kqv'",
        "'qkv'",
    ),
    _mutant(
        "a bad value in include",
        "seed: [3, 4]",
        "seed: [3, -4]",
        27,
        "seed: -4 is too small",
        "at least 0",
    ),
    # settings that make no sense together
    _mutant(
        "a batch of more than all examples",
        "batch_size: 64",
        "batch_size: 4096",
        10,
        "train.batch_size: ",
        "train_examples 1024",
    ),
    _mutant(
        "more pairs than fit",
        "task.num_kv_pairs: 8",
        "task.num_kv_pairs: 40",
        20,
        "task.num_kv_pairs: ",
        "seq_len",
    ),
    _mutant(
        "fewer tokens than pairs need",
        "vocab_size: 256",
        "vocab_size: 4",
        7,
        "task.",
        "vocab_size 4",
    ),
    _mutant(
        "heads that do not divide",
        "num_heads: 2",
        "num_heads: 5",
        17,
        "model.mixer.num_heads: ",
        "d_model 32",
    ),
    _mutant(
        "a package that is not there",
        "    - attention",
        "    - no.such.package:Mixer",
        16,
        "model.mixer: ",
        "no.such.package:Mixer",
        "cannot be used",
    ),
    _mutant(
        "an option that only another mixer has",
        "model.mixer: attention,",
        "model.mixer: hyena, model.mixer.rope: true,",
        27,
        "model.mixer.rope: unknown key",
    ),
    # exclude
    _mutant(
        "an exclude entry that matches nothing", "seed: [2]", "seed: [5]", 25, "exclude: no run"
    ),
    Malformed(
        "an exclude entry that drops all",
        b"axes: {seed: [1, 2]}\nexclude: [{model.d_model: 64}]\n",
        2,
        ("exclude: drops every run",),
    ),
]
