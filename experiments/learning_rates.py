"""Accuracy against learning rate, of everything that is trained.

    python experiments/learning_rates.py

Figure: learning_rates.png in every folder of results/ that holds finished runs, as
`zoorecall plot results/NAME` draws it.
"""

from pathlib import Path

from zoorecall.exits import exit_code
from zoorecall.plots import figure, save
from zoorecall.studies import trained_studies


def main() -> None:
    for name, results in trained_studies().items():
        path = Path("results", name, "learning_rates.png")
        save(figure("rates", results), path)
        print(f"figure  {path}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
