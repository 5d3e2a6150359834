"""A good grid, and what can be wrong with it: each case says to which line a reader is to be sent,
and what is to be said there, in fragments between dots."""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from zoorecall.grid import Grid, load_grid

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
    line: int
    contents: bytes
    says: tuple[str, ...]


def load(grid: str | dict[str, Any], *overrides: str) -> Grid:
    """Load a grid from its text, or from a mapping, which as JSON is YAML too."""
    with tempfile.TemporaryDirectory() as folder:
        return load_grid(write_grid(Path(folder) / "grid.yaml", grid), overrides)


def write_grid(path: Path, grid: str | dict[str, Any]) -> Path:
    path.write_text(grid if isinstance(grid, str) else json.dumps(grid))
    return path


# fmt: off
FILES = [
    ("empty", 1, b"", "file: is empty ... mapping"),
    ("only comments", 1, b"# nothing\n\n", "file: is empty"),
    ("a top-level list", 2, b"# runs\n- seed: 1\n", "file: is a list ... mapping"),
    ("a top-level string", 1, b"attention\n", "file: 'attention' is a string ... mapping"),
    ("not UTF-8", 28, GOOD.encode() + b"# caf\xe9\n", "file: ... UTF-8"),
    ("a control character", 28, GOOD.encode() + b"x: \x07\n", "syntax: ... character"),
    ("two documents", 28, GOOD.encode() + b"---\nseed: 1\n", "syntax: ... single document"),
    ("nested too deep", 1, b"base: " + b"[" * 1000, "syntax: ... too deep"),
    ("an escape in a key", 1, b'"a\\e[31m": 1\n', "a\\x1b[31m: unknown key"),
    ("a base that is a list", 1, b"base:\n  - seed: 1\n", "base: is a list ... a mapping"),
    ("a task without test examples", 2,
     b"base:\n  task: {vocab_size: 4, seq_len: 4, num_kv_pairs: 1}\n",
     "task.vocab_size: vocab_size 4, seq_len 4 ... none is a test example"),
    ("an exclude entry that drops all", 2, b"axes: {seed: [1]}\nexclude: [{model.d_model: 64}]\n",
     "exclude: drops every run"),
]

