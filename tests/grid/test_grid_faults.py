"""What is said of a grid file that is wrong, and the JSON Schema that says so in an editor."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed_grids import GOOD, MALFORMED, Malformed, load

from zoorecall.errors import GridError
from zoorecall.grid import grid_schema, load_grid
from zoorecall.grid.yaml_nodes import Fault, parse_yaml

GRIDS = Path(__file__).parents[2] / "grids"
SHIPPED = sorted(GRIDS.glob("*.yaml"))


def fault(grid: str | dict[str, Any], *overrides: str) -> str:
    """What is wrong with a grid, without the path in front: `line: key: sentence`."""
    with pytest.raises(GridError) as caught:
        load(grid, *overrides)
    return str(caught.value).partition("grid.yaml:")[2]


@pytest.mark.parametrize("given", ["grids/quik.yaml", "quick", "elsewhere/quick.yaml"])
def test_a_grid_of_nearly_the_name_is_offered(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids/quick.yaml").write_text(GOOD)
    with pytest.raises(GridError) as caught:
        load_grid(given)
    assert str(caught.value) == f"{given}:1: file: is not there, did you mean 'grids/quick.yaml'?"


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_a_malformed_grid_is_told_in_one_line_at_its_line(
    case: Malformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids/wrong.yaml").write_bytes(case.contents)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GridError) as caught:
        load_grid("grids/wrong.yaml")
    text = str(caught.value)
    assert text.startswith(f"grids/wrong.yaml:{case.line}: ")
    assert [words for words in case.says if words not in text] == []
    check_plain(text)


def check_plain(text: str) -> None:
    """One line, and nothing of pydantic, Python or the tags of its unions."""
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) < 500
    for noise in ("[type=", "http", "pydantic", "Traceback", "Input should", "<class", "function-"):
        assert noise not in text
    assert ".custom" not in text and ".mqar" not in text


def test_at_least_forty_ways_to_be_malformed_are_told_apart() -> None:
    assert len({case.name for case in MALFORMED}) == len(MALFORMED) >= 40


def test_a_file_that_is_not_there_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        GridError, match=r"none\.yaml:1: file: is not there, grids come with zoorecall"
    ):
        load_grid(tmp_path / "none.yaml")
    with pytest.raises(GridError, match=r":1: file: .*Is a directory"):
        load_grid(tmp_path)


def test_of_two_faults_the_first_in_the_file_is_told() -> None:
    wrong = GOOD.replace("d_model: 32", "d_model: none").replace("axes:", "axis:")
    assert fault(wrong).startswith("8: model.d_model: ")
    wrong = GOOD.replace("num_layers: [1, 2]\n", "num_layers: [1, 0]\n").replace(
        "seed: [3", "sed: [3"
    )
    assert fault(wrong).startswith("21: model.num_layers: ")
    wrong = GOOD.replace("batch_size: 64", "batch_size: x").replace(
        "[1, 2]\n  train", "[0]\n  train"
    )
    assert fault(wrong).startswith("10: train.batch_size: ")
    # the last value of a slow axis is wrong, and all of a fast one
    wrong = GOOD.replace("seed: [1, 2]", "seed: [1, x]").replace("1e-2, 3]", "1e-2, x]")
    assert fault(wrong).startswith("14: seed: ")


def test_a_fault_of_the_preset_and_the_file_is_told_at_the_file() -> None:
    text = fault("preset: paper\nbase:\n  train:\n    train_examples: 8\n")
    assert text.startswith("4: train.train_examples: batch_size 512 is 504 more than")


def test_a_fault_of_base_and_axis_is_told_at_the_axis() -> None:
    text = fault("base:\n  model: {d_model: 9}\naxes:\n  model.mixer.num_heads: [1, 2]\n")
    assert text.startswith("4: model.mixer.num_heads: d_model 9 is not a multiple of")
    # the 1 in the sentence is not the second item of betas
    text = fault("base: {train: {train_examples: 511}}\naxes:\n  train.betas: [[0.8, 0.9]]\n")
    assert text.startswith("1: train.train_examples: batch_size 512 is 1 more than")


def test_a_fault_of_axis_and_override_is_told_at_the_override() -> None:
    text = fault("axes: {train.batch_size: [128, 256]}", "train.train_examples=100")
    assert text.startswith("1: --set train.train_examples=100: batch_size 128 is 28 more than")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed=1", "seed=2"], "--set seed=2: gives seed, which is given by --set seed=1 too"),
        (
            ["model.mixer.num_heads=2", "model.mixer={name: attention, num_heads: 1}"],
            "--set model.mixer.num_heads=2: gives model.mixer.num_heads, which is given by --set",
        ),
        (
            ["seed=[1, 2]", "seed=3"],
            "--set seed=3: gives seed, which is given by --set seed=[1, 2]",
        ),
        (["model={mixer: mamba, mixer.name: s6}"], "gives model.mixer.name, which is given by"),
        (
            ["model.mixer=[{name: attention, num_heads: 4}]"],
            "--set model.mixer=[{name: attention, num_heads: 4}]: "
            "gives model.mixer.num_heads, which is given on line 3 too",
        ),
    ],
)
def test_a_setting_that_is_given_twice_by_overrides_is_told(
    overrides: list[str], says: str
) -> None:
    grid = "axes:\n  model.mixer: [attention]\n  model.mixer.num_heads: [1, 2]\n  seed: [1]\n"
    text = fault(grid, *overrides)
    assert text.startswith("1: --set ") and says in text and text.endswith("should be given once")


def test_a_setting_given_twice_is_told_at_the_later_line_wherever_its_narrow_path_stands() -> None:
    mixers = "  model.mixer:\n    - mamba\n    - {name: mamba, d_state: 4}\n"
    narrow = "  model.mixer.d_state: [8]\n"
    for axes, later, earlier in ((mixers + narrow, 5, 4), (narrow + mixers, 5, 2)):
        text = f"{later}: model.mixer.d_state: is given on line {earlier} too, should be given once"
        assert fault("axes:\n" + axes) == text


@pytest.mark.parametrize(
    "options",
    [
        "model.mixer.options: {a: 1}\n  model.mixer.options.a: 2",
        "model.mixer: {name: my:Own, options: {a: 1}}\n  model.mixer.options: {b: 2}",
        "model.mixer.options: {a: 1}\n  model.mixer.options.a.b: 2",
        "model.mixer.options.a: {b: {c: 1}}\n  model.mixer.options.a.b.c: 2",
    ],
)
def test_an_option_of_a_users_own_mixer_given_twice_is_told(options: str) -> None:
    text = fault(f"base:\n  {options}\n")
    assert text.startswith("3: model.mixer.options") and "is given on line 2 too" in text


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("attention"),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_value_at_any_place_loads_or_is_told_in_one_line(data: st.DataObject) -> None:
    grid = parse_yaml(GOOD).value
    place: Any = grid
    while True:
        key = data.draw(
            st.sampled_from(list(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        place[data.draw(st.text())] = place.pop(key)
    else:
        place[key] = data.draw(ANY)
    try:
        load(json.dumps(grid, indent=1))
    except GridError as error:
        check_plain(str(error))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epoch=5", "unknown key, did you mean 'epochs'?"),
        ("epochs=5", "did you mean 'train.epochs'?"),
        ("train.epochs", "has no value, should be like train.epochs=5"),
        ("train.epochs=many", "'many' is a string, should be a number"),
        ("train.epochs=[1, 2]", "is a list, should be a number"),
        ("train.epochs=", "is empty, should be a number"),
        ("train.epochs=[1", "this is not YAML"),
        ("train.batch_size=5000", "batch_size 5000 is 3976 more than train_examples 1024"),
        ("model.mixer=atention", "did you mean 'attention'?"),
        ("seed=[]", "is an empty list"),
        ("size=3", "unknown key"),
    ],
)
def test_a_wrong_override_is_named(override: str, says: str) -> None:
    text = fault(GOOD, override)
    assert text.startswith(f"1: --set {override}: ")
    assert says in text


def test_the_shipped_schema_is_made_from_the_configs() -> None:
    shipped = json.loads((GRIDS / "grid.schema.json").read_text())
    made = json.loads(json.dumps(grid_schema()))
    assert shipped == made, "renew it: zoorecall schema > grids/grid.schema.json"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = grid_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_grids_satisfy_the_schema(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate(parse_yaml(path.read_text()).value)


UNSEEN = {
    "a setting in two axes",
    "a setting twice in base",
    "a narrow path before a broad one",
    "a mixer of two names",
    "an axis inside the mixers of another",
    "a setting twice in what moves together",
    "a setting twice in an exclude entry",
    "a setting twice in an include entry",
    "logspace of far too many",
    "too many runs",
    "a task without test examples",
    "steps without end",
    "a batch of more than all examples",
    "more pairs than fit",
    "fewer tokens than pairs need",
    "an option that only another optimizer has",
    "heads that do not divide",
    "a package that is not there",
    "an option that only another mixer has",
    "an exclude entry that matches nothing",
    "an exclude entry that drops all",
}
"""What a schema cannot see: settings that only together make no sense."""


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_a_malformed_grid_that_is_yaml_fails_the_schema(
    case: Malformed, validator: jsonschema.Draft202012Validator
) -> None:
    try:
        value = parse_yaml(case.contents.decode()).value
    except (Fault, UnicodeDecodeError):
        return  # no editor gets as far as the schema
    assert validator.is_valid(value) == (case.name in UNSEEN)


def test_the_good_grid_satisfies_the_schema(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(parse_yaml(GOOD).value)
