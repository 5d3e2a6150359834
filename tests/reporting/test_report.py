"""The report: what it says of made-up tables with known answers, and that its page is safe."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import labelled_curves, made_up_runs
from matplotlib.colors import to_rgb

from zoorecall.analysis.bumps import classify, transitions
from zoorecall.analysis.summary import Summary
from zoorecall.cli import main
from zoorecall.plots.style import COLORS, MARKERS
from zoorecall.reporting import charts, report, words
from zoorecall.results import Results, write_plan
from zoorecall.words import MIXERS

COMMITTED = Path(__file__).parents[2] / "results" / "mamba_norm_small"


def solved_between(low, high, inside=1.0, outside=0.9):
    """An accuracy as `made_up_runs` wants it, the same for all settings and seeds."""
    return lambda m, n, d, length, x, seed: inside if low - 1e-6 < x < high + 1e-6 else outside


def said(runs: pd.DataFrame, **known) -> tuple[str, str, list[str]]:
    """The overview, and of the first place the headline and the sentences."""
    found = Summary(runs, pd.DataFrame())
    place = words.places(found.settings)[0]
    return " ".join(words.overview(found, **known)), place.headline, place.sentences


def results(count: int, mixer: str = "attention", **columns) -> Results:
    """So many runs of one mixer, with curves of all kinds."""
    runs = made_up_runs(
        solved_between(-4, -2), mixers=(mixer,), seeds=range(-(-count // 17)), layers=(2,)
    ).head(count)
    made, curves, _ = labelled_curves(count, seed=5)
    runs = runs.merge(made[["run_id", "num_steps"]])
    return Results(runs.assign(**{"train.warmup": 0.1, "task.name": "mqar", **columns}), curves)


def test_a_setting_of_several_seeds_is_told_with_its_intervals():
    def accuracy(mixer, layers, width, length, x, seed):
        return solved_between(-4, -2)(mixer, layers, width, length, x, seed) - 0.03 * (seed == 42)

    overview, headline, (sentence,) = said(made_up_runs(accuracy))
    assert headline == "Attention (solved) is undecided."
    assert sentence == (
        "Attention: 99.0 % [94.7, 100.0]; 3 of 3 seeds solve [44, 100] %; best learning rate 1e-3 "
        "(3 solved); 95 % or more from 1e-4 to 1e-2, a window of 2.00 to 2.50 decades [2.00, 2.50]."
    )
    assert "51 runs of 1 mixer: 1 setting, 17 learning rates from 1e-5 to 1e-1" in overview
    assert "3 seeds (42, 123, 777)" in overview and "95 % t interval" in overview
    assert (
        "What the runs came to: 27 solved (ends with 95 % or more) and 24 fit unknown" in overview
    )
    assert "No loss became infinite or NaN." in overview and "planned" not in overview


def test_one_seed_has_no_interval_and_is_said_to_be_one():
    runs = made_up_runs(solved_between(-4, -2), seeds=(42,))
    overview, headline, (sentence,) = said(runs)
    assert "Every setting has one seed" in overview and "no number here has an interval" in overview
    assert headline == "Attention reaches 95 % in one seed."
    assert sentence == (
        "Attention: 100.0 % at learning rate 1e-3 (one seed, solved); 95 % or more from 1e-4 to "
        "1e-2, a window of 2.00 to 2.50 decades."
    )


def test_some_settings_with_one_seed_are_counted():
    runs = made_up_runs(solved_between(-4, -2), layers=(1, 2))
    runs = runs[(runs["model.num_layers"] == 2) | (runs["seed"] == 42)]
    assert "1 setting of 2 with one seed: no interval there." in said(runs)[0]


def test_a_window_at_the_grids_edge_is_a_lower_bound():
    overview, _, (sentence,) = said(made_up_runs(solved_between(-3, 9, outside=0.75)))
    assert sentence.endswith(
        "; 95 % or more from 1e-3 to the grid's highest rate 1e-1, a window of at least 2.00 "
        "decades [2.00, inf]."
    )
    assert "(1 layer, width 64, length 64): a window of at least 2.00 decades" in overview
    assert "1 of 1 window at the grid's edge: what lies beyond is not known." in overview
    sentence = said(made_up_runs(solved_between(-9, -3)))[2][0]
    assert "from the grid's lowest rate 1e-5 to 1e-3" in sentence


def test_the_best_rate_at_the_grids_edge_leaves_a_failure_open():
    def rising(mixer, layers, width, length, x, seed):
        return 0.9 + x / 10  # 0.8 at the highest rate

    overview, headline, (sentence,) = said(made_up_runs(rising))
    assert headline == "Attention (fit unknown) is undecided."
    assert "no rate's mean reaches 95 %. It is the grid's highest: a better one may" in sentence
    assert "No setting reaches 95 % at any learning rate." in overview
    headline, (sentence,) = said(made_up_runs(rising, rates=(1e-2,), seeds=(1,)))[1:]
    assert headline == "Attention (fit unknown) stays below 95 % in one seed."
    assert "Attention: 70.0 % at learning rate 1e-2 (one seed, fit unknown); no rate" in sentence
    assert sentence.endswith("It is the only rate that was run.")


def test_failures_and_mixers_that_were_not_run_are_told_by_depth():
    def accuracy(mixer, layers, width, length, x, seed):
        return solved_between(-4, -2, 1.0 if mixer != "hyena" else 0.5, 0.2)(0, 0, 0, 0, x, 0)

    runs = made_up_runs(accuracy, mixers=("attention", "hyena", "mamba"), layers=(1, 2))
    runs = runs[(runs["mixer"] != "mamba") | (runs["model.num_layers"] == 2)]
    runs = runs.assign(train_accuracy=1.0)
    one, two = words.places(Summary(runs, pd.DataFrame()).settings)
    assert one.title == "1 layer, width 64, length 64"
    assert one.headline == "Attention solves the task; Hyena (fits only) does not solve it."
    assert one.sentences[-1] == "Not run here: Mamba."
    assert (
        two.headline == "Attention and Mamba solve the task; Hyena (fits only) does not solve it."
    )
    assert len(two.sentences) == 3


def test_the_widest_and_the_narrowest_window_are_named():
    def accuracy(mixer, layers, width, length, x, seed):
        return solved_between(-4 if mixer == "mamba" else -3, -2)(0, 0, 0, 0, x, 0)

    overview = said(made_up_runs(accuracy, mixers=("hyena", "mamba")))[0]
    assert (
        "The widest window of learning rates has Mamba (1 layer, width 64, length 64): " in overview
    )
    assert "the narrowest of the 2 that reach 95 % has Hyena" in overview


def test_diverged_missing_and_unfinished_runs_are_counted():
    runs = made_up_runs(solved_between(-4, -2), mixers=("hyena", "mamba"))
    mamba = runs["mixer"] == "mamba"
    runs.loc[mamba & (runs["train.learning_rate"] > 0.05), "diverged_at"] = 7.0
    lowest = runs["train.learning_rate"] == runs["train.learning_rate"].min()
    runs = runs[~lowest | (~mamba & (runs["seed"] == 42))]
    overview, _, (hyena, of_mamba) = said(runs, unfinished=5)
    assert "6 of 97 runs diverged: Mamba (6)." in overview
    assert "5 planned runs are not finished and are missing here." in overview
    assert hyena.endswith(" 2 of 51 runs are missing.")
    assert of_mamba.endswith(
        " Only 16 of the 17 learning rates were run. 6 runs diverged, from 5.6e-2 to 1e-1."
    )
    assert "Every planned run is here." in said(runs, unfinished=0)[0]


def test_kinds_of_training_and_transitions_are_told_as_the_analysis_finds_them():
    runs, curves, _ = labelled_curves(36, seed=2)
    kinds = classify(runs, curves)["kind"]
    assert set(kinds) == set(words.KINDS)
    told = said(made_up_runs(solved_between(-4, -2)), kinds=kinds)[0]
    for kind, number in kinds.value_counts().items():
        assert f"{kind} ({number})" in told
    fall = transitions(runs, curves).to_dict("records")[0]
    told = words.transition(fall | {"start": 1200, "end": 1500, "depth": 2.0, "accuracy_after": 1})
    assert "Between steps 1,200 and 1,500 the test loss falls suddenly, 2.00 nats" in told
    assert told.endswith("to 100.0 %.")


@pytest.mark.parametrize(
    ("value", "text"), [(1e-5, "1e-5"), (5.6234e-3, "5.6e-3"), (3.97e-4, "4e-4"), (2.0, "2e0")]
)
def test_a_learning_rate_is_said_to_two_digits(value, text):
    assert words.rate(value) == text


class Parsed(HTMLParser):
    """What a browser would make of a page: its tags, its text, its scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.scripts, self.cells, self.texts = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self.lasttag == "script" else self.texts).append(data)

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


