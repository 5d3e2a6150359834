"""The report in a real Chromium, from a file and without a network: `make test-browser`."""

import io
import json
import shutil
import time
from xml.etree import ElementTree

import pandas as pd
import pytest
from made_up import labelled_curves, made_up_runs

from zoorecall.analysis.bumps import classify
from zoorecall.reporting import report
from zoorecall.results import Results

pytestmark = pytest.mark.browser

FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
LABELS = ("attention", "mamba2 (d_state=16, headdim=32)", "<script>alert(1)</script>")
TITLES = ("Attention", "Mamba-2 (d_state 16, headdim 32)", LABELS[2])
PANEL, LOSS, ACCURACY = "#panels .chart", "#curves figure:nth-of-type(1)", "#curves figure + figure"


@pytest.fixture(scope="module")
def found() -> Results:
    """102 runs of three mixers, one and two layers, with curves of all kinds."""
    runs = made_up_runs(
        lambda mixer, layers, width, length, x, seed: (4 + x) / 4 if x > -4 else 0.01 * seed,
        mixers=LABELS,
        layers=(1, 2),
        seeds=(7,),
    )
    made, curves, _ = labelled_curves(len(runs), seed=5)
    runs = runs.merge(made[["run_id", "num_steps"]])
    return Results(runs.assign(**{"train.warmup": 0.1, "task.name": "mqar"}), curves)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory) -> str:
    return report(found, tmp_path_factory.mktemp("report") / "report.html").as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    assert all(programs.values()), f"not on the PATH: {programs}"
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, page):
    """The page, freshly opened at 1400 x 900; nothing may have gone wrong when the test ends."""
    resize(chromium, 1400)
    chromium.get_log("performance")
    chromium.get(page)
    yield chromium
    messages = [
        json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")
    ]
    requests = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {request["request"]["url"] for request in requests} == {page}
    assert chromium.get_log("browser") == []


