"""The page in a real browser: nothing is fetched, nothing fails, and its controls do what they say.

Skipped where neither `chromium` nor `chromedriver` is installed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.report.page import write_report
from tests.analyses.report.conftest import KEPT, Reported

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not BROWSER or not DRIVER, reason="no chromium with chromedriver on this machine")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, reported: Reported) -> Any:
    browser.get_log("performance")
    browser.get(reported.page.as_uri())
    return browser


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something becomes true within ten seconds."""
    end = time.monotonic() + 10
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def shown(browser: Any, chart: str) -> Any:
    """What Plotly shows in a chart now, once it is drawn."""
    browser.execute_script(f"document.getElementById('{chart}').scrollIntoView()")
    script = f"return document.querySelector('#{chart} .plot').data !== undefined"
    assert eventually(lambda: bool(browser.execute_script(script)))
    return browser.execute_script(f"return document.querySelector('#{chart} .plot').data")


def test_nothing_is_fetched_and_nothing_fails(opened: Any) -> None:
    height = opened.execute_script("return document.documentElement.scrollHeight")
    for top in range(0, height, 500):
        opened.execute_script(f"scrollTo(0, {top})")
        time.sleep(0.05)
    everything = "return [...document.querySelectorAll('.plot')].every((plot) => plot.data !== undefined)"
    assert eventually(lambda: bool(opened.execute_script(everything)))
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    fetched = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
        # The browser's own start page is not part of the page.
        and not one["params"]["documentURL"].startswith("chrome://")
    ]
    assert [url for url in fetched if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in fetched if url.startswith("file:")]) == 1


def test_the_heat_map_turns_from_changes_to_values(opened: Any, reported: Reported) -> None:
    from selenium.webdriver.common.by import By

    chart = reported.report.models[0].chart
    first = shown(opened, chart.key)[0]
    down = first["y"].index("[CLS] zero, to 11")
    assert first["z"][down] == pytest.approx(list(chart.views[0, 0].traces[0]["z"][down]))
    opened.find_element(By.CSS_SELECTOR, f"#{chart.key} input[value='1']").click()
    second = shown(opened, chart.key)[0]
    assert second["z"][down] == pytest.approx(list(chart.views[1, 0].traces[0]["z"][down]))
    assert second["zmax"] == 100
    assert all(0 <= value <= 100 for value in second["z"][down])


def test_the_layer_slider_is_moved_by_keys_and_changes_what_is_shown(opened: Any, reported: Reported) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    (cache,) = reported.report.caches
    flow = next(
        chart
        for group in cache.groups
        for chart in group.charts
        if group.name == "attention-flow" and not chart.marks_layer
    )
    norms = next(chart for group in cache.groups for chart in group.charts if group.name == "token-norms")
    assert flow.layers == (6, 11)
    slider = opened.find_element(By.ID, f"{cache.key}-layer")
    for layer, index in ((12, 1), (11, 1), (6, 0)):
        if layer != KEPT[-1]:
            slider.send_keys(Keys.ARROW_LEFT)
        assert opened.find_element(By.CSS_SELECTOR, f"#{cache.key} .layerbar output").text == str(layer)
        (found,) = shown(opened, flow.key)
        np.testing.assert_allclose(found["z"], [list(line) for line in flow.views[0, index].traces[0]["z"]])
        assert opened.find_element(By.CSS_SELECTOR, f"#{flow.key} .at-layer").text == f"layer {min(layer, 11)}"
        shown(opened, norms.key)
        mark = opened.execute_script(f"return document.querySelector('#{norms.key} .plot').layout.shapes[0].x0")
        assert mark == layer
        visible = opened.execute_script(
            f"return [...document.querySelectorAll('#{cache.key}-nearest tr')].filter((row) => !row.hidden)"
            ".map((row) => Number(row.dataset.layer))"
        )
        assert visible == [layer] * 4


def test_a_choice_of_edit_shows_its_map(opened: Any, reported: Reported) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    (cache,) = reported.report.caches
    chart = next(
        chart for group in cache.groups for chart in group.charts
        if group.name == "patch-similarity" and chart.title.endswith("over the image")
    )  # fmt: skip
    edits = chart.controls[0].options
    wanted = next(index for index, name in enumerate(edits) if name.startswith("[CLS] zero"))
    shown(opened, chart.key)
    Select(opened.find_element(By.CSS_SELECTOR, f"#{chart.key} select")).select_by_visible_text(edits[wanted])
    (found,) = shown(opened, chart.key)
    last = len(chart.layers) - 1
    np.testing.assert_allclose(found["z"], [list(line) for line in chart.views[wanted, last].traces[0]["z"]])


def test_a_phone_scrolls_charts_and_not_the_page(opened: Any) -> None:
    metrics = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert eventually(lambda: opened.execute_script("return document.documentElement.scrollWidth") <= 360)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_and_print_change_the_colours(opened: Any, reported: Reported) -> None:
    key = reported.report.models[0].chart.key
    colour = f"return document.querySelector('#{key} .plot').layout.font.color"
    shown(opened, key)
    light = opened.execute_script(colour)
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    assert eventually(lambda: opened.execute_script(colour) != light)
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert opened.execute_script(colour) == "#000000"
    assert opened.execute_script("return [...document.querySelectorAll('details.example')].every((one) => one.open)")
    widths = opened.execute_script(
        f"const plot = document.querySelector('#{key} .plot');"
        "return [plot.querySelector('.main-svg').clientWidth, plot.parentElement.clientWidth, "
        "document.querySelector('main').clientWidth]"
    )
    assert widths[0] <= widths[1] < widths[2] == 700
    opened.execute_script("dispatchEvent(new Event('afterprint'))")
    assert opened.execute_script(colour) != "#000000"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_script_that_slipped_in_would_not_run(browser: Any, reported: Reported, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(reported.report, page)
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("<main", "<script>document.title = 'ran'</script><main", 1), encoding="utf-8")
    browser.get(page.as_uri())
    assert browser.title == reported.report.title
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
