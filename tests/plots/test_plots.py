"""Figures of made-up tables of the size of a real study: what they show, and that it fits."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_up import hat, labelled_curves, made_up_runs, options_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoorecall import plots
from zoorecall.analysis.ablations import ablations
from zoorecall.claims.arora2023 import beside_published
from zoorecall.plots.style import COLORS, mixer_looks

MIXERS = ("attention", "attention (conv=qkv)", "hyena", "mamba", "mamba2", "delta_net")


def accuracy(mixer, layers, width, length, x, seed):
    top = 0.25 if (mixer, layers) == ("attention", 1) else min(1, width / length)
    return hat(x, -3.2, -2.8, 0.6) * (top - 0.02 * (seed == 42))


def study(**axes):
    sizes = {"layers": (1, 2), "widths": (64, 128, 256), "lengths": (64, 128, 256)}
    sizes["rates"] = tuple(np.logspace(-5, -1, 5))
    return made_up_runs(accuracy, mixers=MIXERS, **{**sizes, **axes})


def variants(options):
    """Every mixer with other options, at one length."""
    runs = study(lengths=(64,))
    runs = runs[~runs["mixer"].str.contains(" (", regex=False)]
    labels = runs["mixer"].str.partition(" (")[0] + f" ({options})"
    return runs.assign(**{"mixer": labels, "mixer.options": labels.map(options_of)})


def dynamics():
    """Eighteen labelled curves as three seeds of six mixers."""
    made, curves, _ = labelled_curves(18, seed=3)
    runs = study(layers=(1,), widths=(64,), lengths=(64,), rates=(1e-3,))
    place = np.arange(18)
    runs["run_id"] = [f"run{6 * (i % 3) + i // 3}" for i in place]
    return runs.merge(made[["run_id", "num_steps"]]).assign(**{"train.warmup": 0.1}), curves


def step_times():
    sizes = itertools.product(MIXERS, (64, 128, 256), (64, 128, 256), (1, 4, 17))
    names = ["mixer", "d_model", "seq_len", "pack_size"]
    table = pd.DataFrame(sizes, columns=names)
    table["mixer_name"] = table["mixer"].str.partition(" (")[0]
    return table.assign(ms_per_run_step=table["d_model"] * table["seq_len"] / 1e4)


def precisions():
    runs = study(layers=(2,), widths=(64,), lengths=(64,))
    lower = runs["test_accuracy"] * 0.9
    fp32, bf16 = ({"train.precision": name} for name in ("fp32", "bf16"))
    return pd.concat([runs.assign(**fp32), runs.assign(test_accuracy=lower, **bf16)])


def recipes():
    runs = study(layers=(2,), widths=(64,), lengths=(64,))
    recipes = [("fixed", 0.0), ("fresh", 0.0), ("fixed", 0.1)]
    names = ("train.data", "model.embed_dropout")
    return pd.concat([runs.assign(**dict(zip(names, each, strict=True))) for each in recipes])


def sums(pairs=(10, 20, 50), depths=(2,), forms=("AR", "non-AR"), trained=("one form",)):
    """Six mixers at their best rates in key-value-sum, as `at_best_rate` has them."""
    axes = (MIXERS, depths, pairs, forms, trained, (42, 123, 777))
    names = ["mixer", "model.num_layers", "task.num_pairs", "task.form", "train.forms", "seed"]
    rows = pd.DataFrame(itertools.product(*axes), columns=names)
    length, depth = 2 * rows["task.num_pairs"] + 5, rows["model.num_layers"]
    accuracy = np.where(rows["task.form"] == "AR", 1 - rows["task.num_pairs"] / 60, 1.0)
    rows["mixer.name"] = rows["mixer"].str.partition(" (")[0]
    rows["mixer.options"] = rows["mixer"].map(options_of)
    options = {"task.seq_len": length, "model.d_model": 32 * depth, "task.num_operands": 3}
    return rows.assign(accuracy=accuracy, without_recall=0.1, **options)


def points():
    mixers = ("attention", "hyena", "rwkv", "h3")
    sizes = {"layers": (2, 4), "widths": WIDTHS[:4], "lengths": (64, 128), "rates": (1e-3,)}
    runs = made_up_runs(accuracy, mixers, seeds=(42,), **sizes)
    return pd.concat([runs.assign(**{"train.order": order}) for order in ("fixed", "shuffled")])


WIDTHS = (64, 128, 256, 512, 1024, 2048)
FIGURES = {
    "recall by pairs": lambda: plots.recall_by_pairs(sums()),
    "recall by pairs, trained on both": lambda: plots.recall_by_pairs(
        sums(trained=("one form", "both forms"))
    ),
    "recall by size": lambda: plots.recall_by_size(sums(depths=(1, 2, 3, 4))),
    "learning rates": lambda: plots.accuracy_by_learning_rate(
        study(layers=(2,), lengths=(64, 256))
    ),
    "few learning rates": lambda: plots.accuracy_by_learning_rate(
        study(layers=(2,), lengths=(64,), rates=(2e-3, 5e-3, 1e-2, 3e-2))
    ),
    "a setting that some mixers lack": lambda: plots.accuracy_by_learning_rate(
        study(widths=(64,), lengths=(64,))[
            lambda runs: (runs["model.num_layers"] == 1) | (runs["mixer"] != "mamba")
        ]
    ),
    "one learning rate": lambda: plots.accuracy_by_learning_rate(
        study(layers=(2,), lengths=(64,), rates=(2e-3,))
    ),
    "long titles": lambda: plots.accuracy_by_learning_rate(recipes()),
    "precisions": lambda: plots.accuracy_by_precision(precisions()),
    "width": lambda: plots.accuracy_by_width(study(lengths=(64, 256), widths=WIDTHS)),
    "parameters": lambda: plots.accuracy_by_parameters(study()),
    "wide parameters": lambda: plots.accuracy_by_parameters(study(lengths=(256,), widths=WIDTHS)),
    "state size": lambda: plots.accuracy_by_state_size(study()),
    "state size of many mixers": lambda: plots.accuracy_by_state_size(
        pd.concat([study(lengths=(64,)), variants("d_state=16, headdim=32")])
    ),
    "dynamics": lambda: plots.training_dynamics(*dynamics()),
    "kinds of training": lambda: plots.curves_by_kind(*dynamics(), each=2),
    "ablations": lambda: plots.ablation_table(ablations(study(), {"mixer": "attention"})),
    "beside published": lambda: plots.accuracy_beside_published(
        points(), beside_published(points()), "train.order"
    ),
    "step cost": lambda: plots.step_cost(step_times()),
    "one panel": lambda: plots.accuracy_by_width(
        study(layers=(2,), lengths=(256,), seeds=(42,))[lambda runs: runs["mixer"] == "hyena"]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_another_or_leaves_the_figure(name):
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in visible_texts(figure) if text.get_text().strip()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert len(texts) > 5
    for box, text in zip(boxes, texts, strict=True):
        inside = figure.bbox.padded(3)
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1, f"{text} leaves the figure"
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1, f"{text} leaves the figure"
    for (one, box), (other, second) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not box.padded(-1.5).overlaps(second.padded(-1.5)), f"{one} over {other}"


def test_a_legend_of_many_mixers_leaves_a_panel_its_height():
    heights = []
    for runs in (study(lengths=(64,)), pd.concat([study(lengths=(64,)), variants("d_state=16")])):
        figure = plots.accuracy_by_state_size(runs)
        FigureCanvasAgg(figure).draw()
        heights.append(figure.axes[0].get_window_extent().height / figure.dpi)
    assert len(figure.legends[0].get_texts()) > 12
    assert heights[1] > 0.9 * heights[0] > 1.2


def visible_texts(figure: Figure):
    found = [figure._supxlabel, figure._supylabel]
    for legend in figure.legends:
        found += legend.get_texts()
    for axis in figure.axes:
        found += axis.texts
        if axis.axison:
            found += [axis.title, axis.xaxis.label, axis.yaxis.label]
            for one in (axis.xaxis, axis.yaxis):
                low, high = sorted(one.get_view_interval())
                ticks = one.get_major_ticks()
                found += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
        elif axis.title.get_text():
            found.append(axis.title)
    return [text for text in found if text is not None and text.get_visible()]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_is_written_whole_in_the_format_of_its_name_and_the_same_each_time(
    tmp_path, ending
):
    figure = FIGURES["one panel"]()
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    for path in (first, second):
        plots.save(figure, path)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert first.read_bytes().startswith(starts[ending])
    if ending != "svg":  # its element ids are random
        assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_mixer_has_one_colour_whatever_it_is_drawn_with():
    alone, among = mixer_looks(mixers("mamba")), mixer_looks(mixers(*MIXERS))
    assert alone["mamba"] == among["mamba"]
    plain, variant = among["attention"], among["attention (conv=qkv)"]
    assert plain.color == variant.color
    assert plain.marker != variant.marker and plain.linestyle != variant.linestyle
    assert len({look.color for look in among.values()}) == 5


def test_a_mixer_of_the_users_own_gets_a_look_that_is_free():
    looks = mixer_looks(mixers("attention", "lab_a.mix:Mine", "lab_b.mix:Mine", "hyena"))
    assert len({look.color for look in looks.values()}) == 4
    assert len({look.marker for look in looks.values()}) == 4
    many = mixer_looks(mixers(*(f"lab:Mine{i}" for i in range(30))))
    assert len(many) == 30  # more than there are looks


def test_a_mixer_that_does_not_tell_its_state_size_is_left_out_with_a_word():
    runs = mixers("attention", "lab.mix:Mine")
    own = runs["mixer"] == "lab.mix:Mine"
    runs["state_size"] = runs["state_size"].astype("Int64").mask(own)
    figure = plots.accuracy_by_state_size(runs)
    FigureCanvasAgg(figure).draw()
    assert "(not known of Mine)" in figure.get_supxlabel()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Attention" in legend and "Mine" not in legend


def mixers(*labels: str) -> pd.DataFrame:
    """Runs of some mixers."""
    return made_up_runs(lambda *_: 0.5, mixers=labels, rates=(1e-3,), seeds=(1,))


BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868],
                   [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968],
                     [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779],
                   [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""By the matrices of Machado, Oliveira and Fernandes 2009, on linear light."""


