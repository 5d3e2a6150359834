"""A user's own module trains in a pack as it would in a loop of its own, or is refused."""

import math
import random
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_run
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from zoorecall import bench as benchmark
from zoorecall import load_models, load_results, train
from zoorecall.bench import Ceilings, bench, bench_run
from zoorecall.checkpoints import read_checkpoint, write_checkpoint
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.errors import ZoorecallWarning
from zoorecall.mixers import CustomConfig
from zoorecall.model.cost import count_parameters
from zoorecall.model.model import Model, build_model
from zoorecall.model.pack import Pack
from zoorecall.ops.dropout import Dropped
from zoorecall.seeding import Stream
from zoorecall.sweeps.events import More, Setup, Train
from zoorecall.sweeps.executor import Inbox, perform
from zoorecall.tasks import make_task
from zoorecall.training import capture
from zoorecall.training.optim import learning_rates
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")

TRAINED_RIGHT: dict[str, type[nn.Module]] = {}


def trained_right(cls: type[nn.Module]) -> type[nn.Module]:
    TRAINED_RIGHT[cls.__name__] = cls
    return cls


@trained_right
class Linear(nn.Linear):
    def __init__(self, d_model):
        super().__init__(d_model, d_model)


@trained_right
class ZeroDimensional(Linear):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.scale * super().forward(x)


