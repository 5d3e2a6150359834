"""A user's own mixer in a grid: how it is found and made, what it costs, and what is refused."""

import sys

import pytest
import torch
from conftest import small_run
from torch import nn

from zoorecall import load_grid
from zoorecall.bench import Ceilings, bench, bench_run
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.display import print_measurement, print_plan
from zoorecall.errors import GridError
from zoorecall.grid import Grid
from zoorecall.mixers import CustomConfig
from zoorecall.model import cost
from zoorecall.model.cost import count_parameters, forward_flops, state_size
from zoorecall.model.model import build_model
from zoorecall.model.pack import Pack
from zoorecall.sweeps.plan import RunGroup
from zoorecall.tasks import make_task
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")
LIMITS = Ceilings(1e9, 1e9)


class Dropping(nn.Module):
    """Passes on nothing while it trains, and too little if asked for."""

    def __init__(self, d_model: int, keep: int = 99):
        super().__init__()
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 1.0, self.training)[:, : self.keep]


def custom_run(seed: int, name: str, **options: int | str) -> RunConfig:
    mixer = {"name": f"{__name__}:{name}", "options": options}
    run = small_run(seed=seed)
    model = RunConfig.model_validate({"model": {"d_model": 16, "mixer": mixer}}).model
    return run.model_copy(update={"model": model})


class Plain(nn.Module):
    """A linear layer, and what else is asked for."""

    def __init__(self, d_model: int, kind: str):
        super().__init__()
        self.linear, self.kind = nn.Linear(d_model, d_model), kind
        self.gru = nn.GRU(d_model, d_model, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        if self.kind == "attention":
            q = x.unflatten(-1, (2, -1)).transpose(1, 2)
            x = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
        if self.kind == "gru":
            x = self.gru(x)[0]
        if self.kind == "fft":
            x = torch.fft.irfft(torch.fft.rfft(x, dim=1), x.shape[1], dim=1)
        if self.kind == "looks at numbers" and x.sum().item() > 0:
            x = -x
        if self.kind == "norms":
            x = nn.functional.layer_norm(x, x.shape[-1:]).softmax(-1)[:, torch.arange(x.shape[1])]
            x = (
                torch.cat([x[:, :1], nn.functional.dropout(x)[:, 1:]], 1)
                / x.norm(dim=-1)[..., None]
            )
        return x


class Telling(Plain):
    """Tells what it costs."""

    def state_size(self, length: int) -> int:
        return 5

    def sequence_flops(self, length: int) -> int:
        return 7 * length


LINEAR = 2 * 12 * 16 * 16


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("linear", LINEAR),
        ("norms", LINEAR),
        ("attention", LINEAR + 2 * 2 * 12 * 12 * 16),
        ("gru", LINEAR + 2 * 3 * LINEAR),
        ("fft", None),
        ("looks at numbers", None),
    ],
)
def test_flops_of_a_users_mixer_are_those_of_its_operations_or_unknown(kind, flops):
    run = custom_run(1, "Plain", kind=kind)
    assert build_model(run).layers[0].mixer.flops(12, outputs=2) == flops
    of_attention = forward_flops(small_run()) - sum(
        layer.mixer.flops(12, outputs)
        for layer, outputs in zip(build_model(small_run()).layers, (12, 2), strict=True)
    )
    assert forward_flops(run) == (None if flops is None else of_attention + 2 * flops)


def test_what_a_users_mixer_tells_of_itself_is_the_whole_of_it_and_what_it_does_not_is_unknown():
    telling, silent = (custom_run(1, name, kind="fft") for name in ("Telling", "Plain"))
    assert (state_size(telling), state_size(silent)) == (2 * 5, None)
    assert build_model(telling).layers[0].mixer.flops(12) == 7 * 12
    assert forward_flops(telling) is not None and forward_flops(silent) is None


class Weighing(Plain):
    """Its state hangs on its weights."""

    def state_size(self, length: int) -> int:
        return int(1e6 * self.linear.weight.abs().sum())


def test_what_a_users_mixer_tells_of_its_weights_is_of_those_that_it_begins_with():
    run = custom_run(2, "Weighing", kind="linear")
    pack = Pack([run, run], torch.device("cpu"))
    pack.flat.mul_(2)
    on_pack, anew = (cost._counted(run, model) for model in (pack.model, None))
    assert state_size.__wrapped__(run, on_pack) == state_size.__wrapped__(run, anew) > 0


def test_a_users_mixer_is_planned_by_an_estimate_without_calling_it(monkeypatch):
    own = RunGroup((small_run(),), 1)
    tokens = 2 * 5 * 8 * 12  # epochs, steps, batch, length
    assert own.work == own.flops == 3 * forward_flops(small_run()) * tokens / 12
    runs = [custom_run(seed, "Plain", kind="linear") for seed in (1, 2)]
    monkeypatch.setattr(Plain, "forward", lambda *_: pytest.fail("called"))
    assert RunGroup(tuple(runs), 2).work == 2 * 6 * count_parameters(runs[0]) * tokens


class ByLayer(nn.Linear):
    """Has a parameter more in each layer."""

    def __init__(self, d_model: int, layer: int):
        super().__init__(d_model, d_model)
        self.more = nn.Parameter(torch.zeros(layer + 1))


def test_the_parameters_of_layers_that_differ_are_all_counted():
    run = custom_run(1, "ByLayer")
    model = build_model(run)
    assert count_parameters(run) == sum(parameter.numel() for parameter in model.parameters())