@pytest.mark.parametrize("kind", BLINDNESS)
def test_mixers_differ_in_colour_for_colour_blind_people_and_all_in_their_marks(kind):
    names = list(COLORS)[:6]  # the mixers that are drawn together
    rgb = np.array([[int(COLORS[n][i : i + 2], 16) / 255 for i in (1, 3, 5)] for n in names])
    seen = (rgb**2.2 @ np.array(BLINDNESS[kind]).T).clip(0, 1) ** (1 / 2.2)
    for i, j in itertools.combinations(range(len(names)), 2):
        apart = 0.11 if kind == "tritanopia" else 0.15  # one in ten thousand people
        assert np.linalg.norm(seen[i] - seen[j]) > apart, (names[i], names[j])
    looks = mixer_looks(mixers(*COLORS)).values()
    assert len({look.marker for look in looks}) == len(COLORS)


def test_width_shows_the_fine_grid_and_the_four_points():
    figure = plots.accuracy_by_width(study(layers=(2,), lengths=(256,)))
    hyena = next(axis for axis in figure.axes if axis.get_title() == "Hyena")
    fine, sparse, _ = (line for line in hyena.lines if line.get_linestyle() != "None")
    seeds = [line for line in hyena.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in seeds] == [9, 9]  # three at each of three widths
    np.testing.assert_allclose(fine.get_ydata(), np.array([64, 128, 256]) / 256 - 0.02 / 3)
    assert (np.asarray(sparse.get_ydata()) < np.asarray(fine.get_ydata())).all()
    assert any("interpolated" in text.get_text() for text in figure.legends[0].get_texts())