MUTATIONS = [
    # YAML
    ("a bracket left open", 14, "seed: [1, 2]", "seed: [1, 2", "syntax:"),
    ("a quote left open", 12, "precision: fp32", 'precision: "fp32', "syntax:"),
    ("a tab", 10, "    batch_size", "\tbatch_size", "syntax:"),
    ("bad indentation", 15, "  seed: [1, 2]", "   seed: [1, 2]", "syntax:"),
    ("two colons", 6, "name: mqar", "name: mqar: x", "syntax: ... mapping values"),
    ("a key twice", 11, "    train_examples: 1024", "    batch_size: 64",
     "batch_size: ... line 10"),
    ("a section twice", 4, "preset: paper", "base: {}", "base: ... line 3"),
    ("a key that is a number", 14, "  seed: [1, 2]", "  1: [1, 2]", "1: ... string"),
    ("a tag", 6, "name: mqar", "name: !!python/name:os.system x", "tag"),
    ("an unknown alias", 14, "seed: [1, 2]", "seed: *seeds", "syntax: ... alias ... seeds"),
    ("an alias in itself", 1, "[1, 2]\n  model.mixer", "&a [*a]\n  model.mixer",
     "syntax: ... alias"),
    # sections
    ("an unknown section", 13, "axes:", "axis:", "axis: unknown key ... 'axes'"),
    ("an empty section", 23, "description: A good grid.", "exclude:", "exclude: ... line 2"),
    ("no description", 2, "A good grid.", "", "description: is empty ... a string"),
    ("a number for a description", 2, "A good grid.", "3",
     "description: 3 is an integer ... a string"),
    ("an unknown preset", 3, "preset: paper", "preset: papers", "preset: ... 'papers' ... 'paper'"),
    ("a preset list", 3, "preset: paper", "preset: [paper]", "preset: is a list ... a string"),
    ("an exclude entry that is a word", 25, "  - {model.num_layers: 2, seed: [2]}", "  - seed",
     "exclude: 'seed' is a string ... mapping"),
    ("an include that is a mapping", 26, "  - {model.mixer: att", "  x: {model.mixer: att",
     "include: is a mapping ... a list"),
    ("a setting at the top", 13, "axes:", "seed: 1\naxes:", "seed: ... base or in axes"),
    # keys
    ("an unknown key in base", 10, "batch_size: 64", "batchsize: 64",
     "train.batchsize: unknown key ... 'batch_size'"),
    ("an unknown part of base", 9, "  train:\n", "  training:\n",
     "training: unknown key ... 'train'"),
    ("an unknown key of the task", 7, "vocab_size: 256", "vocabsize: 256",
     "task.vocabsize: unknown key of mqar ... 'vocab_size'"),
    ("an unknown key of a mixer", 17, "num_heads: 2", "num_head: 2",
     "model.mixer.num_head: unknown key of attention ... 'num_heads'"),
    ("an option in the wrong place", 8, "{d_model: 32}", "{conv_size: 3}",
     "model.conv_size: unknown key ... 'model.mixer.conv_size'"),
    ("an axis that does not exist", 21, "model.num_layers: [1, 2]", "model.layers: [1, 2]",
     "model.layers: unknown key ... 'num_layers'"),
    ("an axis without its section", 22, "train.learning_rate: {", "learning_rate: {",
     "learning_rate: unknown key ... 'train.learning_rate'"),
    ("an axis in the plural", 14, "seed: [1, 2]", "seeds: [1, 2]", "seeds: unknown key ... 'seed'"),
    ("an axis below a value", 14, "seed: [1, 2]", "seed.x: [1, 2]",
     "seed.x: unknown key ... seed is a value"),
    ("an unknown key that moves together", 20, "{task.seq_len: 64", "{task.seqlen: 64",
     "task.seqlen: unknown key ... 'seq_len'"),
    ("an unknown key in exclude", 24, "model.mixer.conv: qkv", "model.mixer.cnov: qkv",
     "model.mixer.cnov: unknown key ... 'conv'"),
    ("an unknown key in include", 27, "seed: [3, 4]", "sed: [3, 4]", "sed: unknown key ... 'seed'"),
    # settings given twice
    ("a setting in two axes", 19, "seed: [1, 2]", "task.seq_len: [32]",
     "task.seq_len: is given on line 14 too"),
    ("a setting twice in base", 9, "model: {d_model: 32}",
     "model: {d_model: 64}\n  model.d_model: 32", "model.d_model: is given on line 8 too ... once"),
    ("a narrow path before a broad one", 9, "model: {d_model: 32}",
     "model.d_model: 32\n  model: {num_layers: 1, d_model: 64}",
     "model.d_model: is given on line 8 too"),
    ("a mixer of two names", 9, "model: {d_model: 32}",
     "model.mixer: mamba\n  model.mixer.name: s6", "model.mixer.name: is given on line 8 too"),
    ("a value that holds settings", 9, "model: {d_model: 32}", "model: 32\n  model.d_model: 32",
     "model: is given on line 8 too"),
    ("an axis inside the mixers of another", 21, "model.num_layers: [1, 2]",
     "model.mixer.num_heads: [1, 2]", "model.mixer.num_heads: is given on line 17 too"),
    ("a setting twice in what moves together", 20, "{task.seq_len: 64, task",
     "{task: {seq_len: 64}, task.seq_len: 32, task", "task.seq_len: is given on line 20 too"),
    ("a setting twice in an exclude entry", 24, "model.mixer.conv: qkv}",
     "model.mixer: {name: attention, conv: qkv}, model.mixer.conv: q}",
     "model.mixer.conv: is given on line 24 too"),
    ("a setting twice in an include entry", 27, "mixer: attention,",
     "mixer: {name: attention, num_heads: 1}, model.mixer.num_heads: 2,",
     "model.mixer.num_heads: is given on line 27 too"),
    # axes
    ("an axis without values", 14, "seed: [1, 2]", "seed: []", "seed: is an empty list"),
    ("logspace of two", 22, "[1e-4, 1e-2, 3]", "[1e-4, 1e-2]",
     "train.learning_rate.logspace: ... [first, last, count]"),
    ("logspace of a number", 22, "[1e-4, 1e-2, 3]", "3",
     "train.learning_rate.logspace: ... [first, last, count]"),
    ("logspace from zero", 22, "[1e-4, 1e-2, 3]", "[0, 1e-2, 3]",
     "logspace: 0 is too small ... greater than 0"),
    ("logspace to a word", 22, "[1e-4, 1e-2, 3]", "[1e-4, high, 3]",
     "logspace: 'high' is a string ... a number"),
    ("logspace of no values", 22, "[1e-4, 1e-2, 3]", "[1e-4, 1e-2, 0]",
     "logspace: ... count ... from 1"),
    ("logspace of half a value", 22, "[1e-4, 1e-2, 3]", "[1e-4, 1e-2, 1.5]",
     "logspace: ... 1.5 is a number ... an integer"),
    ("logspace of far too many", 22, "[1e-4, 1e-2, 3]", "[1e-4, 1e-2, 10000000]",
     "logspace: ... 10000000"),
    ("logspace misspelt", 22, "logspace:", "logspac:", "'logspac' ... 'logspace'"),
    ("too many runs", 13, "seed: [1, 2]", "seed: {linspace: [1, 50000, 50000]}",
     "axes: ... 1,200,002 runs ... 1,000,000"),
    # values
    ("a word for a number", 10, "batch_size: 64", "batch_size: many",
     "train.batch_size: 'many' is a string ... an integer"),
    ("a fraction for an integer", 10, "batch_size: 64", "batch_size: 0.5",
     "train.batch_size: 0.5 is a number ... an integer"),
    ("a list for a number", 10, "batch_size: 64", "batch_size: [64, 128]",
     "train.batch_size: is a list ... an integer"),
    ("nothing for a number", 10, "batch_size: 64", "batch_size:",
     "train.batch_size: is empty ... an integer"),
    ("a truth value for a number", 14, "seed: [1, 2]", "seed: [1, true]",
     "seed: true is a truth value ... an integer"),
    ("a number for a section", 8, "model: {d_model: 32}", "model: 32",
     "model: 32 is an integer ... a mapping"),
    ("a number too small", 8, "{d_model: 32}", "{d_model: 0}",
     "model.d_model: 0 is too small ... at least 1"),
    ("a key without end", 8, "{d_model: 32}", "{" + 600 * "d" + ": 32}",
     "model.dddddd ... ddd...: unknown key"),
    ("a width that no memory holds", 8, "{d_model: 32}", "{d_model: 100000000000}",
     "model.d_model: 100000000000 is too large ... at most 65536"),
    ("a number too small in an axis", 23, "num_layers: [1, 2]\n",
     "num_layers:\n    - 1\n    - -2\n", "model.num_layers: -2 is too small ... at least 1"),
    ("a number too large", 12, "precision: fp32", "warmup: 1.5",
     "train.warmup: 1.5 is too large ... less than 1"),
    ("steps without end", 12, "precision: fp32", "epochs: 1e308",
     "train.epochs: epochs 1e+308 ... 1,000,000,000 steps"),
    ("evaluations without end", 12, "precision: fp32", "evaluations: 1000000000",
     "train.evaluations: 1000000000 is too large"),
    ("a number beyond all floats", 12, "precision: fp32", "weight_decay: 1e999",
     "1e999 ... largest float"),
    ("a precision that does not exist", 12, "precision: fp32", "precision: fp16",
     "train.precision: 'fp16' ... 'fp32'"),
    ("a pair of one", 12, "precision: fp32", "betas: [0.9]", "train.betas: ... too few"),
    ("a pair of three", 12, "precision: fp32", "betas: [0.9, 0.9, 0.9]",
     "train.betas: ... 3 items ... 2"),
    ("a pair of a number and a word", 12, "precision: fp32", "betas: [0.9, high]",
     "train.betas: 'high' is a string ... a number"),
    ("an unknown task", 6, "name: mqar", "name: mqr",
     "task: there is no task 'mqr' ... 'mqar' ... key_value_sum"),
    ("an unknown mixer", 16, "    - attention", "    - atention",
     "model.mixer: there is no mixer 'atention' ... 'attention' ... package.module:Class"),
    ("an unknown mixer with options", 17, "{name: attention,", "{name: atention,",
     "model.mixer: there is no mixer 'atention' ... 'attention' ... package.module:Class"),
    ("a number for a mixer", 16, "    - attention", "    - 3",
     "model.mixer: 3 is an integer ... name ... attention"),
    ("an import path that is none", 16, "    - attention", "    - my package:My Mixer",
     "model.mixer: ... my package:My Mixer ... package.module:Class"),
    ("a word for an option", 17, "num_heads: 2", "num_heads: two",
     "model.mixer.num_heads: 'two' is a string ... an integer"),
    ("an option too small", 17, "num_heads: 2", "num_heads: 0",
     "model.mixer.num_heads: 0 is too small ... at least 1"),
    ("an option that does not exist", 17, "conv: qkv, num", "conv: kqv, num",
     "model.mixer.conv: 'kqv' ... 'qkv'"),
    ("a bad value in exclude", 24, "model.mixer.conv: qkv}", "model.mixer.conv: kqv}",
     "model.mixer.conv: 'kqv' ... 'qkv'"),
    ("a bad value in include", 27, "seed: [3, 4]", "seed: [3, -4]",
     "seed: -4 is too small ... at least 0"),
    # settings that make no sense together
    ("a batch of more than all examples", 10, "batch_size: 64", "batch_size: 4096",
     "train.batch_size: ... train_examples 1024"),
    ("more pairs than fit", 20, "task.num_kv_pairs: 8", "task.num_kv_pairs: 40",
     "task.num_kv_pairs: ... seq_len"),
    ("fewer tokens than pairs need", 7, "vocab_size: 256", "vocab_size: 4",
     "task. ... vocab_size 4"),
    ("an option that only another optimizer has", 12, "precision: fp32", "momentum: 0.9",
     "train.momentum: momentum is no option of optimizer adamw, should be with sgd or muon"),
    ("heads that do not divide", 17, "num_heads: 2", "num_heads: 5",
     "model.mixer.num_heads: ... d_model 32"),
    ("a pattern of none", 16, "    - attention", "    - {name: pattern, mixers: []}",
     "model.mixer.mixers: has 0 of at least 2 items"),
    ("a package that is not there", 16, "    - attention", "    - no.such.package:Mixer",
     "model.mixer: ... no.such.package:Mixer ... cannot be used"),
    ("an option that only another mixer has", 27, "mixer: attention,",
     "mixer: hyena, model.mixer.rope: true,", "model.mixer.rope: unknown key of hyena"),
    # exclude
    ("an exclude entry that matches nothing", 25, "seed: [2]", "seed: [5]", "exclude: no run"),
]
# fmt: on


def _mutate(old: str, new: str) -> bytes:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new).encode()


MALFORMED = [
    Malformed(name, line, contents, tuple(says.split(" ... ")))
    for name, line, contents, says in (
        *FILES,
        *((name, line, _mutate(old, new), says) for name, line, old, new, says in MUTATIONS),
    )
]
