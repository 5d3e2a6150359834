"""Optimizers over a pack against those of torch a run, and the schedules against closed forms."""

import math

import pytest
import torch
from conftest import small_run
from official import Mamba as OfficialMamba
from official import Mamba2 as OfficialMamba2
from pydantic import ValidationError

from zoorecall.config import TrainConfig
from zoorecall.model.pack import Matrix, Pack
from zoorecall.training.optim import Optimizer, learning_rates, make_optimizer, orthogonalize
from zoorecall.training.trainer import PackTrainer

COMMON = {"epochs": 3, "train_examples": 8, "batch_size": 2}
SETTINGS = {
    "adamw": [
        {"learning_rate": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.999)},
        {"learning_rate": 1e-1, "weight_decay": 0.0, "betas": (0.8, 0.95), "schedule": "constant"},
        {"learning_rate": 1e-2, "weight_decay": 0.3, "clip_norm": 0.5, "warmup": 0.5},
        {"learning_rate": 2e-3, "eps": 1e-3, "schedule": "linear"},
    ],
    "sgd": [
        {"learning_rate": 3e-2},
        {"learning_rate": 1e-1, "weight_decay": 0.0, "momentum": 0.5, "schedule": "constant"},
        {"learning_rate": 1e-2, "weight_decay": 0.3, "momentum": 0.0, "clip_norm": 0.5},
    ],
    "sgd nesterov": [
        {"learning_rate": 3e-2, "nesterov": True},
        {"learning_rate": 1e-1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.3},
    ],
    "lion": [
        {"learning_rate": 3e-3},
        {"learning_rate": 1e-1, "weight_decay": 0.0, "betas": (0.8, 0.95), "schedule": "constant"},
        {"learning_rate": 1e-2, "weight_decay": 0.3, "clip_norm": 0.5, "warmup": 0.5},
    ],
    "muon": [
        {"learning_rate": 3e-3},
        {"learning_rate": 1e-1, "momentum": 0.5, "adamw_learning_rate": 3e-2, "betas": (0.8, 0.95)},
        {"learning_rate": 1e-2, "weight_decay": 0.3, "clip_norm": 0.5, "eps": 1e-3, "warmup": 0.5},
    ],
    "muon original": [
        {"learning_rate": 3e-2, "adjust_lr_fn": "original"},
        {"learning_rate": 1e-1, "adjust_lr_fn": "original", "momentum": 0.0},
    ],
    "muon without nesterov": [
        {"learning_rate": 3e-2, "nesterov": False},
        {"learning_rate": 1e-2, "nesterov": False, "momentum": 0.5},
    ],
}
"""The settings of packs, by their optimizer and what else is one for all runs."""

P = 90
MATRICES = [Matrix(70, 2, 5), Matrix(3, 4, 5), Matrix(23, 5, 2), Matrix(40, 7, 4)]
"""Where the weights of linear layers are: some side by side, none at the start, two of a shape."""

each_pack = pytest.mark.parametrize("pack", SETTINGS)


def settings(pack: str) -> list[TrainConfig]:
    return [TrainConfig(**COMMON, optimizer=pack.split()[0], **each) for each in SETTINGS[pack]]


def entered(runs: list[TrainConfig], flat: torch.Tensor, decayed=None) -> Optimizer:
    """The optimizer of a pack with these runs in its slots, at their first step."""
    cursor = torch.zeros(len(runs), dtype=torch.int64)
    optimizer = make_optimizer(runs[0], flat, cursor, MATRICES, decayed)
    for r, run in enumerate(runs):
        optimizer.enter(r, run)
        optimizer.load(r, run, 0)
    return optimizer


def at(optimizer: Optimizer, runs: list[TrainConfig], step: int) -> Optimizer:
    """An optimizer whose runs are at a step."""
    epoch, step = divmod(step, runs[0].steps_per_epoch)
    for r, run in enumerate(runs):
        optimizer.load(r, run, epoch)
    optimizer.cursor.fill_(step)
    return optimizer