@trained_right
class Tied(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.up, self.down = Linear(d_model), Linear(d_model)
        self.down.weight = self.up.weight

    def forward(self, x):
        return self.down(self.up(x).relu())


@trained_right
class Complex(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(d_model, d_model, dtype=torch.complex64))
        self.turn = nn.Parameter(torch.tensor(1j))

    def forward(self, x):
        return (self.turn * (x.to(torch.complex64) @ self.weight)).real


@trained_right
class Float64ThatIsNotTrained(Linear):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_buffer("shift", torch.randn(d_model, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.randn(d_model, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        return (super().forward(x) * self.frozen + self.shift).float()


@trained_right
class Normed(Linear):
    """Its running statistics are what it is evaluated with."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.norm = nn.BatchNorm1d(d_model, momentum=0.5)

    def forward(self, x):
        return self.norm(super().forward(x).mT).mT


@trained_right
class Spectral(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.linear = parametrizations.spectral_norm(Linear(d_model))

    def forward(self, x):
        return self.linear(x)


@trained_right
class WeightNormed(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.one = parametrizations.weight_norm(Linear(d_model))
        with warnings.catch_warnings(action="ignore"):  # the other one is the older way
            self.other = weight_norm(Linear(d_model))

    def forward(self, x):
        return self.one(x) + self.other(x)


@trained_right
class Assigning(Linear):
    """Attributes of all kinds that may be assigned."""

    mean = 0.0

    def __init__(self, d_model):
        super().__init__(d_model)
        self.seen, self.log, self.shape, self.history = 0, {}, None, []

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + x.detach().mean((0, 1))
            self.seen += len(x)
            self.log = {"last": (x.detach()[0, 0], self.seen), 3: None}
            self.shape, self.device = x.shape, x.device
            self.history.append(self.seen / 100)
        last = self.log["last"][0] if self.log else 0.0
        return super().forward(x) + self.mean + 0.1 * last + 0.01 * self.seen + sum(self.history)


@trained_right
class OtherBuffers(Linear):
    """Buffers that are replaced, that are not saved by torch, and that were none at first."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_buffer("mean", torch.zeros(1, 1).expand(1, d_model), persistent=False)
        self.register_buffer("steps", None)

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
            self.steps = torch.tensor(0) if self.steps is None else self.steps + 1
        return super().forward(x) - self.mean + (0 if self.steps is None else 0.1 * self.steps)


TABLE = torch.ones(3)


@trained_right
class SharedTable(Linear):
    """All copies register one tensor, into which each writes."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_buffer("table", TABLE)

    def forward(self, x):
        if self.training:
            self.table.add_(x.detach().sum().tanh())
        return super().forward(x) * self.table.mean()


@trained_right
class MovingAverage(Linear):
    """A parameter that is not trained, but moved."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.slow = nn.Parameter(self.weight.detach().clone(), requires_grad=False)

    def forward(self, x):
        if self.training:
            self.slow.lerp_(self.weight.detach(), 0.3)
        return super().forward(x) + x @ self.slow


@trained_right
class InPlace(Linear):
    def forward(self, x):
        x.mul_(2).add_(1)
        x[:, :1] = 0
        return super().forward(x).add_(x)


@trained_right
class Itself(nn.Module):
    """Has no parameters, and returns what it was given."""

    def __init__(self, d_model):
        super().__init__()

    def forward(self, x):
        return x.view(x.shape)


@trained_right
class Sized(Linear):
    def __init__(self, d_model, seq_len, *, layer, num_layers):
        super().__init__(d_model)
        assert num_layers == 2
        self.positions = nn.Parameter(torch.randn(seq_len, d_model) * (layer + 1))

    def forward(self, x):
        return super().forward(x) + self.positions


@trained_right
class MadeFromNumbers(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(np.random.randn(d_model, d_model)).float())
        self.weight.data *= random.random() / self.weight.abs().max().item()
        self.scale = np.sqrt(d_model)

    def forward(self, x):
        return x @ self.weight * float(self.scale)


@trained_right
class Recurrent(nn.GRU):
    def __init__(self, d_model):
        super().__init__(d_model, d_model, batch_first=True)

    def forward(self, x):
        return super().forward(x)[0]


@trained_right
class Transformer(nn.TransformerEncoderLayer):
    def __init__(self, d_model):
        super().__init__(d_model, 2, 3 * d_model, dropout=0.0, batch_first=True)
        self.mask = None

    def forward(self, x):
        if self.mask is None:
            self.mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return super().forward(x, self.mask, is_causal=True)


@trained_right
class Replacing(Linear):
    """Keeps its weights within bounds by other numbers in their place."""

    def forward(self, x):
        self.weight.data = self.weight.data.clamp(-0.1, 0.1)
        with torch.no_grad():
            self.bias.clamp_(-0.1, 0.1)
        return super().forward(x)


@trained_right
class Listing(nn.Module):
    """Uses its parameters by a list of its own."""

    def __init__(self, d_model):
        super().__init__()
        weights = torch.randn(2, d_model, d_model) / 4
        self.one, self.other = (nn.Parameter(weight.T) for weight in weights)
        self.both = [self.one, {"other": self.other}]

    def forward(self, x):
        return x @ self.both[0] @ self.both[1]["other"]


@trained_right
class Differentiating(Linear):
    def forward(self, x):
        with torch.enable_grad():
            u = x.requires_grad_() if x.is_leaf else x
            (slope,) = torch.autograd.grad(u.square().sum(), u, create_graph=True)
        return super().forward(slope)


@trained_right
class Hooked(Linear):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_forward_hook(lambda module, x, y: 2 * y)
        self.activation = lambda x: x * torch.sigmoid(x)

    def forward(self, x):
        return self.activation(super().forward(x))


@trained_right
class Checkpointed(Linear):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


@trained_right
class StaysEvaluated(Normed):
    """A part of it never trains."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


@trained_right
class Capturable(Normed):
    capturable = True


class Drawing(Linear):
    """Draws in training, and, from one generator, where it is evaluated."""

    def forward(self, x):
        y = F.dropout(super().forward(x), 0.5, self.training) + 0.1 * torch.randn(x.shape[-1])
        return y * np.random.rand() * random.random() if self.training else y


KINDS = [*TRAINED_RIGHT, "Drawing"]


def own_run(name: str, seed: int = 1, options: dict | None = None, **train) -> RunConfig:
    """Five steps of a kind of module in both layers."""
    mixer = {"name": f"{__name__}:{name}", "options": options or {}}
    run = small_run(seed=seed, **{"learning_rate": 3e-3, "eps": 1e-5, "epochs": 1, **train})
    return RunConfig.model_validate(
        {**run.model_dump(), "model": {"d_model": 16, "num_layers": 2, "mixer": mixer}}
    )


def pack_of_two(name: str, **train) -> list[RunConfig]:
    return [own_run(name, seed=s, learning_rate=s * 3e-3, **train) for s in (1, 2)]


def trained(trainer: PackTrainer) -> PackTrainer:
    while not trainer.finished:
        trainer.advance()
    return trainer


class AsItIs(nn.Module):
    """A user's module in the place of a mixer of one run, with nothing around it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(
        self, x: Tensor, positions: Tensor | None = None, dropped: Dropped | None = None
    ) -> Tensor:
        y = self.module(x[0].clone())[None]
        return y if positions is None else y.gather(2, positions[..., None].expand(-1, -1, -1, 16))


def plain_loop(run: RunConfig) -> tuple[Model, list[nn.Module]]:
    """A run as torch's own optimizer trains it; its model, and the modules of its layers."""
    model, train = build_model(run), run.train
    modules = [mixer.of_runs[0].module for mixer in model.user_mixers]
    for layer, module in zip(model.layers, modules, strict=True):
        layer.sequence.mixer = AsItIs(module)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=train.betas, eps=train.eps, weight_decay=train.weight_decay
    )
    examples = make_task(run.task).examples(train.train_examples, run.seed, "train")[:3]
    for i_step, rate in enumerate(
        learning_rates(train, torch.arange(train.num_steps).double()).tolist()
    ):
        epoch, i = divmod(i_step, train.steps_per_epoch)
        order = Stream(run.seed, "order", epoch).permutation(train.train_examples)
        batch = order[i * train.batch_size :][: train.batch_size]
        tokens, positions, targets = (torch.from_numpy(x[batch])[None].long() for x in examples)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(model(tokens, positions).flatten(0, 2), targets.flatten()).backward()
        optimizer.step()
    return model, modules


def start() -> None:
    TABLE.fill_(1)


@pytest.mark.parametrize("name", TRAINED_RIGHT)
def test_a_module_trains_in_a_pack_as_in_a_loop_of_its_own(name):
    """Beside another, and beside one that diverges."""
    runs = [*pack_of_two(name), own_run(name, learning_rate=1e30)]
    start()
    trainer = trained(PackTrainer(runs, CPU))
    assert [at >= 0 for at in trainer.do_step.diverged_at] == [False, False, True]
    for r, run in enumerate(runs[:2]):
        start()
        model, modules = plain_loop(run)
        ours = trainer.pack.weights(r)
        for key, parameter in model.named_parameters():
            if ".mixer." not in key:
                assert_close(ours[key], parameter.data, rtol=1e-3, atol=1e-5)
        for copy, module in zip(trainer.pack.copies[r], modules, strict=True):
            assert_close(held_by(copy.module), held_by(module))


def held_by(module: nn.Module) -> dict[str, object]:
    """Tensors and other values of a module, by name."""
    kinds = (Tensor, int, float, dict, list)
    held = {key: x for key, x in vars(module).items() if isinstance(x, kinds) and key[0] != "_"}
    return {**held, **module.state_dict(), **dict(module.named_buffers())}


@pytest.mark.parametrize("name", KINDS)
def test_training_goes_on_from_a_saved_state_to_the_same_bytes(name, tmp_path):
    start()
    runs = pack_of_two(name)
    whole, part = trained(PackTrainer(runs, CPU)), PackTrainer(runs, CPU)
    for _ in range(2):
        part.advance()
    again = PackTrainer(runs, CPU)
    for r, slot in enumerate(part.running):
        assert slot.step > 0
        write_checkpoint(tmp_path, slot.run.run_id, part.state(slot))
        again.restore(again.running[r], read_checkpoint(tmp_path, slot.run.run_id))
    trained(again)
    for r in range(2):
        assert_close(again.pack.weights(r), whole.pack.weights(r), rtol=0, atol=0)
        ours, theirs = vars(again.slots[r].curve), vars(whole.slots[r].curve)
        assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_comes_to_the_same_in_a_slot_that_another_had(name):
    """And its neighbour does, who trains on meanwhile."""
    first, second = pack_of_two(name)
    third = own_run(name, seed=3, epochs=3)
    expected = {}
    for run in (second, third):
        start()
        expected[run.run_id] = trained(PackTrainer([run], CPU)).pack.weights(0)
    start()
    trainer = PackTrainer([first, third], CPU)
    while trainer.slots[0] and not trainer.slots[0].ended:
        trainer.advance()
    trainer.leave(trainer.slots[0])
    trainer.enter(second)
    trained(trainer)
    for slot in trainer.ended:
        assert_close(trainer.weights(slot), expected[slot.run.run_id], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["Normed", "Assigning", "Drawing", "Capturable", "Replacing"])
def test_neither_neighbours_nor_evaluations_change_a_run_that_has_ended(name):
    runs = pack_of_two(name)
    trainer, alone = PackTrainer(runs, CPU), PackTrainer(runs[:1], CPU)
    for each in (trainer, alone):
        each.advance()
        each.advance()
    ended = trainer.slots[0]
    ended.ended = True
    trainer.do_step.active[0] = False
    trained(trainer)
    trainer.measure(ended, trainer.feed.tests(ended.run))
    assert trainer.slots[1].step > alone.slots[0].step
    assert_close(trainer.pack.weights(0), alone.pack.weights(0))


def test_what_a_module_draws_is_of_its_run_and_step_and_leaves_the_generators_as_they_were():
    def drawn() -> tuple[float, ...]:
        return torch.rand(1).item(), np.random.rand(), random.random()

    def seed() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = drawn()
    seed()
    one = trained(PackTrainer(pack_of_two("Drawing"), CPU))
    assert drawn() == expected
    other = trained(PackTrainer(pack_of_two("Drawing"), CPU))
    assert torch.equal(one.pack.flat, other.pack.flat)
    copies = [copy for of_run in one.pack.copies for copy in of_run]
    assert len({copy._seed for copy in copies}) == len(copies) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A results folder with a run of each kind, with its weights."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in KINDS:
        start()
        run = own_run(name, keep="weights", learning_rate=1e-2)
        inbox = Inbox()
        inbox.put(More(()))
        perform(Train((run,), 1), Setup(folder, "cpu", 1, 60), lambda event: None, inbox)
    return folder


def test_kept_models_are_those_that_the_rows_are_of(folder):
    rows = load_results(folder).runs.set_index("run_id")
    models = load_models(folder)
    assert len(models) == len(rows) == len(KINDS)
    for run_id, row in rows.iterrows():
        if row["mixer"].endswith("Drawing"):
            continue  # also where it is evaluated
        task = own_run("Linear").task
        tokens, positions, targets, _ = make_task(task).examples(24, row["seed"], "test")
        logits = models[run_id](*(torch.from_numpy(x)[None].long() for x in (tokens, positions)))
        loss = F.cross_entropy(logits.flatten(0, 2), torch.from_numpy(targets).flatten().long())
        assert loss.item() == pytest.approx(row["test_loss"], rel=1e-4), row["mixer"]


def test_every_command_takes_a_folder_of_them_without_their_code(folder, capsys, monkeypatch):
    monkeypatch.setattr(CustomConfig, "load", lambda self: pytest.fail("loaded"))
    for command in ("table", "report"):
        assert main([command, str(folder)]) == 0
    assert "Transformer" in capsys.readouterr().out
    runs = load_results(folder).runs
    assert runs["parameters"].gt(0).all() and runs["state_size"].isna().all()
    unknown = runs["mixer"][runs["forward_flops"].isna()].str.partition(":")[2]
    assert set(unknown) == {"Complex", "Spectral", "WeightNormed"}


@pytest.mark.parametrize("name", ["Normed", "Complex", "Assigning", "Drawing"])
def test_a_benchmark_takes_them(name, monkeypatch):
    monkeypatch.setattr(benchmark, "TEST_EXAMPLES", 8)
    run = bench_run(f"{__name__}:{name}", 16, 12, 1, 4, precision="bf16")
    (one,) = bench([run], [2], CPU, Ceilings(1e9, 1e9), seconds=0)
    assert one.ms_per_run_step > 0 and (one.flops_share is None) == (name == "Complex")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Linear", 16**2 + 16),
        ("ZeroDimensional", 16**2 + 16 + 1),
        ("Tied", 16**2 + 2 * 16),
        ("Complex", 2 * (16**2 + 1)),
        ("MovingAverage", 16**2 + 16),
    ],
)
def test_parameters_are_the_numbers_that_are_trained(name, numbers):
    run, none = own_run(name), own_run("Itself")
    assert count_parameters(run) - count_parameters(none) == 2 * numbers