def test_dynamics_marks_the_transitions_that_the_analysis_finds():
    from zoorecall.analysis.bumps import transitions

    runs, curves = dynamics()
    figure = plots.training_dynamics(runs, curves)
    bands = sum(len(axis.patches) for axis in figure.axes)
    assert bands == 2 * len(transitions(runs, curves)) > 0  # on the loss and on the accuracy


def test_one_seed_is_drawn_without_a_range_and_said_to_be_one():
    runs = study(layers=(1,), lengths=(64,), seeds=(42,))
    figure = plots.ablation_table(ablations(runs, {"mixer": "attention"}))
    cells = [text.get_text() for text in figure.axes[0].texts if "[" in text.get_text()]
    assert cells and all("one seed" in cell for cell in cells)
    FigureCanvasAgg(plots.accuracy_by_width(runs)).draw()


def test_an_ablation_stands_below_its_baseline_with_its_difference():
    runs = study(layers=(1,), widths=(64,), lengths=(64, 128))
    figure = plots.ablation_table(ablations(runs, {"mixer": "mamba"}))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == "mamba"
    assert any("\N{MINUS SIGN}75.0 [" in text for text in texts) or any(
        "+0.0 [" in t for t in texts
    )


def test_a_further_column_of_settings_is_drawn_too():
    runs = study(layers=(1,), widths=(64,), lengths=(64,))
    runs = pd.concat([runs.assign(**{"train.schedule": s}) for s in ("cosine", "constant")])
    FigureCanvasAgg(plots.accuracy_by_learning_rate(runs)).draw()


