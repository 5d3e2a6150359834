"""Every kind of figure, of committed folders and by the command."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from zoorecall import plots, words
from zoorecall.analysis.accuracy import accuracies, best_accuracies
from zoorecall.analysis.sparse_grids import reported
from zoorecall.arguments import FIGURES
from zoorecall.cli import main
from zoorecall.errors import UserError
from zoorecall.mixers import MIXERS
from zoorecall.plots.style import places
from zoorecall.results import Results, load_results

RESULTS = Path(__file__).parents[2] / "results"
FOLDERS = ("conv_on_values", "dynamics", "key_value_sum", "lr_fine", "positions", "precision")
FOLDERS += ("recipe_details", "zoology_2023")
"""Each with what others lack: mixers of one's own, long curves, slices, windows, axes, patterns."""


@cache
def study(name: str) -> Results:
    return load_results(RESULTS / name)


def held_out(runs) -> int:
    return int(best_accuracies(runs)["each"].map(len).sum())


MARKS = {
    "rates": len,
    "errors": len,
    "width": lambda runs: held_out(runs) + sum(map(len, reported(runs).get("each", ()))),
    "depth": held_out,
    "parameters": held_out,
    "state_size": lambda runs: held_out(runs[runs["state_size"].notna()]),
    "dynamics": lambda runs: 3 * sum(len(one.at_best) for one in accuracies(runs)),
    "ablations": lambda runs: len(accuracies(runs)),
}
"""How many seeds each kind of figure shows: in marks, the courses of two losses and an accuracy, or
cells."""


def shown(kind: str, figure: Figure) -> int:
    if kind == "ablations":
        return sum("[" in text.get_text() for axis in figure.axes for text in axis.texts)
    lines = [line for axis in figure.axes for line in axis.lines]
    if kind == "dynamics":
        return sum(len(line.get_xdata()) > 2 for line in lines)
    return sum(len(line.get_xdata()) for line in lines if line.get_linestyle() == "None")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_kind_of_figure_shows_every_seed_of_a_committed_folder(name):
    """Of two mixers at up to two settings, which is enough to have all panels of a kind."""
    labels = sorted(set(study(name).runs["mixer"]))[:2]
    found = plots.selected(study(name), labels)
    few = pd.concat([one.runs for one in places(found.runs, without=["mixer"])[1][:2]])
    found = Results(few, found.curves[found.curves["run_id"].isin(few["run_id"])])
    titles = words.mixer_names(found.runs).values()
    assert MARKS.keys() == plots.KINDS.keys()
    for kind, expected in MARKS.items():
        figure = plots.figure(kind, found)
        assert shown(kind, figure) == expected(found.runs), kind
        if kind == "rates":
            figure.draw_without_rendering()  # warns where there is no room
        texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
        said = " ".join(text.get_text().replace("\n", " ") for text in texts)
        ticks = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
        assert all(title in said or title in ticks for title in titles), (kind, said)
        assert min(text.get_fontsize() for text in texts) >= 7, kind
        assert figure.get_figwidth() == plots.WIDTH and "seed" in said, kind


def test_eleven_mixers_have_a_panel_each_and_the_number_of_pairs_is_said():
    runs = study("roster_small").runs
    figure = plots.figure("rates", study("roster_small"))
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes if axis.get_title()]
    assert titles == list(words.mixer_names(runs).values())
    assert shown("rates", figure) == len(runs)
    assert "4 pairs" in figure.get_supxlabel()


def test_zoologys_rates_do_not_stretch_the_axis():
    """Of the four, 1e-4 lies below what these runs were trained at."""
    figure = plots.figure("rates", study("roster_small"))
    low, high = figure.axes[0].get_xlim()
    rates = study("roster_small").runs["train.learning_rate"]
    assert 1e-4 < low <= rates.min() and rates.max() <= high < 2 * rates.max()
    dashed = [line for line in figure.axes[0].lines if list(line.get_ydata()) == [0, 1]]
    assert len(dashed) == 3


def test_every_mixer_has_a_name_of_its_own_that_the_field_knows():
    assert words.MIXERS.keys() == MIXERS.keys()
    assert len(set(words.MIXERS.values())) == len(MIXERS)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gated_delta_net", {}, "Gated DeltaNet"),
        ("gla", {"conv": True}, "GLA (conv)"),
        ("mamba", {"norm": False, "d_state": 8}, "Mamba (no norm, d_state 8)"),
        ("lab.mix:Mine", {"x": [1, 2]}, "Mine (x 1 2)"),
        ("pattern", {"mixers": [{"name": "base_conv"}, {"name": "gla", "conv": True}]},
         "BaseConv + GLA (conv)"),
        ("pattern", {"mixers": [{"name": "h3"}, {"name": "gla"}, {"name": "gla"}]}, "H3 + 2x GLA"),
    ],
)  # fmt: skip
def test_a_mixer_is_called_as_people_write_it(name, options, said):
    assert words.mixer(name, options) == said