class Assigned(Linear):
    """Assigns in its forward what cannot be carried to another process."""

    def __init__(self, d_model, what):
        super().__init__(d_model)
        self.what, self.made = what, None

    def forward(self, x):
        if self.what == "a parameter":
            self.weight = nn.Parameter(self.weight.detach().clone())
        if self.what == "a module":
            self.made = nn.ReLU()
        if self.what == "an object":
            self.made = {"in a dict": [iter(())]}
        return super().forward(x)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("a parameter", "assigns weight in forward, a Parameter: what"),
        ("a module", "assigns made in forward, a ReLU: what"),
        ("an object", "assigns made in forward, a dict: what"),
    ],
)
def test_what_cannot_be_carried_is_refused_as_soon_as_it_is_assigned(what, says):
    trainer = PackTrainer([own_run("Assigned", options={"what": what})], CPU)
    with pytest.raises(ValueError, match=says):
        trained(trainer)
    assert trainer.slots[0].step < 2


class Strict(Linear):
    """Raises where numbers are not finite, or where a matrix has no inverse."""

    def __init__(self, d_model, why):
        super().__init__(d_model)
        self.why = why

    def forward(self, x):
        if self.why == "input":
            assert x.isfinite().all()
        if self.why == "inverse":
            return x @ torch.linalg.inv(torch.eye(x.shape[-1]) * self.bias[0].sign())
        if self.why == "bug":
            raise KeyError("a bug")
        return super().forward(x)


