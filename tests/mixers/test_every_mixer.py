"""What holds of every mixer, whatever its options."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import gradients, small_run
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from zoorecall.mixers import MIXERS, make_mixer
from zoorecall.mixers.custom import CustomConfig
from zoorecall.model.pack import Pack

WIDTH, LONGEST = 12, 13

FILES = [path.stem for path in sorted(Path(__file__).parent.glob("test_*.py"))]
CASES = [
    case
    for file in FILES
    if file != Path(__file__).stem
    for case in getattr(import_module(file), "STATE_SIZES", ())
]
"""From the mixers' own files: a mixer, its options, and the size of its state after 5 and after 11
positions."""

each_mixer = pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES])


def solo(name, options):
    """A mixer of one run."""
    config = MIXERS[name].Config(**options)
    config.check(WIDTH)
    return make_mixer(config, WIDTH, LONGEST, num_layers=2, layer=1)


def pack(name, options):
    """A mixer of two runs whose parameters are all far from special values."""
    packed, mixers = solo(name, options), [solo(name, options) for _ in range(2)]
    for parameter_name, parameter in packed.named_parameters():
        parameter.data = torch.cat([m.get_parameter(parameter_name).data for m in mixers])
        parameter.data += 0.3 * torch.randn_like(parameter)
    return packed


def step_by_step(mixer, x, length=LONGEST):
    """A mixer's outputs of x [R, B, L, D], and its state at the end."""
    state, outputs = mixer.initial_state(*x.shape[:2], length), []
    for x_t in x.unbind(2):
        y, state = mixer.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2), state


def test_every_mixer_has_a_case_of_each_option():
    for name, mixer in MIXERS.items():
        given = {option for case, options, *_ in CASES if case == name for option in options}
        assert {"name", *given} == set(mixer.Config.model_fields)


@pytest.mark.parametrize("length", [11, LONGEST])
@each_mixer
def test_step_by_step_is_all_at_once(name, options, length):
    mixer = pack(name, options).double()
    x = torch.randn(2, 3, 11, WIDTH, dtype=torch.float64, requires_grad=True)
    (y, _), expected = step_by_step(mixer, x, length), mixer(x)
    assert_close(y, expected)
    tensors = {"x": x, **dict(mixer.named_parameters())}
    ours, theirs = (gradients(outputs, [*tensors.values()]) for outputs in (y, expected))
    assert_close(dict(zip(tensors, ours, strict=True)), dict(zip(tensors, theirs, strict=True)))


@each_mixer
def test_a_step_leaves_its_state_as_it_is_and_makes_one_alike(name, options):
    mixer = pack(name, options)
    x = torch.randn(2, 3, 5, WIDTH)
    _, state = step_by_step(mixer, x)
    kept = tree_map(torch.clone, state)
    _, after = mixer.step(x[:, :, 0], state)
    assert_close(state, kept, rtol=0, atol=0)
    assert type(after) is type(state)
    for field, one, other in zip(state._fields, state, after, strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device), field
        assert one.shape[:2] == (2, 3), field


@each_mixer
def test_sequences_that_began_apart_go_on_side_by_side(name, options):
    mixer = pack(name, options)
    x = torch.randn(2, 3, 6, WIDTH)
    _, ahead = step_by_step(mixer, x[:, :1])
    _, behind = step_by_step(mixer, x[:, 1:, :2])
    together = type(ahead)(*(torch.cat(both, dim=1) for both in zip(ahead, behind, strict=True)))
    y, _ = mixer.step(x[:, :, 5], together)
    assert_close(y[:, :1], mixer.step(x[:, :1, 5], ahead)[0])
    assert_close(y[:, 1:], mixer.step(x[:, 1:, 5], behind)[0])


@each_mixer
def test_a_step_stays_on_its_device(name, options):
    mixer = solo(name, options).to("meta")
    y, state = step_by_step(mixer, torch.randn(1, 3, 2, WIDTH, device="meta"))
    assert {t.device.type for t in (y, *tree_leaves(state))} == {"meta"}


@each_mixer
def test_a_step_of_bf16_is_near_all_at_once_and_keeps_its_state_in_float32(name, options):
    mixer = solo(name, options)
    x = torch.randn(1, 3, 11, WIDTH)
    (y, state), expected = step_by_step(mixer, x.bfloat16()), mixer(x)
    assert y.dtype == torch.bfloat16
    assert (y - expected).norm() < 0.03 * expected.norm()
    wide = {torch.float32, torch.complex64, torch.int64}
    assert {t.dtype for t in tree_leaves(state)} <= wide


@pytest.mark.parametrize(("name", "options", "after_5", "after_11"), CASES)
def test_state_size_counts_the_numbers_of_the_state(name, options, after_5, after_11):
    mixer = solo(name, options)
    assert (mixer.state_size(5), mixer.state_size(11)) == (after_5, after_11)
    _, state = step_by_step(mixer, torch.randn(1, 1, 5, WIDTH), length=5)
    numbers = [torch.view_as_real(t) if t.is_complex() else t for t in state]
    assert sum(t.numel() for t in numbers if t.is_floating_point()) == after_5
    assert {t.device.type for t in mixer.parameters()} == {"cpu"}


@pytest.mark.parametrize("positions", ["learned", "none"])
@pytest.mark.parametrize("channel_mixer", ["mlp", "none"])
def test_a_model_token_by_token_is_the_model_at_every_position(mixer, positions, channel_mixer):
    runs = [small_run(mixer, seed) for seed in (1, 2)]
    options = {"positions": positions, "channel_mixer": channel_mixer}
    runs = [run.model_copy(update={"model": run.model.model_copy(update=options)}) for run in runs]
    model = Pack(runs, torch.device("cpu")).model.double()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(runs[0].task.vocab_size, (2, 3, 12))
    state, logits = model.initial_state(2, 3, 12), []
    for tokens_t in tokens.unbind(2):
        logits_t, state = model.step(tokens_t, state)
        logits.append(logits_t)
    expected = model(tokens, torch.arange(12).expand(2, 3, -1))
    assert_close(torch.stack(logits, dim=2), expected)
    assert state.position.eq(12).all()
    assert_close(*(gradients(y, [*model.parameters()]) for y in (torch.stack(logits, 2), expected)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("attention", "the model has 12 learned positions, not 13"),
        ("hyena", "hyena was built for 12 positions, not 13"),
    ],
)
def test_a_state_beyond_the_models_positions_is_an_error(name, says):
    model = Pack([small_run(name)], torch.device("cpu")).model
    with pytest.raises(ValueError, match=says):
        model.initial_state(1, 3, 13)


def test_a_users_own_module_has_no_step():
    mixer = make_mixer(CustomConfig(name="torch.nn:Identity"), WIDTH, LONGEST, 2, 0)
    says = "Identity maps whole sequences and has no step of one position"
    for attempt in (lambda: mixer.initial_state(1, 3, 5), lambda: mixer.step(torch.ones(1), ())):
        with pytest.raises(NotImplementedError, match=says):
            attempt()
