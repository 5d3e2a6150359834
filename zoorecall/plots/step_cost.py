"""The time of a training step against width, length and pack size, as `zoorecall bench` took it."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ..columns import MIXER_NAME
from ..words import MIXERS
from .style import NORMAL, WIDTH, labels, legend, mixer_looks, panels, size_axis

AXES = {"d_model": "width", "seq_len": "length", "pack_size": "runs in a pack"}


def step_cost(measurements: pd.DataFrame, width: float = WIDTH) -> Figure:
    """Milliseconds a run-step: a panel for each of width, length and pack size that varies, the
    others at their smallest, of the pack sizes the fastest; a line a mixer."""
    smallest = {name: measurements[name].min() for name in ("d_model", "seq_len")}
    possible = []
    for name in AXES:
        fixed = {other: value for other, value in smallest.items() if other != name}
        rows = measurements[(measurements[list(fixed)] == pd.Series(fixed)).all(axis=1)]
        possible.append((name, fixed, rows))
    shown = [one for one in possible if one[2][one[0]].nunique() > 1] or possible[-1:]
    looks = mixer_looks(measurements.rename(columns={"mixer_name": MIXER_NAME}))
    titles = [
        ", ".join(f"{AXES[x]} {value}" for x, value in fixed.items()) for _, fixed, _ in shown
    ]
    figure, axes = panels(titles, len(shown), 1.9, width, sharey=True)
    for axis, (name, _, rows) in zip(axes, shown, strict=True):
        for mixer, line in rows.groupby("mixer"):
            times = line.groupby(name)["ms_per_run_step"].min()
            look = looks[str(mixer)]
            axis.plot(times.index, times, **{**look.line, **look.seeds})
        axis.set_xlabel(AXES[name], fontsize=NORMAL)
        size_axis(axis, rows[name])
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    labels(figure, "", "ms a run-step")
    legend(figure, {MIXERS.get(label, label): look.handle for label, look in looks.items()})
    return figure
