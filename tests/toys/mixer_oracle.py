"""The running mean is numpy's mean of each prefix."""

import numpy as np
import torch

from zoorecall.mixers.running_mean import RunningMean, RunningMeanConfig

STATE_SIZES = [("running_mean", {}, 12, 12), ("running_mean", {"start": 0.5}, 12, 12)]


def test_it_is_the_mean_of_every_prefix():
    x = torch.randn(1, 2, 7, 3)
    y = RunningMean(RunningMeanConfig(start=2.0), 3, 7, 1)(x)
    for t in range(7):
        expected = 2 * x[:, :, : t + 1].numpy().mean(axis=2)
        np.testing.assert_allclose(y[:, :, t].detach(), expected, rtol=1e-5, atol=1e-6)