class WrittenOutLion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023, number by number of what is in it: eta, lambda, beta."""

    def __init__(self, parameters, betas, weight_decay):
        super().__init__(parameters, {"lr": 0.0, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (beta1, beta2), eta, decay = group["betas"], group["lr"], group["weight_decay"]
            for theta in group["params"]:
                state = self.state[theta]
                m, g = state.get("m", torch.zeros_like(theta)), theta.grad
                c = beta1 * m + (1 - beta1) * g
                theta -= eta * (torch.sign(c) + decay * theta)
                state["m"] = beta2 * m + (1 - beta2) * g


class SoloRun:
    """One run by torch's own optimizers: its parameters apart, as a model has them."""

    def __init__(self, run: TrainConfig, row: torch.Tensor):
        self.run, self.rest = run, torch.ones(P, dtype=torch.bool)
        for matrix in MATRICES:
            self.rest[matrix.part] = False
        *self.matrices, self.others = map(torch.nn.Parameter, self.apart(row))
        every, decay = [*self.matrices, self.others], run.weight_decay
        adam = {"betas": run.betas, "eps": run.eps, "weight_decay": decay}
        momentum = {"momentum": run.momentum, "nesterov": run.nesterov, "weight_decay": decay}
        rates = learning_rates(run, torch.arange(run.num_steps).double())
        if run.optimizer == "adamw":
            self.optimizers = [(torch.optim.AdamW(every, **adam), rates)]
        elif run.optimizer == "sgd":
            self.optimizers = [(torch.optim.SGD(every, **momentum), rates)]
        elif run.optimizer == "lion":
            self.optimizers = [(WrittenOutLion(every, run.betas, decay), rates)]
        else:
            muon = torch.optim.Muon(self.matrices, **momentum, adjust_lr_fn=run.adjust_lr_fn)
            other_rate = run.adamw_learning_rate or run.learning_rate
            other_rates = rates * other_rate / run.learning_rate
            adamw = torch.optim.AdamW([self.others], **adam)
            self.optimizers = [(muon, rates), (adamw, other_rates)]

    def apart(self, row: torch.Tensor) -> list[torch.Tensor]:
        """The matrices of a row [P], and what is left."""
        matrices = [row[m.part].view(m.rows, m.columns).clone() for m in MATRICES]
        return [*matrices, row[self.rest]]

    def step(self, grad: torch.Tensor, step: int) -> None:
        every = [*self.matrices, self.others]
        for parameter, of_it in zip(every, self.apart(grad), strict=True):
            parameter.grad = of_it
        if self.run.clip_norm:
            torch.nn.utils.clip_grad_norm_(every, self.run.clip_norm)
        for optimizer, rates in self.optimizers:
            optimizer.param_groups[0]["lr"] = float(rates[step])
            optimizer.step()


@each_pack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_packed_step_is_that_of_torchs_optimizer_with_that_runs_settings(pack, dtype):
    runs = settings(pack)
    torch.manual_seed(0)
    start = torch.randn(len(runs), P, dtype=dtype)
    grads = torch.randn(runs[0].num_steps, len(runs), P, dtype=dtype)
    flat = start.clone()
    packed = entered(runs, flat)
    solo = [SoloRun(run, row) for run, row in zip(runs, start, strict=True)]
    active = torch.ones(len(runs), dtype=torch.bool)
    for step in range(runs[0].num_steps):
        updated, norm = at(packed, runs, step).step(grads[step].clone(), active)
        assert updated.all()
        torch.testing.assert_close(norm, torch.linalg.vector_norm(grads[step], dim=1))
        for r, run in enumerate(solo):
            run.step(grads[step, r], step)
            *matrices, others = run.apart(flat[r])
            torch.testing.assert_close(others, run.others.detach(), rtol=2e-6, atol=1e-7)
            # a bfloat16 may be rounded the other way, which is 0.4 % of a step of Muon
            atol = 0.03 * runs[r].learning_rate if "muon" in pack else 1e-7
            for ours, theirs in zip(matrices, run.matrices, strict=True):
                torch.testing.assert_close(ours, theirs.detach(), rtol=2e-6, atol=atol)


@each_pack
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_with_a_gradient_that_is_not_finite_is_left_as_it_was(bad, pack):
    runs = settings(pack)
    flat, grads = torch.randn(len(runs), P), torch.randn(2, len(runs), P)
    alone = flat.clone()
    packed, clean = entered(runs, flat), entered(runs, alone)
    active = torch.ones(len(runs), dtype=torch.bool)
    packed.step(grads[0], active)
    clean.step(grads[0], active)
    flat[0, 7] = math.inf  # a run that is lost may have any parameters
    before, poisoned = flat[0].clone(), grads[1].clone()
    poisoned[0, 2] = bad
    updated, _ = at(packed, runs, 1).step(poisoned, active)
    at(clean, runs, 1).step(grads[1], active)
    assert updated.tolist() == [False] + [True] * (len(runs) - 1)
    assert torch.equal(flat[0], before)
    assert torch.equal(flat[1:], alone[1:])


@each_pack
def test_what_is_exempt_has_no_weight_decay_and_all_else_stays_the_same(pack):
    runs, exempt = settings(pack), torch.arange(P) % 3 == 0
    none = [run.model_copy(update={"weight_decay": 0.0}) for run in runs]
    starts, grad = torch.randn(2, len(runs), P)
    flats = [starts.clone() for _ in range(3)]
    partly = entered(runs, flats[0], ~exempt)
    optimizers = (partly, entered(runs, flats[1]), entered(none, flats[2]))
    active = torch.ones(len(runs), dtype=torch.bool)
    for optimizer in optimizers:
        optimizer.step(grad.clone(), active)
    ours, decayed, kept = flats
    assert torch.equal(ours, torch.where(exempt, kept, decayed)) and not torch.equal(ours, decayed)