@pytest.mark.parametrize("why", ["input", "inverse"])
def test_an_error_that_is_a_runs_divergence_is_not_its_neighbours(why):
    runs = [own_run("Strict", options={"why": why}, learning_rate=rate) for rate in (1e-3, 1e30)]
    trainer, alone = PackTrainer(runs, CPU), PackTrainer(runs[:1], CPU)
    trainer.advance()
    trainer.advance()
    with torch.no_grad():
        if why == "input":
            trainer.pack.model.layers[0].sequence.norm.weight[1] = math.nan
        else:
            trainer.pack.copies[1][0].module.bias[0] = 0.0
    trained(trainer)
    trained(alone)
    assert [at >= 0 for at in trainer.do_step.diverged_at] == [False, True]
    assert_close(trainer.pack.weights(0), alone.pack.weights(0))


def test_any_other_error_is_the_users_to_see():
    with pytest.raises(KeyError, match="a bug"):
        trained(PackTrainer([own_run("Strict", options={"why": "bug"})], CPU))


def test_a_step_of_bf16_casts_as_torch_does_and_keeps_the_module_in_float32():
    """Autocast, as in a loop of the user's own: parameters and statistics stay float32."""
    for name in ("Normed", "Complex", "Recurrent", "Assigning"):
        run = own_run(name, precision="bf16")
        pack = trained(PackTrainer([run], CPU)).pack
        state = pack.copies[0][0].module.state_dict().values()
        assert {t.dtype for t in state} <= {torch.float32, torch.complex64, torch.int64}
        x = torch.randn(2, 12, 16)
        exact, cast = (pack.copies[0][0].eval()(u) for u in (x, x.bfloat16()))
        assert cast.dtype == torch.bfloat16
        assert (cast - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("name", "linear"), [("Tied", 1), ("Complex", 0), ("Transformer", 3), ("Spectral", 0)]
)
def test_muon_takes_each_weight_of_a_linear_layer_once(name, linear):
    """But not one that a parametrization computes."""
    pack, rest = (Pack(pack_of_two(each), CPU) for each in (name, "Itself"))
    matrices = pack.matrices()
    assert len(matrices) - len(rest.matrices()) == 2 * linear
    if name == "Tied":
        weights = [copies[0].module.up.weight for copies in pack.copies]
        assert any(
            all(torch.equal(pack.flat[r, m.part], w.flatten()) for r, w in enumerate(weights))
            for m in matrices
        )


