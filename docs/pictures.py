"""Makes the pictures of README's first screen, in docs/; `make pictures` runs it.

    accuracy.png  accuracy against learning rate, of results/lr_fine
    sweep.svg     a sweep of grids/quick.yaml in a terminal, which trains it: two minutes
    report.png    the report of results/lr_fine in a browser; needs chromium and chromedriver

Names of pictures, as arguments, make these alone.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from zoorecall import load_grid, load_results, report, sweep
from zoorecall.display import SweepDisplay
from zoorecall.errors import UserError
from zoorecall.exits import exit_code
from zoorecall.plots import figure, save
from zoorecall.sweeps import events

DOCS = Path(__file__).parent
STUDY, GRID = DOCS.parent / "results/lr_fine", DOCS.parent / "grids/quick.yaml"
SHARE = 0.6
"""How much of the sweep is trained when its picture is taken."""


def accuracy(path: Path) -> None:
    save(figure("rates", load_results(STUDY)), path)


def sweep_in_a_terminal(path: Path) -> None:
    """The terminal once `SHARE` of all steps are trained."""
    shown = SweepDisplay(Console(file=io.StringIO()))
    terminal = Console(record=True, width=96, force_terminal=True, file=io.StringIO())

    def show(event: events.SweepEvent) -> None:
        shown.show(event)
        if isinstance(event, events.Progress):
            trained = shown.done / (shown.done + shown._left())
            if trained >= SHARE and not path.exists():
                terminal.print("$ zoorecall sweep grids/quick.yaml", style="bold")
                terminal.print(shown._panel())
                terminal.save_svg(str(path), title="zoorecall")

    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sweep(load_grid(GRID), folder, device="cpu", on_event=show)


def report_in_a_browser(path: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        raise UserError("report.png: needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0] or ""
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    with tempfile.TemporaryDirectory() as folder:
        options.add_argument(f"--user-data-dir={folder}/profile")
        page = report(STUDY, Path(folder, "report.html"))
        driver = webdriver.Chrome(options=options, service=Service(programs[1]))
        try:
            size = {"width": 1000, "height": 720, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(page.as_uri())
            driver.save_screenshot(str(path))
        finally:
            driver.quit()


PICTURES = {
    "accuracy.png": accuracy,
    "sweep.svg": sweep_in_a_terminal,
    "report.png": report_in_a_browser,
}


def main() -> None:
    for name in sys.argv[1:] or PICTURES:
        if name not in PICTURES:
            raise UserError(f"{name}: no such picture; there are {', '.join(PICTURES)}")
        PICTURES[name](DOCS / name)
        print(f"picture  docs/{name}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
