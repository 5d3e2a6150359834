"""How many pairs the positions of the queries give away: what a model of MQAR recalls without
looking at a key.

    python experiments/recall_by_position.py

Earlier keys tend to be asked for sooner (`zoorecall/tasks/mqar.py`), so the likeliest pair of each
slot is right more often than one time in K. 1-layer attention with positions can learn as much. The
same number is the `floor` in the tables of `zoorecall table`.
"""

from zoorecall.exits import exit_code
from zoorecall.tasks import make_task
from zoorecall.tasks.mqar import MQARConfig

SIZES = ((64, 4), (128, 8), (256, 16), (512, 64), (256, 64))


def main() -> None:
    print(f"{'length':>6}  {'pairs':>5}  {'one in K':>8}  {'by position':>11}  {'pairs':>5}")
    for length, pairs in SIZES:
        task = make_task(MQARConfig(seq_len=length, num_kv_pairs=pairs))
        share = task.without_recall()
        print(f"{length:6}  {pairs:5}  {1 / pairs:8.4f}  {share:11.4f}  {share * pairs:5.2f}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
