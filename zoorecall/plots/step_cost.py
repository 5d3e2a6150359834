"""The time of a training step against width, length and pack size, as `zoorecall bench` took it."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ..columns import MIXER_NAME
from .style import LARGE, legend, mixer_handles, mixer_looks, panels, size_axis

AXES = {"d_model": "width", "seq_len": "length", "pack_size": "runs in a pack"}


def step_cost(measurements: pd.DataFrame) -> Figure:
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
    figure, axes = panels(1, len(shown), 3.4, 2.9, sharey=True)
    for axis, (name, fixed, rows) in zip(axes.flat, shown, strict=True):
        for mixer, line in rows.groupby("mixer"):
            times = line.groupby(name)["ms_per_run_step"].min()
            axis.plot(times.index, times, **looks[str(mixer)].line)
        title = ", ".join(f"{AXES[other]} {value}" for other, value in fixed.items())
        axis.set_title(title, fontsize=LARGE)
        axis.set_xlabel(AXES[name], fontsize=LARGE)
        size_axis(axis, rows[name])
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    figure.supylabel("ms a run-step", fontsize=LARGE)
    legend(figure, mixer_handles(looks))
    return figure
