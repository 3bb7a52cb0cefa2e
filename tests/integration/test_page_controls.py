"""The page's other controls in a real browser, beside a service whose stand-in networks take no time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.attributes import encode
from tests.integration.page_visit import Page, Visit, decoded, serve_page, wait_until

# The first test waits for engines, which another process may be building.
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def page(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serve_page(repository, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def visit(browser: Any, page: Page) -> Visit:
    visit = Visit(browser, page)
    visit.pick(0)
    visit.quality("fast")
    return visit


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.tobytes() == other.tobytes()


def asked(visit: Visit) -> list[float]:
    """The attributes of the picture that is shown: -1 is unspecified."""
    return list(visit.receipt()["stages"]["base"]["options"]["attributes"])


def entries(visit: Visit) -> list[str]:
    """Numbers of the pictures of the history, the newest first."""
    found = visit.browser.find_elements("css selector", "#history [data-pick]")
    return [element.get_attribute("data-pick") for element in found]


def from_history(visit: Visit, number: int) -> Image.Image:
    visit.click(f"#history [data-pick='{number}']")
    visit.see(f"#details [data-again='{number}']")
    return decoded(visit.see("#download-png").get_attribute("href"))


def test_an_attribute_is_free_until_it_is_asked_for_and_can_be_free_again(visit: Visit) -> None:
    plain = visit.make(1)
    assert asked(visit) == [-1.0] * 7
    visit.click("#attributes button")
    wait_until(lambda: "All are free" in visit.text("#requested"))
    box, number = visit.see("#ask-yaw input"), visit.see("#attribute-yaw input[type=number]")
    assert not box.is_selected() and number.value_of_css_property("color") == "rgba(0, 0, 0, 0)", "it shows no value"

    visit.ask("attribute-yaw", 20, "Yaw (degrees) 20. The others are free")
    wait_until(box.is_selected)
    assert number.value_of_css_property("color") != "rgba(0, 0, 0, 0)"
    turned = visit.make(2)
    assert asked(visit) == encode({"yaw": 20}, "landmarks").tolist() and not same(turned, plain)

    visit.ask("attribute-yaw", 99, "Yaw (degrees) 35.")  # the nearest that is in range
    assert number.get_attribute("value") == "35"
    box.click()
    wait_until(lambda: "All are free" in visit.text("#requested"))
    assert same(visit.make(3), plain) and asked(visit) == [-1.0] * 7

    visit.ask("attribute-smile", 0.8, "Smile 0.8")
    visit.ask("attribute-roll", 0, "Smile 0.8, Roll (degrees) 0")  # where the slider starts
    visit.click("#leave-free")
    wait_until(lambda: "All are free" in visit.text("#requested"))
    assert not visit.see("#ask-smile input").is_selected() and not visit.see("#ask-roll input").is_selected()
    assert same(visit.make(4), plain)


def test_people_are_blended_alone_and_in_a_strip(visit: Visit) -> None:
    visit.click("#blend button")
    visit.click("#strip")
    wait_until(lambda: "no second person" in visit.text("#stage"))
    visit.pick(1, "second")
    visit.set("t", 0.25)
    quarter = visit.make(1)
    assert "75 % Sample person 1, 25 % Sample person 2" in visit.text("#stage")

    visit.click("#strip")
    wait_until(lambda: len(entries(visit)) == 6, "five pictures more")
    captions = [each.text.split(":")[0] for each in visit.browser.find_elements("css selector", "#stage figcaption")]
    assert captions == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    strip = [from_history(visit, number) for number in range(2, 7)]
    assert same(strip[1], quarter) and len({picture.tobytes() for picture in strip}) == 5

    visit.click("#second-remove")
    wait_until(lambda: "No person is chosen yet" in visit.text("#second-card"))
    assert same(visit.make(7), strip[0])


def test_four_seeds_are_four_pictures_in_a_row(visit: Visit) -> None:
    visit.set("seed", 7)
    one = visit.make(1)
    visit.click("#four")
    wait_until(lambda: len(entries(visit)) == 5, "four pictures more")
    captions = [each.text.split(":")[0] for each in visit.browser.find_elements("css selector", "#stage figcaption")]
    assert captions == ["Seed 7", "Seed 8", "Seed 9", "Seed 10"]
    pictures = []
    for number in range(2, 6):
        pictures.append(from_history(visit, number))
        assert visit.receipt()["seed"] == 5 + number
    assert same(pictures[0], one) and len({picture.tobytes() for picture in pictures}) == 4


def test_guidance_reaches_the_picture_and_its_downloaded_receipt(visit: Visit, tmp_path: Path) -> None:
    visit.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    plain = np.asarray(visit.make(1), np.float64)
    visit.set("guidance", 4.5)
    guided = visit.make(2)
    assert np.abs(np.asarray(guided, np.float64) - plain).mean() > 1.0
    visit.click("#download-receipt")
    file = wait_until(lambda: list(tmp_path.glob("*.json")), "the download")[0]
    receipt = json.loads(file.read_text())
    assert receipt["stages"]["base"]["options"]["guidance_scale"] == 4.5
    assert file.name == "id3pm-02-seed-1.json" and receipt == json.loads(guided.text["id3pm"])


def test_a_bundle_that_needs_all_attributes_works_when_one_is_touched(
    browser: Any, set_3_repository: Path, tmp_path: Path
) -> None:
    with serve_page(set_3_repository, tmp_path) as page:
        visit = Visit(browser, page)
        visit.pick(0)
        visit.quality("fast")
        visit.click("#attributes button")
        wait_until(lambda: "all are asked for as they stand here" in visit.text("#requested"))
        visit.click("#attributes-head-pose button")
        visit.set("attribute-yaw", 20)
        wait_until(lambda: "Yaw (degrees) 20. The others are asked for" in visit.text("#requested"))
        visit.make(1)
        shown = {"yaw": 20, "age": 30, "gender": 0.5, "bald": 0}
        assert asked(visit) == encode(shown, 3).tolist()
        visit.browser.get("about:blank")


def test_a_tab_that_is_loaded_anew_finds_its_pictures(visit: Visit) -> None:
    one = visit.make(1)
    visit.browser.refresh()
    visit.see("#history [data-pick='1']")
    visit.see("#details [data-again='1']")
    assert same(decoded(visit.see("#download-png").get_attribute("href")), one)


def test_a_number_out_of_range_is_refused_by_its_name(visit: Visit, page: Page) -> None:
    visit.set("seed", -5)
    visit.click("#make")
    wait_until(lambda: "-5 cannot be a seed" in visit.text("#stage"))
    assert "Traceback" not in page.log.read_text()


def test_pressing_make_shows_the_picture_on_a_phone(visit: Visit) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    visit.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visit.browser.execute_script("window.scrollTo(0, 0)")
        visit.make(1)

        def in_view() -> bool:
            box = "const box = document.querySelector('#stage').getBoundingClientRect();"
            return bool(visit.browser.execute_script(f"{box} return box.top >= 0 && box.bottom <= innerHeight"))

        wait_until(in_view, "the picture to be scrolled into view")
        assert visit.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        visit.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