def test_mixers_of_one_name_keep_their_labels():
    runs = study("zoology").runs.copy()
    runs["mixer.name"] = runs["mixer"].map({x: f"lab_{x}:Mine" for x in set(runs["mixer"])})
    runs["mixer.options"] = "{}"
    assert words.mixer_names(runs) == {x: x for x in sorted(set(runs["mixer"]))}


def test_the_commands_kinds_are_those_there_are():
    assert list(FIGURES) == list(plots.KINDS)


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_labels_are_text_and_stand_for_the_mixers_in_their_order():
    found = plots.selected(study("zoology"), ["mamba", "attention"], ["A $x^$ b", "[b]_c"])
    figure = plots.figure("rates", found)
    assert texts_of(figure)[:2] == ["[b]_c", r"A \$x^\$ b"]
    figure.canvas.draw()


def test_a_name_takes_in_its_variants_and_a_label_does_not():
    found = study("lr_fine")
    assert set(plots.selected(found, ["attention (conv=qkv)"]).runs["mixer"]) == {
        "attention (conv=qkv)"
    }
    runs = plots.selected(study("roster_small"), ["gla"]).runs
    assert set(runs["mixer"]) == {"gla (conv=True)"}


def test_what_cannot_be_selected_is_said():
    found = study("lr_fine")
    with pytest.raises(UserError, match="no runs of 'gla'; there are attention, "):
        plots.selected(found, ["gla"])
    for titles in (["one"], ["same", "same"]):
        with pytest.raises(UserError, match="for 2 mixers; give mamba and delta_net one each"):
            plots.selected(found, ["mamba", "delta_net"], titles)


def test_the_command_draws_several_folders_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    both = [str(RESULTS / name) for name in ("conv1d", "conv_on_values")]
    command = ["plot", *both, "--kind", "width", "--width", "3.3", "--format", "svg"]
    assert main(command) == 0
    assert capsys.readouterr().out == "width.svg\n"
    drawn = Path("width.svg").read_text()
    assert "conv_on_values" in drawn and "Attention" in drawn
    assert main(["table", *both, "--format", "csv"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("mixer,folder,") and len(table) == 1 + 3 + 3
    assert main(["report", *both]) == 0
    page = Path("report.html").read_text()
    assert "conv1d and conv_on_values: recall of" in page
    runs = len(study("conv1d")) + len(study("conv_on_values"))
    assert page.count("<tr data-run=") == runs


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--mixers", "gla"], "no runs of 'gla'; there are "),
        (["--labels", "A"], "1 label for 3 mixers; give "),
        (["--out", "figure.xyz"], "figure.xyz: a figure's name ends with .png, .pdf or .svg"),
        (["--out", "a.png", "--format", "pdf"], "a.png: does not end with .pdf, as --format says"),
        ([str(RESULTS / "zoology")], "a results folder is given twice"),
    ],
)
def test_what_cannot_be_drawn_costs_one_line(options, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(RESULTS / "zoology"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_means_are_those_of_the_marks():
    figure = plots.figure("rates", study("conv1d"))
    for axis in figure.axes:
        lines = [line for line in axis.lines if len(line.get_xdata()) > 2]
        for mean, marks in zip(lines[::2], lines[1::2], strict=True):
            x, y = marks.get_data()
            expected = [np.mean(np.asarray(y)[np.asarray(x) == at]) for at in mean.get_xdata()]
            np.testing.assert_allclose(mean.get_ydata(), expected)


def test_a_table_for_a_paper_has_sizes_and_intervals_and_no_bare_characters_of_latex(capsys):
    assert main(["table", str(RESULTS / "roster_small"), "--format", "latex"]) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("%")]
    assert any("95 % t interval" in note for note in notes)
    assert lines[len(notes)].startswith(r"\begin{tabular}{l") and lines[-1] == r"\end{tabular}"
    head, *rows = [line for line in lines if " & " in line]
    names = [cell.strip(" \\") for cell in head.split(" & ")]
    assert names[:4] == ["mixer", "layers", "parameters", "state size"]
    assert len(rows) == 22 and all(len(row.split(" & ")) == len(names) for row in rows)
    assert any(row.startswith(r"Mamba-2 (d\_state 16, headdim 32) & 1 & ") for row in rows)
    accuracy = [row.split(" & ")[names.index("accuracy")] for row in rows]
    assert all(re.fullmatch(r"[01]\.\d\d \[[01]\.\d\d, [01]\.\d\d\]", cell) for cell in accuracy)
