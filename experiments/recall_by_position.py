"""How many pairs the positions of the queries give away: what a model of MQAR recalls without
looking at a key.

    python experiments/recall_by_position.py

Earlier keys tend to be asked for sooner (`zoorecall/tasks/mqar.py`), so the likeliest pair of each
slot is right more often than one time in K. 1-layer attention with positions can learn as much.
"""

import numpy as np

from zoorecall.cli import exit_code
from zoorecall.tasks import make_task
from zoorecall.tasks.mqar import MQARConfig

SIZES = ((64, 4), (128, 8), (256, 16), (512, 64), (256, 64))
SEED, COUNTED, MEASURED = 42, 40_000, 20_000


def asked(config: MQARConfig, count: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The slot behind the pairs of every query, and the pair that it asks for: [n, Q] each."""
    made = make_task(config).examples(count, SEED, split)
    slots = (made.query_positions.astype(int) - 2 * config.num_kv_pairs) // 2
    return slots, np.broadcast_to(np.arange(slots.shape[1]), slots.shape)


def given_away(length: int, pairs: int) -> float:
    """The share of pairs that are the likeliest ones of the slots that they are asked for in."""
    config = MQARConfig(seq_len=length, num_kv_pairs=pairs)
    slots, wanted = asked(config, COUNTED, "train")
    counts = np.zeros(((length - 2 * pairs) // 2, pairs), dtype=int)
    np.add.at(counts, (slots.ravel(), wanted.ravel()), 1)
    slots, wanted = asked(config, MEASURED, "test")
    return (counts.argmax(axis=1)[slots] == wanted).mean()


def main() -> None:
    print(f"{'length':>6}  {'pairs':>5}  {'one in K':>8}  {'by position':>11}  {'pairs':>5}")
    for length, pairs in SIZES:
        share = given_away(length, pairs)
        print(f"{length:6}  {pairs:5}  {1 / pairs:8.4f}  {share:11.4f}  {share * pairs:5.2f}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