def test_a_plan_shows_no_flops_where_they_are_not_known(capsys):
    runs = [custom_run(1, "Plain", kind=kind) for kind in ("fft", "linear")]
    groups = [RunGroup((run,), 1) for run in runs]
    print_plan(Grid("g", tuple(runs)), groups, "cpu")
    cells = capsys.readouterr().out.split()
    assert groups[0].flops is None and "-" in cells
    assert f"{groups[1].flops:.2e}" in cells


def test_a_pack_of_unknown_flops_is_measured_without_a_share_of_them(capsys):
    mixer = {"name": f"{__name__}:Plain", "options": {"kind": "fft"}}
    run = bench_run(mixer, 16, 16, 1, 4, precision="fp32")
    (one,) = bench([run], [1], CPU, LIMITS, seconds=0)
    print_measurement(one)
    out = capsys.readouterr().out
    assert one.flops_share is None and "of bytes/s" in out and "FLOP/s" not in out


def test_a_users_dropout_is_off_where_it_is_evaluated():
    trainer = PackTrainer([custom_run(1, "Dropping", keep=99)], CPU)
    (slot,), seen = trainer.running, []
    trainer.pack.copies[0][0].register_forward_hook(lambda m, x, y: seen.append(bool(y.any())))
    trainer.measure(slot, trainer.feed.tests(slot.run).of_place(0, 4))
    trainer.time_steps(1)
    trainer.measure(slot, trainer.feed.tests(slot.run).of_place(0, 4))
    assert seen == [True, False, True]


def test_a_users_mixer_that_breaks_the_contract_is_named():
    run = custom_run(1, "Dropping", keep=3)
    tokens, positions = (
        torch.from_numpy(x)[None].long() for x in make_task(run.task).examples(5, 0, "train")[:2]
    )
    with pytest.raises(ValueError, match=r"Dropping made \[5, 3, 16, .*of \[5, "):
        build_model(run)(tokens, positions)


def test_a_mixer_is_found_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_alone.py").write_text(
        "import torch\n\nclass Mine(torch.nn.Linear):\n"
        "    def __init__(self, d_model):\n        super().__init__(d_model, d_model)\n"
    )
    assert CustomConfig(name="mine_alone:Mine").load().__name__ == "Mine"


# ---- what is refused


class Refusing(Plain):
    """Cannot be trained, for one reason or another."""

    def __init__(self, d_model: int, why: str):
        super().__init__(d_model, "linear")
        if why == "raises":
            self.heads = d_model // 0
        if why == "raises in lines":
            raise RuntimeError("one line\nand another")
        if why == "float64":
            self.double()
        if why == "half":
            self.scale = nn.Parameter(torch.ones(3).half())
        if why == "lazy":
            self.up = nn.LazyLinear(d_model)
        if why == "overlap":
            self.down = nn.Parameter(self.linear.weight.detach()[1:].T)
        if why == "view":
            self.kept = self.linear.bias.data
        if why == "shared":
            self.register_parameter("all", SHARED)

    @property
    def state_size(self):
        return len if self.kind == "linear" else 3


SHARED = nn.Parameter(torch.zeros(3))


class NoForward(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()


FAULTS = {
    "no_such_package:Mixer": "ModuleNotFoundError: No module named 'no_such_package'",
    "keyword:Mixer": "AttributeError: module 'keyword' has no attribute 'Mixer'",
    "keyword:iskeyword": "TypeError: it is not a torch.nn.Module class",
    "__main__:Mine": "ImportError: __main__ should be a .py file that another process can import",
    "NoForward": "it has no forward",
    "raises": "ZeroDivisionError: integer division or modulo by zero",
    "raises in lines": "RuntimeError: one line",
    "float64": "its parameter linear.weight is float64, should be float32 or complex64 to be",
    "half": "its parameter scale is float16, should be float32 or complex64 to be trained",
    "lazy": "its parameter up.weight has no shape before the first forward",
    "overlap": "its parameter down shares memory with its own linear.weight",
    "view": "its parameter linear.bias shares memory with its own kept",
    "shared": "its parameter all shares memory with another copy's all",
    "state_size": "TypeError: object of type 'int' has no len()",
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("place", ["base", "axes", "pattern"])
def test_a_module_that_cannot_be_used_is_refused_in_one_line(place, case, tmp_path, monkeypatch):
    mine = type("Mine", (nn.Identity,), {})
    monkeypatch.setattr(sys.modules["__main__"], "Mine", mine, raising=False)
    own = f"{__name__}:Refusing"
    name = case if ":" in case else f"{__name__}:NoForward" if case == "NoForward" else own
    options = f", options: {{why: {case}}}" if name == own else ""
    mixer = f"{{name: '{name}'{options}}}"
    path = tmp_path / "grid.yaml"
    path.write_text(
        "base:\n  model.d_model: 16\n"
        + {
            "base": f"  model.mixer: {mixer}\naxes: {{seed: [1]}}",
            "axes": f"axes:\n  model.mixer: [{mixer}]",
            "pattern": f"  model.mixer: {{name: pattern, mixers: [attention, {mixer}]}}",
        }[place]
        + "\n"
    )
    with pytest.raises(GridError) as caught:
        load_grid(path)
    line, key = (4 if place == "axes" else 3), "model.mixer"
    text = str(caught.value)
    assert text.startswith(f"{path}:{line}: {key}")
    assert f"{name} cannot be used: {FAULTS[case]}" in text and "\n" not in text


def test_bench_refuses_a_module_in_one_line(capsys):
    mixer = f"{{name: '{__name__}:Refusing', options: {{why: raises}}}}"
    assert main(["bench", "--mixers", mixer, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bench: model.mixer: {__name__}:Refusing cannot be used: ZeroDiv")
    assert error.count("\n") == 1