def resize(driver, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def one(driver, selector: str):
    return driver.find_element("css selector", selector)


def every(driver, selector: str) -> list:
    return driver.find_elements("css selector", selector)


def press(driver, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def hover(driver, selector: str, share: float) -> str:
    """Move the pointer over a chart, to a share of its inside's width; what its tip says."""
    from selenium.webdriver import ActionChains

    chart = one(driver, selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    left, right = 46, chart.size["width"] - 12
    x = left + share * (right - left) - chart.size["width"] / 2
    ActionChains(driver).move_to_element_with_offset(chart, round(x), 0).perform()
    return one(driver, f"{selector} .tip").text


def column(driver, heading: str) -> list[str]:
    """The visible cells of a column, from top to bottom."""
    place = [cell.text.strip() for cell in every(driver, "#table th")].index(heading) + 1
    return driver.execute_script(
        "return Array.from(document.querySelectorAll(arguments[0])).filter("
        "cell => !cell.parentNode.hidden).map(cell => cell.textContent)",
        f"#table tbody td:nth-child({place})",
    )


def heading(driver, name: str):
    return next(b for b in every(driver, "#table th button") if b.text.strip() == name)


def test_a_click_on_a_heading_sorts_by_it_and_a_second_one_the_other_way(browser):
    for name, key in (("learning rate", float), ("accuracy, %", float), ("mixer", str.lower)):
        before = column(browser, name)
        heading(browser, name).click()
        ascending = [key(cell) for cell in column(browser, name)]
        heading(browser, name).click()
        descending = [key(cell) for cell in column(browser, name)]
        assert sorted(before) == sorted(column(browser, name))
        if key is float:
            assert ascending == sorted(ascending) and ascending != descending
        assert descending == ascending[::-1] or descending == sorted(ascending, reverse=True)
        assert len(every(browser, "#table th[aria-sort]")) == 1


def test_the_filter_leaves_the_rows_that_have_every_word(browser, found):
    kinds = classify(found.runs, found.curves)["kind"]
    one(browser, "#filter").send_keys("mamba-2 Smooth")
    expected = ((found.runs["mixer"] == LABELS[1]) & (kinds == "smooth")).sum()
    assert column(browser, "training") == ["smooth"] * expected and expected > 0
    assert set(column(browser, "mixer")) == {TITLES[1]}
    assert one(browser, "#shown").text == f"{expected} of {len(found)} runs"


def click_row(driver, kind: str):
    """Click the first row of a kind of training, which the headings must not hide."""
    rows = every(driver, "#table tbody tr")
    row = rows[[row.text.endswith(kind) for row in rows].index(True)]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
    row.click()
    return row


def test_a_click_on_a_row_shows_its_run(browser, found):
    row = click_row(browser, "bump with gain")
    run_id = row.get_attribute("data-run")
    assert row.get_attribute("aria-selected") == "true"
    assert len(every(browser, "[aria-selected=true]")) == 1
    mixer, rate = (row.find_elements("css selector", "td")[i].text for i in (0, 2))
    assert f"{mixer}, " in one(browser, "#run").text
    assert f"learning rate {rate}, seed 7" in one(browser, "#run").text
    assert "Course of the loss, bump with gain: " in one(browser, "#kind").text
    falls = every(browser, "#notes li")
    assert len(falls) >= 1 and "the test loss falls suddenly" in falls[0].text
    assert len(every(browser, f"{LOSS} rect.fall")) == len(falls)
    assert len(every(browser, f"{LOSS} path.line")) == 2
    assert run_id in one(browser, "#own").text
    evaluations = found.curves[found.curves["run_id"] == run_id].set_index("step")
    tip = hover(browser, f"{LOSS} .chart", 1.0).splitlines()
    last = evaluations.index[-1]
    assert tip[0] == f"step {last:,}"
    assert float(tip[1].split()[-1]) == pytest.approx(evaluations["test_loss"][last], rel=1e-3)
    assert float(tip[2].split()[-1]) == pytest.approx(evaluations["train_loss"][last], rel=1e-3)
    accuracy = f"{100 * evaluations['test_accuracy'][last]:.1f} %"
    assert hover(browser, f"{ACCURACY} .chart", 1.0).endswith(f"test accuracy {accuracy}")


def test_the_keyboard_reaches_a_row_and_chooses_it(browser):
    from selenium.webdriver import Keys

    one(browser, "#filter").click()
    for _ in range(20):
        press(browser, Keys.TAB)
        focused = browser.switch_to.active_element
        if focused.tag_name == "tr":
            break
    assert focused.tag_name == "tr" and focused.value_of_css_property("outline-style") == "solid"
    before = one(browser, "#run").text
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert one(browser, "#run").text == before
    press(browser, *[Keys.ARROW_UP] * 4)
    chosen = browser.switch_to.active_element
    header = one(browser, "#table th").rect
    assert chosen.rect["y"] >= header["y"] + header["height"] - 1, "hidden by the headings"
    press(browser, Keys.ENTER)
    assert one(browser, "#run").text != before
    assert chosen.get_attribute("aria-selected") == "true" and chosen != focused


def test_the_figure_says_its_values_to_the_pointer_and_to_the_keyboard(browser):
    from selenium.webdriver import Keys

    assert len(every(browser, PANEL)) == 2
    tip = hover(browser, PANEL, 0.75)
    assert tip.startswith("learning rate 1e-2") and "mean min max solve" in tip
    for title in TITLES:
        assert f"{title} 50.0 % 50.0 % 50.0 % 0 of 1" in tip
    one(browser, "h1").click()
    browser.execute_script("arguments[0].focus()", one(browser, PANEL))
    press(browser, Keys.END)
    assert one(browser, f"{PANEL} .tip").text.startswith("learning rate 1e-1")
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert one(browser, f"{PANEL} .tip").text.startswith("learning rate 3.2e-2")
    press(browser, Keys.ESCAPE)
    assert not one(browser, f"{PANEL} .tip").is_displayed()


@pytest.mark.parametrize("width", [1400, 390])
def test_only_the_table_scrolls_sideways(browser, width):
    resize(browser, width)
    click_row(browser, "bump with gain")
    hover(browser, PANEL, 0.5)
    root = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    needed, there = browser.execute_script(root)
    assert needed == there <= width
    edges = "return Array.from(document.querySelectorAll(arguments[0])).map(e => [%s])"
    box = "e.getBoundingClientRect().left, e.getBoundingClientRect().right"
    outside = [
        edge
        for edge in browser.execute_script(edges % box, "h1, h2, p, li, dd, figure, .tip, .box")
        if edge[0] < 0 or edge[1] > width
    ]
    assert outside == []
    wide = browser.execute_script("return [box.scrollWidth, box.clientWidth]")
    assert wide[0] > wide[1] if width == 390 else wide[0] == wide[1]


@pytest.mark.parametrize("width", [1400, 390])
def test_no_text_of_a_chart_overlaps_another_or_leaves_it(browser, width):
    resize(browser, width)
    charts = browser.execute_script(
        "const box = (e) => { const b = e.getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom]; };"
        "return Array.from(document.querySelectorAll('.chart svg')).map((chart) =>"
        " [box(chart), ...Array.from(chart.querySelectorAll('text')).map(box)])"
    )
    assert len(charts) == 4
    for (left, top, right, bottom), *texts in charts:
        assert len(texts) > 6
        for i, text in enumerate(texts):
            assert left <= text[0] and top - 1 <= text[1], text
            assert text[2] <= right + 1 and text[3] <= bottom + 1, text
            for other in texts[:i]:
                apart = text[0] >= other[2] or other[0] >= text[2]
                assert apart or text[1] >= other[3] or other[1] >= text[3], (text, other)


def test_the_figure_comes_first_and_the_accuracy_of_runs_stays_in_sight_on_a_narrow_page(browser):
    tops = [one(browser, f"#{name}").rect["y"] for name in ("figure", "summary", "runs")]
    assert tops == sorted(tops)
    resize(browser, 400)
    box = one(browser, "#box")
    left, right = box.rect["x"], box.rect["x"] + box.rect["width"]
    for scrolled in (0, 10_000):
        browser.execute_script("arguments[0].scrollLeft = arguments[1]", box, scrolled)
        for cell in every(browser, "#table .key")[:3]:
            assert left <= cell.rect["x"] and cell.rect["x"] + cell.rect["width"] <= right + 1


@pytest.fixture
def saved(browser, tmp_path):
    """Clicks the button of a chart and gives what it saves as text."""
    place = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", place)

    def save(chart: str, kind: str) -> str:
        next(b for b in every(browser, f"{chart} .export button") if b.text == kind).click()
        for _ in range(100):
            files = [*tmp_path.glob(f"*.{kind.lower()}")]
            if files and (text := files[0].read_text()):  # it is empty for a moment
                files[0].unlink()
                return text
            time.sleep(0.05)
        raise AssertionError(f"no {kind} was saved")

    return save


def test_a_chart_is_saved_as_a_table_with_every_seed(found, saved):
    table = pd.read_csv(io.StringIO(saved("#panels figure:first-child", "CSV")))
    assert list(table) == ["line", "learning rate", "test accuracy"]
    runs = found.runs[found.runs["model.num_layers"] == 1]
    assert set(table["line"]) == set(TITLES) and len(table) == len(runs)
    for title, label in zip(TITLES, LABELS, strict=True):
        expected = sorted(runs.loc[runs["mixer"] == label, "test_accuracy"])
        drawn = sorted(table.loc[table["line"] == title, "test accuracy"])
        assert drawn == pytest.approx(expected, rel=1e-4)
    table = pd.read_csv(io.StringIO(saved("#curves figure:nth-of-type(1)", "CSV")))
    assert list(table) == ["line", "training step", "loss, nats"]
    assert list(dict.fromkeys(table["line"])) == ["training", "test"]


def test_a_chart_is_saved_as_a_drawing_that_needs_nothing_else(saved, browser):
    root = ElementTree.fromstring(saved("#panels figure:first-child", "SVG"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*TITLES, "1 layer, width 64, length 64", "learning rate", "100 %"} <= set(texts)
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert ".look0" in style and "var(" not in style and "url(" not in style


def test_a_mixer_that_is_chosen_in_the_legend_stands_out(browser):
    buttons = every(browser, "#mixers button")
    assert [button.text.strip() for button in buttons] == sorted(TITLES, key=str.lower)
    assert every(browser, f"{PANEL} .dim") == []
    buttons[1].click()
    assert len(every(browser, f"{PANEL} .dim")) == 2 * (len(TITLES) - 1)
    buttons[1].click()
    assert every(browser, f"{PANEL} .dim") == []


def test_dark_and_light_pages_have_readable_text(browser):
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        body, hint = one(browser, "body"), one(browser, ".hint")
        page = luminance(body.value_of_css_property("background-color"))
        assert (page > 0.5) == (scheme == "light")
        for element, contrast in ((body, 7), (hint, 4.5)):
            text = luminance(element.value_of_css_property("color"))
            assert (max(page, text) + 0.05) / (min(page, text) + 0.05) >= contrast
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(color: str) -> float:
    channels = [float(c) / 255 for c in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_summary_and_table_can_be_read_without_javascript(browser, found):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    assert "102 runs of 3 mixers" in one(browser, "main").text
    assert len(every(browser, "#table tbody tr")) == len(found)
    assert "The charts need JavaScript" in one(browser, "main").text
    assert not one(browser, "#chosen").is_displayed() and not one(browser, "#filter").is_displayed()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