# ---- on a GPU


@pytest.mark.parametrize("name", ["Capturable", "Normed"])
def test_only_a_module_that_says_so_is_compiled_and_captured(name):
    assert Pack([own_run(name)], CPU).can_be_captured == (name == "Capturable")


def test_compiled_it_is_what_it_is():
    plain, compiled = (PackTrainer(pack_of_two("Capturable"), CPU) for _ in range(2))
    compiled.do_step.compile(backend="eager")
    for each in (plain, compiled):
        trained(each)
    for r in range(2):
        assert_close(compiled.pack.weights(r), plain.pack.weights(r), rtol=1e-4, atol=1e-6)


def test_steps_that_warm_a_capture_up_leave_no_trace(monkeypatch):
    """Where a capture does nothing but run its step."""
    of_cuda = ("current_stream", "stream", "graph", "CUDAGraph", "empty_cache")
    for name in of_cuda:
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(capture, "_side_stream", MagicMock())
    once, captured = (PackTrainer(pack_of_two("Capturable"), CPU) for _ in range(2))
    for run in (once.do_step, captured.do_step._capture):
        run()
    for r in range(2):
        before = build_model(once.slots[r].run).user_mixers[0].of_runs[0].saved()
        ours, theirs = captured.pack.weights(r), once.pack.weights(r)
        assert_close(ours, theirs, rtol=0, atol=0)
        moved = "module.norm.running_mean"
        assert not torch.equal(ours[f"layers.0.sequence.mixer.copies.0.{moved}"], before[moved])


