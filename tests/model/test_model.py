"""Models, packs of models, a user's own mixer, and what the plan says of them."""

import dataclasses
import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL_MIXERS, small_run
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoorecall import bench as benchmark
from zoorecall.bench import bench, bench_run, read_record, record
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.display import print_measurement, print_plan
from zoorecall.grid import Grid
from zoorecall.mixers import MIXERS, CustomConfig
from zoorecall.mixers.custom import Custom
from zoorecall.model.cost import count_parameters, forward_flops, state_size
from zoorecall.model.model import build_model
from zoorecall.model.pack import Pack
from zoorecall.sweeps.plan import PlannedPack, plan
from zoorecall.tasks import make_task
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")
LIMITS = benchmark.Ceilings(1e9, 1e9)


def batch_of(run: RunConfig, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    examples = make_task(run.task).examples(n, seed=0, split="train")
    tokens, positions = (torch.from_numpy(x)[None] for x in examples[:2])
    return tokens, positions.long()


def test_logits_stand_at_the_query_positions_and_nowhere_else(mixer):
    run = small_run(mixer)
    model = build_model(run)
    tokens, positions = batch_of(run)
    logits = model(tokens, positions)
    assert logits.shape == (1, 5, 2, run.task.vocab_size)
    everywhere = torch.arange(run.task.seq_len).expand(1, 5, -1)
    index = positions.unsqueeze(-1).expand(-1, -1, -1, run.task.vocab_size)
    torch.testing.assert_close(logits, model(tokens, everywhere).gather(2, index))


def test_the_model_is_causal(mixer):
    run = small_run(mixer)
    model, (tokens, _) = build_model(run), batch_of(run)
    changed = tokens.clone()
    changed[..., 7:] = 1
    early = torch.arange(7).expand(1, 5, -1)
    torch.testing.assert_close(model(tokens, early), model(changed, early))


def test_the_seed_alone_decides_the_weights(mixer):
    torch.manual_seed(123)
    first = build_model(small_run(mixer, seed=7, learning_rate=1.0))
    torch.rand(5)
    second = build_model(small_run(mixer, seed=7, learning_rate=0.1))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_counts_of_a_run_are_those_of_its_tensors(mixer):
    run = small_run(mixer)
    model = build_model(run)
    assert count_parameters(run) == sum(p.numel() for p in model.parameters())
    assert state_size(run) == 2 * model.layers[0].mixer.state_size(run.task.seq_len) > 0
    assert forward_flops(run) > 2 * run.task.seq_len * run.model.d_model**2


def test_flops_of_projections_mlp_and_head_are_what_torch_counts():
    run = small_run("attention").model_copy(
        update={"model": RunConfig.model_validate({"model": {"d_model": 16}}).model}
    )
    model, (tokens, positions) = build_model(run), batch_of(run, n=1)
    # torch counts attention's products only where they are products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, positions)
    L, D = run.task.seq_len, run.model.d_model
    square = 4 * L * L * D * run.model.num_layers  # torch counts all of the attention's square,
    causal = 2 * L * (L + 1) * D * run.model.num_layers  # and we its causal half
    assert forward_flops(run) == counter.get_total_flops() - square + causal


@pytest.mark.parametrize(
    ("positions", "mixer", "expected"),
    [
        ("auto", "attention", "learned"),
        ("auto", {"name": "attention", "rope": True}, "none"),
        ("auto", "hyena", "none"),
        ("learned", "hyena", "learned"),
        ("none", "attention", "none"),
    ],
)
def test_positions_are_learned_where_asked_and_by_default_for_attention(positions, mixer, expected):
    run = RunConfig.model_validate(
        {"model": {"d_model": 8, "mixer": mixer, "positions": positions}}
    )
    assert run.model.positions == expected
    assert (build_model(run).position_embedding is not None) == (expected == "learned")


def test_a_pack_is_one_tensor_whose_views_are_the_parameters(mixer):
    runs = [small_run(mixer, seed=seed) for seed in (1, 2, 3)]
    pack = Pack(runs, CPU)
    with torch.no_grad():
        pack.flat.zero_()
    assert not any(p.any() for p in pack.model.parameters() if p.requires_grad)
    grads = [torch.randn_like(p) for p in pack.model.parameters() if p.requires_grad]
    joined = pack.join(grads)
    assert joined.shape == pack.flat.shape
    torch.testing.assert_close(
        joined.sum(), sum(grad.sum() for grad in grads), rtol=1e-3, atol=1e-3
    )


class Smoother(nn.Module):
    """A user's mixer, with a submodule, a frozen parameter, and a buffer drawn at random."""

    def __init__(self, d_model: int, depth: int = 1):
        super().__init__()
        self.inner = nn.Sequential(*(nn.Linear(d_model, d_model) for _ in range(depth)))
        self.frozen = nn.Parameter(torch.randn(d_model), requires_grad=False)
        self.register_buffer("shift", torch.randn(d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[None, :, None]
        return self.inner(x).cumsum(1) / steps * self.frozen + self.shift


class Dropping(nn.Module):
    """Passes on nothing while it trains, and too little if asked for."""

    def __init__(self, d_model: int, keep: int = 99):
        super().__init__()
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 1.0, self.training)[:, : self.keep]


class Refusing(nn.Module):
    """Cannot be made."""

    def __init__(self, d_model: int, wrong: int):
        super().__init__()
        self.heads = d_model // 0


def custom_run(seed: int, name: str = "Smoother", **options: int | str) -> RunConfig:
    mixer = {"name": f"{__name__}:{name}", "options": options or {"depth": 2}}
    run = small_run(seed=seed)
    model = RunConfig.model_validate({"model": {"d_model": 16, "mixer": mixer}}).model
    return run.model_copy(update={"model": model})


def test_a_users_own_module_trains_in_a_pack_as_one_copy_a_run():
    runs = [custom_run(seed) for seed in (1, 2)]
    pack = Pack(runs, CPU)
    mixer = pack.model.layers[0].mixer
    assert isinstance(mixer, Custom)
    x = torch.randn(2, 3, 12, 16)
    y = mixer(x)
    for r, run in enumerate(runs):
        solo = build_model(run).layers[0].mixer
        torch.testing.assert_close(y[r], solo(x[r : r + 1])[0])
        module = Smoother(16, depth=2)
        named = [*module.named_parameters(), *module.named_buffers()]
        for (_, theirs), ours in zip(named, mixer.tensors, strict=True):
            theirs.data = ours[r].detach()
        torch.testing.assert_close(y[r], module(x[r]))
    y.sum().backward()
    assert [t.grad is not None for t in mixer.tensors].count(True) == 4  # two weights, two biases


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


def test_a_users_mixer_is_planned_by_an_estimate_without_calling_it(monkeypatch):
    own = PlannedPack((small_run(),))
    tokens = 2 * 5 * 8 * 12  # epochs, steps, batch, length
    assert own.work == own.flops == 3 * forward_flops(small_run()) * tokens / 12
    runs = [custom_run(seed, "Plain", kind="linear") for seed in (1, 2)]
    monkeypatch.setattr(Plain, "forward", lambda *_: pytest.fail("called"))
    assert PlannedPack(tuple(runs)).work == 2 * 6 * count_parameters(runs[0]) * tokens
    assert len(plan(runs, lambda _: 2, at_least=2)) == 2


def test_a_plan_shows_no_flops_where_they_are_not_known(capsys):
    runs = [custom_run(1, "Plain", kind=kind) for kind in ("fft", "linear")]
    packs = [PlannedPack((run,)) for run in runs]
    print_plan(Grid("g", Path("g.yaml"), "", tuple(runs)), packs, "cpu")
    unknown, known = (line.split()[-2] for line in capsys.readouterr().out.splitlines()[1:3])
    assert packs[0].flops is None and unknown == "-"
    assert float(known) == pytest.approx(packs[1].flops, 0.01)


def test_a_pack_of_unknown_flops_is_measured_without_a_share_of_them(capsys):
    mixer = {"name": f"{__name__}:Plain", "options": {"kind": "fft"}}
    run = bench_run(mixer, 16, 16, 1, 4, precision="fp32")
    (one,) = bench([run], [1], CPU, LIMITS, seconds=0)
    print_measurement(one, first=False)
    assert one.flops_share is None and " - " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_package:Mixer", "No module named"),
        ("math:Mixer", "no attribute 'Mixer'"),
        ("math:sqrt", "not a torch.nn.Module"),
        (f"{__name__}:Smoother", "unexpected keyword"),
        (f"{__name__}:Refusing", "Refusing cannot be used: ZeroDivisionError"),
    ],
)
def test_a_mixer_that_cannot_be_used_is_refused_with_the_reason(name, says):
    with pytest.raises(ValueError, match=says):
        CustomConfig(name=name, options={"wrong": 1}).check(16)


