"""Models, packs of models, a user's own mixer, and what the plan says of them."""

import dataclasses
import json
import math

import pytest
import torch
from conftest import SMALL_MIXERS, small_run
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoorecall import bench as benchmark
from zoorecall.bench import bench, bench_run, earlier_record, read_record, record
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.errors import UserError
from zoorecall.mixers import MIXERS
from zoorecall.model import cost
from zoorecall.model.cost import count_parameters, forward_flops, state_size
from zoorecall.model.model import build_model
from zoorecall.model.pack import Pack
from zoorecall.tasks import make_task

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


def test_the_counts_are_the_same_on_layers_without_numbers_and_on_a_pack(mixer):
    run = small_run(mixer)
    pack = Pack([run, run], torch.device("cpu"), 3)
    for count in (cost.count_parameters, cost.state_size, cost.forward_flops):
        of_one, of_pack = (cost._counted(run, model) for model in (None, pack.model))
        assert count.__wrapped__(run, of_pack) == count.__wrapped__(run, of_one)


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


def test_a_run_id_is_of_the_resolved_config_and_a_pack_key_ignores_per_run_numbers():
    plain = RunConfig.model_validate({"model": {"positions": "auto"}})
    assert plain.run_id == RunConfig.model_validate({"model": {"positions": "learned"}}).run_id
    one, other = small_run(seed=1, learning_rate=1e-3), small_run(seed=2, weight_decay=0.0)
    assert one.run_id != other.run_id and one.pack_key == other.pack_key
    assert one.pack_key == small_run(epochs=3).pack_key != small_run(batch_size=4).pack_key
    muon, other = (small_run(optimizer="muon", momentum=x) for x in (None, 0.5))
    assert muon.run_id != other.run_id and muon.pack_key == other.pack_key != one.pack_key


@pytest.fixture(autouse=True)
def few_test_examples(monkeypatch):
    monkeypatch.setattr(benchmark, "TEST_EXAMPLES", 8)


def test_every_mixer_can_be_measured():
    runs = [
        bench_run({"name": name, **SMALL_MIXERS.get(name, {})}, 16, 16, 1, 4, precision="fp32")
        for name in MIXERS
    ]
    measured = list(bench(runs, [1, 2], CPU, LIMITS, seconds=0))
    assert len(measured) == 2 * len(MIXERS)
    for m in measured:
        assert m.ms_per_run_step > 0 and math.isfinite(m.tokens_per_second)
        assert m.flops_share > 0 and m.bytes_share > 0 and m.evaluation_share > 0


def test_processes_measure_one_after_another_what_they_prepared_side_by_side():
    run = bench_run("attention", 16, 16, 1, 4, precision="fp32")
    jobs = [benchmark.Job(run, size, LIMITS, CPU, 0) for size in (1, 0, 2)]  # no pack of none
    measured = list(benchmark._measure_group(jobs, failed := []))
    assert [m.pack_size for m in measured] == [1, 2] and failed == [jobs[1]]


def test_a_record_is_of_one_device_and_precision(tmp_path):
    run = bench_run("attention", 16, 16, 1, 4, precision="fp32")
    path, first = tmp_path / "bench.json", record([*bench([run], [1], CPU, LIMITS, 0)], CPU, LIMITS)
    assert earlier_record(path, CPU, "fp32") is None
    path.write_text(json.dumps(first))
    assert earlier_record(path, CPU, "fp32") == first
    with pytest.raises(UserError, match=r"bench\.json: is of .*, fp32, not of .*, bf16; choose"):
        earlier_record(path, CPU, "bf16")
    path.write_text(json.dumps({**first, "device": "another"}))
    with pytest.raises(UserError, match="is of another, not of"):
        earlier_record(path, CPU, "fp32")


def test_a_record_keeps_what_was_not_measured_again():
    run = bench_run("attention", 16, 16, 1, 4, precision="fp32")
    (one,), (two,) = (list(bench([run], [size], CPU, LIMITS, 0)) for size in (1, 2))
    faster = dataclasses.replace(one, ms_per_run_step=one.ms_per_run_step / 2)
    first = record([one, two], CPU, LIMITS)
    rows = record([faster], CPU, LIMITS, first)["measurements"]
    assert rows == [dataclasses.asdict(two), dataclasses.asdict(faster)]


@pytest.mark.parametrize(
    ("mixer", "says"),
    [
        ("{name:", "--mixers {name:: this is not YAML"),
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