def page_of(found: Results, tmp_path: Path) -> str:
    return report(found, tmp_path / "page.html").read_text()


def test_text_of_a_config_is_harmless_wherever_it_stands(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} & \"'"
    found = results(34, evil, **{"task.name": evil, "device": evil, "model.extra": evil})
    found.runs.loc[:3, "model.extra"] = evil + "!"
    page = Parsed(page_of(found, tmp_path))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2 and "img" not in tags
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert page.data["looks"][0]["mixer"] == evil
    assert evil in "".join(page.texts) and "49" not in page.data["looks"][0]["mixer"]


def test_the_page_is_complete_in_itself(tmp_path):
    page = page_of(results(34), tmp_path)
    assert not re.search(r"https?:|//\w+\.|@import|url\(|<link|\ssrc=", page)
    policy = next(a["content"] for tag, a in Parsed(page).tags if "http-equiv" in a)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_summary_and_table_are_there_without_the_script(tmp_path):
    page = Parsed(page_of(results(34), tmp_path))
    text = " ".join("".join(page.texts).split())
    assert "Attention: 100.0 % [100.0, 100.0]; 2 of 2 seeds solve [34, 100] %; best" in text
    assert sum(tag == "tr" and "data-run" in a for tag, a in page.tags) == 34


def test_what_is_not_finite_is_valid_json_and_every_run_has_its_curves(tmp_path):
    found = results(34)
    found.runs.loc[0, "test_loss"] = np.inf
    data = Parsed(page_of(found, tmp_path)).data
    assert set(data["runs"]) == set(found.runs["run_id"])
    for run_id, curve in found.curves.groupby("run_id"):
        run = data["runs"][run_id]
        assert run["step"] == curve["step"].tolist()
        known = curve["test_loss"].notna().to_numpy()
        assert [value is not None for value in run["test"]] == known.tolist()
        losses = [value for value in run["test"] if value is not None]
        np.testing.assert_allclose(losses, curve["test_loss"][known], rtol=1e-3)
    falls = transitions(found.runs, found.curves)
    assert sum(len(run["falls"]) for run in data["runs"].values()) == len(falls) > 0