# ---- looking ahead


class Looking(Linear):
    """Sees later positions in one way or another, or does not."""

    def __init__(self, d_model, how):
        super().__init__(d_model)
        self.how = how
        self.gate = nn.Parameter(torch.zeros(()))
        self.attend = nn.MultiheadAttention(d_model, 2, batch_first=True)
        self.conv = nn.Conv1d(d_model, d_model, 3)

    def forward(self, x):
        y, L = super().forward(x), x.shape[1]
        if self.how == "backwards":
            return y + x.flip(1).cumsum(1).flip(1)
        if self.how == "attention":
            return self.attend(x, x, x)[0]
        if self.how == "behind a gate":
            return y + self.gate * self.attend(x, x, x)[0]
        if self.how == "next":
            return self.conv(F.pad(x.mT, (1, 1))).mT
        if self.how == "last of all":
            return y + F.pad(x[:, -1:], (0, 0, 0, L - 1))
        if self.how == "mean" and not self.training:
            return y + x.mean(1, keepdim=True)
        if self.how == "causal conv":
            return self.conv(F.pad(x.mT, (2, 0))).mT
        if self.how == "fft":
            size, kernel = 2 * L, 0.9 ** torch.arange(L)[:, None]
            product = torch.fft.rfft(x, size, 1) * torch.fft.rfft(kernel, size, 0)
            return 1e3 * torch.fft.irfft(product, size, 1)[:, :L]
        if self.how == "raises" and len(x) == 2:
            raise ValueError("two")
        if self.how == "carries":
            self.kept = x.detach().mean((0, 1)) + getattr(self, "kept", 0.0)
            return y + self.kept * 0 + torch.rand(())
        return y.cumsum(1)


AHEAD = ["backwards", "attention", "behind a gate", "next", "last of all", "mean"]
CAUSAL = ["causal conv", "fft", "raises", "carries", "cumsum"]


@pytest.mark.parametrize("how", [*AHEAD, *CAUSAL])
def test_a_module_that_looks_ahead_is_found_and_left_as_it_was(how):
    run = own_run("Looking", options={"how": how})
    pack = Pack([run, run], CPU)
    before = pack.weights(0)
    with pack.alone(0) as model:
        assert model.user_mixers[1].looks_ahead(CPU) == (how in AHEAD)
    assert_close(pack.weights(0), before, rtol=0, atol=0)


def test_training_warns_of_it_once():
    run = own_run("Looking", options={"how": "next"})
    says = f"{__name__}:Looking looks ahead: what it makes at a position changes with inputs after"
    with pytest.warns(ZoorecallWarning, match=says) as caught:
        table = train(run, device="cpu").runs
    assert len(caught) == len(table) == 1
    train(own_run("Looking", options={"how": "fft"}), device="cpu")
