"""Training without a sweep: in this process, without a file."""

from collections.abc import Sequence

import pandas as pd
import torch

from ..config import RunConfig
from ..errors import UserError, checked
from ..results import Results, as_results
from .pack_job import PackJob, Row
from .plan import check_fits, each_once, pack_size, plan
from .sweeper import Device, resolve_device


@checked
def train(runs: RunConfig | Sequence[RunConfig], device: Device = "auto") -> Results:
    """Train one run, or some, in this process; returns their table and curves.

    The runs train in packs, as in a sweep, and come to the same numbers. Raises DeviceError where
    there is no such device or a run cannot train on it, UserError for other arguments or no runs,
    and whatever a mixer of the user's own raises.
    """
    each = each_once([runs] if isinstance(runs, RunConfig) else runs)
    if not each:
        raise UserError("there are no runs to train")
    place, rows = torch.device(resolve_device(device)), dict[str, Row]()
    check_fits(each, place)
    for group in plan(each, lambda run: pack_size(run, place)):
        waiting = list(group.runs)
        job = PackJob(waiting[: group.slots], group.slots, place)
        del waiting[: group.slots]
        while job.running:
            job.advance()
            rows |= {row["run_id"]: row for row, _ in job.take()}
            if entering := waiting[: job.free]:
                job.enter(entering)
                del waiting[: len(entering)]
    return as_results(pd.DataFrame([rows[run.run_id] for run in each]))
