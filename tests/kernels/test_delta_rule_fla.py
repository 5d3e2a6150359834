"""flash-linear-attention's delta rule, for what our kernel does not take, on a GPU."""

import pytest
import torch

from zoorecall.ops.delta_rule.fla import delta_rule_fla

from .comparing import assert_near, results
from .test_delta_rule import NAMES, case, repeated


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [(3, 2, 256, 1, 64, 64), (2, 3, 150, 1, 256, 256)], ids=str)
def test_long_delta_rules_and_wide_ones_equal_the_recurrence(sizes):
    _, definition, inputs = case(*sizes, dtype=torch.bfloat16)
    expected = results(definition, inputs, torch.float64)
    assert_near(results(delta_rule_fla, inputs), expected, NAMES, 2e-2)
    inputs = repeated(*inputs, noise=0.05)
    expected = results(definition, inputs, torch.float64)
    assert_near(results(delta_rule_fla, inputs), expected, NAMES, 5e-2)