def test_the_lowest_panel_of_every_column_names_its_learning_rates():
    five = study(layers=(1,), widths=(64, 128, 256), lengths=(64, 128))
    five = five[five["mixer"].isin(MIXERS[:3])]
    five = five[(five["model.d_model"] < 256) | (five["task.seq_len"] < 128)]
    figure = plots.accuracy_by_learning_rate(five)
    FigureCanvasAgg(figure).draw()
    shown = [axis for axis in figure.axes if axis.axison]
    named = [axis.xaxis.get_tick_params()["labelbottom"] for axis in shown]
    assert named == [False, False, True, True, True]


@pytest.mark.parametrize("mixers", [MIXERS[:4], MIXERS])
def test_every_seed_is_a_mark_beside_the_mean_in_a_panel_a_setting_or_a_mixer(mixers):
    runs = study(widths=(64,), lengths=(64,))
    runs = runs[runs["mixer"].isin(mixers)]
    figure = plots.accuracy_by_learning_rate(runs)
    assert len(figure.axes) == (2 if len(mixers) == 4 else len(mixers))
    assert sum(len(marks(axis)) for axis in figure.axes) == len(runs)
    assert "a mark is a seed, a line goes through their means" in below(figure)
    assert not any(axis.collections for axis in figure.axes)  # no band


def marks(axis) -> np.ndarray:
    """Where the marks without a line are: x and y."""
    lines = [line for line in axis.lines if line.get_linestyle() == "None"]
    return np.concatenate([np.stack(line.get_data(), axis=1) for line in lines])


def below(figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


ONE_SEED = {
    "width": lambda: plots.accuracy_by_width(study(lengths=(64,), seeds=(42,))),
    "seeds without a common rate": lambda: plots.accuracy_by_width(
        study(lengths=(64,), seeds=(42, 123))[
            lambda runs: (runs["seed"] == 42) == (runs["train.learning_rate"] > 1e-3)
        ]
    ),
    "recall by pairs": lambda: plots.recall_by_pairs(sums()[lambda rows: rows["seed"] == 42]),
    "recall by size": lambda: plots.recall_by_size(sums()[lambda rows: rows["seed"] == 42]),
}


@pytest.mark.parametrize("made", ONE_SEED.values(), ids=ONE_SEED)
def test_nothing_is_called_held_out_where_no_other_seed_chose_the_rate(made):
    figure = made()
    assert "held out" not in figure.get_supylabel() + below(figure)
    assert "at the best rate, chosen by the same seed" in below(figure)


def test_recall_shows_every_seed_as_a_dot_full_for_ar_and_hollow_for_non_ar():
    figure = plots.recall_by_pairs(sums())
    axis = figure.axes[0]
    dots = [line for line in axis.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in dots] == [9, 9]
    assert [line.get_markerfacecolor() == "none" for line in dots] == [True, False]


def test_recall_by_size_has_a_row_a_size_and_says_how_many_seeds_it_has():
    rows = sums(depths=(2, 4))
    rows = rows[(rows["model.num_layers"] == 2) | (rows["seed"] == 42)]
    labels = [text.get_text() for text in plots.recall_by_size(rows).axes[0].get_yticklabels()]
    assert labels == ["2 layers, width 64 (3 seeds)", "4 layers, width 128 (1 seed)"]