def test_the_figures_numbers_are_the_mean_and_every_seed(tmp_path):
    found = results(51)
    found.runs["test_accuracy"] = 0.8 + 0.1 * found.runs["seed"]
    (panel,) = Parsed(page_of(found, tmp_path)).data["panels"]
    (line,) = panel["lines"]
    assert panel["title"] == "2 layers, width 64, length 64"
    assert line["x"] == pytest.approx(np.logspace(-5, -1, 17), rel=1e-5)
    for name, value in {"mean": 0.9, "each": [0.8, 0.9, 1.0], "solved": 1}.items():
        assert line[name] == [value] * 17


def test_612_runs_of_61_evaluations_stay_small(tmp_path):
    settings = {f"model.mixer.setting{i}": np.arange(612) for i in range(12)}
    path = report(results(612, **settings), tmp_path / "page.html")
    assert path.stat().st_size < 3_000_000


def test_looks_are_those_of_the_figures_and_can_be_seen_on_a_dark_page():
    looks = charts.looks(Summary(made_up_runs(lambda *_: 0.5, mixers=tuple(COLORS)), None))
    assert {look["mixer"]: look["light"] for look in looks} == {
        MIXERS[name]: color for name, color in COLORS.items()
    }
    for look in looks:
        assert charts.luminance(np.array(to_rgb(look["dark"]))) >= charts.DARK_LUMINANCE
    outlines = {charts.outline(marker) for marker in MARKERS}
    assert len(outlines) == len(set(MARKERS)) and all(o.startswith("M") for o in outlines)


def test_the_command_writes_the_page_and_says_where(tmp_path, capsys):
    folder = tmp_path / "study"
    shutil.copytree(COMMITTED, folder)
    write_plan(folder, ["never-trained"])
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    page = (folder / "report.html").read_text()
    assert "study: recall of" in page and "Mamba (norm)" in page
    assert "1 planned run is not finished" in page
    assert main(["report", str(folder), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text() == page


def test_a_folder_or_a_page_that_cannot_be_costs_one_line_and_exit_code_2(tmp_path, capsys):
    missing, empty, file = tmp_path / "missing", tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("")
    cases = [
        ([str(missing)], missing),
        ([str(empty)], empty),
        ([str(COMMITTED), "--out", str(file / "page.html")], file / "page.html"),
        ([str(COMMITTED), "--out", str(empty)], empty),
    ]
    for arguments, culprit in cases:
        assert main(["report", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith(f"{culprit}: ")
    assert sorted(tmp_path.iterdir()) == [empty, file] and not list(empty.iterdir())
