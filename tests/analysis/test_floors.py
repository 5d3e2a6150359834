"""What an accuracy is worth without recall, of runs of any task."""

import numpy as np
import pandas as pd
import pytest

from zoorecall.analysis.floors import without_recall
from zoorecall.tasks import make_task
from zoorecall.tasks.key_value_sum import KeyValueSumConfig
from zoorecall.tasks.mqar import MQARConfig


def runs(*rows):
    return pd.DataFrame([{f"task.{name}": x for name, x in row.items()} for row in rows])


def test_each_run_has_the_floor_of_its_own_task():
    mqar = {"name": "mqar", "seq_len": 64, "num_kv_pairs": 4, "num_queries": 4}
    sums = {"name": "key_value_sum", "num_pairs": 10, "num_operands": 2, "recall": "true"}
    found = without_recall(runs(mqar, {**mqar, "seq_len": 128}, sums, {**sums, "recall": "false"}))
    floors = [
        make_task(config).without_recall()
        for config in (
            MQARConfig(seq_len=64, num_kv_pairs=4),
            MQARConfig(seq_len=128, num_kv_pairs=4),
            KeyValueSumConfig(num_pairs=10, num_operands=2),
        )
    ]
    assert found.tolist() == pytest.approx([*floors, 1.0])


def test_what_is_not_known_is_empty():
    both = {"name": "key_value_sum", "num_pairs": 10, "recall": "both"}
    assert np.isnan(without_recall(runs(both, {"name": "mine"}))).all()
    assert without_recall(pd.DataFrame({"run_id": ["a"]})).isna().all()