def test_a_users_dropout_is_off_where_it_is_evaluated():
    trainer = PackTrainer([custom_run(1, "Dropping", keep=99)], CPU)
    seen = []
    trainer.pack.model.layers[0].mixer.register_forward_hook(
        lambda module, x, y: seen.append(bool(y.any()))
    )
    trainer.measure(trainer.test_examples, 4)
    trainer.time_steps(1)
    trainer.measure(trainer.test_examples, 4)
    assert seen == [True, False, True]


def test_a_users_mixer_that_breaks_the_contract_is_named():
    run = custom_run(1, "Dropping", keep=3)
    tokens, positions = batch_of(run)
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


def test_the_plan_leaves_no_device_without_a_pack():
    long = [small_run(seed=s, epochs=9) for s in range(5)]
    short = [small_run(seed=s) for s in range(5)]
    sizes = {n: plan([*long, *short], lambda run: 8, at_least=n) for n in (1, 2, 3, 5, 99)}
    lengths = {n: [len(pack.runs) for pack in packs] for n, packs in sizes.items()}
    assert lengths[1] == lengths[2] == [5, 5] and lengths[3] == [2, 3, 5]
    assert lengths[5] == [1, 1, 1, 2, 5] and lengths[99] == [1] * 10
    earlier = {"one": [run.run_id for run in long]}
    assert [len(p.runs) for p in plan(long, lambda run: 8, earlier, at_least=2)] == [5]