@pytest.mark.parametrize(
    ("mixer", "official"), [("mamba", OfficialMamba), ("mamba2", OfficialMamba2)]
)
def test_official_code_exempts_these_and_of_mamba_its_dt_bias(mixer, official):
    options = {"d_state": 4, **({"headdim": 8} if mixer == "mamba2" else {})}
    marked = official(16, **options).named_parameters()
    marked = {name for name, p in marked if getattr(p, "_no_weight_decay", False)}
    run = small_run(mixer, undecayed="official")
    pack = Pack([run], torch.device("cpu"))
    flat = torch.zeros_like(pack.flat)
    pack.set_flat(flat.masked_fill(~pack.decayed(), 1.0))
    found = {name for name, p in pack.model.named_parameters() if p.all()}
    ours = {name.removeprefix(f"layers.{i}.sequence.mixer.") for i in (0, 1) for name in found}
    ours = {name for name in ours if not name.startswith("layers.")}
    assert ours == marked | ({"dt_proj.bias"} if mixer == "mamba" else set())
    assert len(found) == 2 * len(ours)
    assert PackTrainer([run], torch.device("cpu")).do_step.optimizer.decayed.numel() > 1


def test_orthogonalized_matrices_are_nearly_orthogonal_whatever_their_scale():
    torch.manual_seed(0)
    for rows, columns in ((4, 9), (9, 4), (1, 5), (6, 6)):
        u, _, v = torch.linalg.svd(torch.randn(7, rows, columns), full_matrices=False)
        values = torch.linspace(0.3, 1, u.shape[-1])
        for scale in (1e-6, 1.0, 1e6):
            found = orthogonalize(scale * u * values @ v).float()
            assert found.shape == (7, rows, columns)
            along = u.mT @ found @ v.mT  # singular values, if the singular vectors are the same
            off = along - torch.diag_embed(along.diagonal(dim1=1, dim2=2))
            assert off.abs().max() < 0.1
            assert along.diagonal(dim1=1, dim2=2).min() > 0.6
            assert along.diagonal(dim1=1, dim2=2).max() < 1.3
    assert orthogonalize(torch.zeros(1, 3, 2)).eq(0).all()


@pytest.mark.parametrize(
    ("name", "options", "where"),
    [
        ("adamw", {"momentum": 0.9}, "sgd or muon"),
        ("lion", {"nesterov": False}, "sgd or muon"),
        ("sgd", {"betas": (0.9, 0.99)}, "adamw or lion or muon"),
        ("lion", {"eps": 1e-6}, "adamw or muon"),
        ("sgd", {"adjust_lr_fn": "original"}, "muon"),
        ("adamw", {"adamw_learning_rate": 0.1}, "muon"),
    ],
)
def test_an_option_of_another_optimizer_is_an_error(name, options, where):
    says = f"{next(iter(options))} is no option of optimizer {name}, should be with {where}"
    with pytest.raises(ValidationError, match=says):
        TrainConfig(optimizer=name, **options)


def test_each_optimizer_has_defaults_of_its_own_which_a_config_keeps_when_it_is_read_again():
    defaults = {name: TrainConfig(optimizer=name) for name in ("adamw", "sgd", "lion", "muon")}
    assert {name: train.betas for name, train in defaults.items()} == {
        "adamw": (0.9, 0.999), "sgd": (0.9, 0.999), "lion": (0.9, 0.99), "muon": (0.9, 0.999),
    }  # fmt: skip
    assert {name: (x.momentum, x.nesterov) for name, x in defaults.items()} == {
        "adamw": (None, None), "sgd": (0.9, False), "lion": (None, None), "muon": (0.95, True),
    }  # fmt: skip
    assert TrainConfig(optimizer="lion", betas=(0.9, 0.999)).betas == (0.9, 0.999)
    for train in defaults.values():
        assert TrainConfig.model_validate(train.model_dump(mode="json")) == train


def test_warmup_ends_at_the_peak_and_cosine_ends_near_zero():
    train = TrainConfig(learning_rate=2.0, epochs=10, train_examples=100, batch_size=10, warmup=0.1)
    rates = learning_rates(train, torch.arange(train.num_steps).double())
    assert len(rates) == 100
    torch.testing.assert_close(rates[:10], 2.0 * torch.arange(1, 11, dtype=torch.float64) / 10)
    assert rates[10] == 2.0
    expected = [2.0 * (1 + math.cos(math.pi * i / 90)) / 2 for i in range(90)]
    torch.testing.assert_close(rates[10:], torch.tensor(expected, dtype=torch.float64))


def test_cosine_by_epoch_follows_torchs_schedule_stepped_once_an_epoch():
    train = TrainConfig(
        epochs=5, train_examples=12, batch_size=3, warmup=0.0, schedule="cosine_by_epoch"
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    expected = []
    for _ in range(5):
        expected += [optimizer.param_groups[0]["lr"]] * 4
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(
        learning_rates(train, torch.arange(train.num_steps).double()),
        torch.tensor(expected, dtype=torch.float64),
    )


def test_linear_falls_by_equal_steps_and_constant_stays():
    common = {"epochs": 1, "train_examples": 8, "batch_size": 2, "warmup": 0.0}
    steps = torch.arange(4).double()
    linear = learning_rates(TrainConfig(learning_rate=1.0, schedule="linear", **common), steps)
    torch.testing.assert_close(linear, torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64))
    constant = learning_rates(TrainConfig(learning_rate=1.0, schedule="constant", **common), steps)
    assert constant.tolist() == [1.0] * 4