def test_the_plan_keeps_earlier_packs_and_cuts_the_rest_evenly():
    runs = [small_run(seed=s, learning_rate=r) for s, r in itertools.product((1, 2), (1e-3, 1e-2))]
    other = small_run("hyena")
    packs = plan([*runs, other], lambda run: 3)
    assert [len(pack.runs) for pack in packs] == [2, 2, 1]
    assert packs[-1].runs == (other,)
    kept = {p.pack_id: [run.run_id for run in p.runs] for p in [PlannedPack(tuple(runs[1:3]))]}
    again = plan([*runs, other], lambda run: 3, kept)
    assert any(pack.runs == tuple(runs[1:3]) for pack in again)
    assert sorted(r.run_id for p in again for r in p.runs) == sorted(
        r.run_id for r in [*runs, other]
    )


def test_a_run_id_is_of_the_resolved_config_and_a_pack_key_ignores_per_run_numbers():
    plain = RunConfig.model_validate({"model": {"positions": "auto"}})
    assert plain.run_id == RunConfig.model_validate({"model": {"positions": "learned"}}).run_id
    one, other = small_run(seed=1, learning_rate=1e-3), small_run(seed=2, weight_decay=0.0)
    assert one.run_id != other.run_id and one.pack_key == other.pack_key
    assert one.pack_key != small_run(epochs=3).pack_key
    muon, other = (small_run(optimizer="muon", momentum=x) for x in (None, 0.5))
    assert muon.run_id != other.run_id and muon.pack_key == other.pack_key != one.pack_key


def test_every_mixer_can_be_measured():
    runs = [
        bench_run({"name": name, **SMALL_MIXERS.get(name, {})}, 16, 16, 1, 4, precision="fp32")
        for name in MIXERS
    ]
    measured = list(bench(runs, [1, 2], CPU, LIMITS, seconds=0))
    assert len(measured) == 2 * len(MIXERS)
    for m in measured:
        assert m.ms_per_run_step > 0 and math.isfinite(m.tokens_per_second)
        assert m.flops_share > 0 and m.bytes_share > 0


def test_processes_measure_one_after_another_what_they_prepared_side_by_side():
    run = bench_run("attention", 16, 16, 1, 4, precision="fp32")
    jobs = [benchmark.Job(run, size, LIMITS, CPU, 0) for size in (1, 0, 2)]  # no pack of none
    measured = list(benchmark._measure_group(jobs, failed := []))
    assert [m.pack_size for m in measured] == [1, 2] and failed == [jobs[1]]


def test_a_record_keeps_what_was_not_measured_again():
    run = bench_run("attention", 16, 16, 1, 4, precision="fp32")
    (one,), (two,) = (list(bench([run], [size], CPU, LIMITS, 0)) for size in (1, 2))
    faster = dataclasses.replace(one, ms_per_run_step=one.ms_per_run_step / 2)
    first = record([one, two], CPU, LIMITS)
    rows = record([faster], CPU, LIMITS, first)["measurements"]
    assert rows == [dataclasses.asdict(two), dataclasses.asdict(faster)]
    assert record([one], CPU, LIMITS, {**first, "device": "another"})["measurements"] == [
        dataclasses.asdict(one)
    ]


@pytest.mark.parametrize(
    ("mixer", "says"),
    [
        ("{name:", "--mixers: not YAML"),
        ("hyen", "model.mixer: there is no mixer 'hyen', did you mean 'hyena'?"),
        ("{name: attention, con: k}", "model.mixer.con: unknown key of attention"),
        ("{name: mamba2, headdim: 37}", "model: expand * d_model = 128 is not a multiple"),
    ],
)
def test_bench_says_in_one_line_what_is_wrong_with_a_mixer(mixer, says, capsys):
    assert main(["bench", "--mixers", mixer, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bench: {says}") and error.count("\n") == 1


def test_bench_writes_as_it_goes_and_overwrites_nothing_else(tmp_path, capsys):
    path = tmp_path / "times.json"
    words = ["bench", "--mixers", "attention", "--widths", "16", "--lengths", "16"]
    words += ["--batch-size", "4", "--device", "cpu", "--precision", "fp32", "--json", str(path)]
    assert main([*words, "--packs", "1", "2"]) == 0
    assert len(read_record(path)["measurements"]) == 2
    path.write_text('{"measurements": [{"mixer": "attention"}]}')
    capsys.readouterr()
    assert main(words) == 2
    assert "times.json: not measurements" in capsys.readouterr().err
    assert "attention" in path.read_text()
