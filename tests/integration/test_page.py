"""The page in a real browser: previews, downloads, replays, error messages, and Stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.page_visit import ROOT, Page, Visit, decoded, serve_page, wait_until

# The first test waits for engines, which another process may be building.
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
DIFFERENT = 5.0  # grey levels; a picture that is made again differs by none


@pytest.fixture(scope="module")
def page(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serve_page(built, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def visit(browser: Any, page: Page) -> Visit:
    return Visit(browser, page)


def test_a_sample_person_becomes_a_picture_that_its_receipt_makes_again(visit: Visit, tmp_path: Path) -> None:
    visit.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visit.pick(2)
    visit.quality("fast")
    assert visit.steps() == "8"
    visit.set("steps", 60)  # a few may be over before a busy browser has drawn two
    visit.click("#make")
    large = visit.see("#details #download-png") and visit.see("#stage img.id-large")
    assert large.get_property("naturalWidth") == 256
    small = {src for src in visit.seen() if decoded(src).size == (64, 64)}
    assert len(small) >= 2, "the small picture was seen forming"
    assert "Likeness" in visit.text("#stage") and "mirror image" in visit.text("#stage")

    visit.click("#download-png")
    file = wait_until(lambda: [path for path in tmp_path.glob("*.png")], "the download")[0]
    with Image.open(file) as image:
        receipt = json.loads(image.text["id3pm"])
        assert image.size == (256, 256) and "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    assert receipt["seed"] == 1 and receipt["stages"]["base"]["options"]["steps"] == 60

    visit.click("#details [data-again]")
    visit.see("#details .id-good")
    assert "identical" in visit.text("#details .id-good")
    assert visit.browser.find_elements("css selector", "#history [data-pick]")

    loaded = visit.browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [url for url in loaded if not url.startswith((visit.page.url, "data:"))] == [], "nothing from elsewhere"


def test_photographs_are_judged_kindly_and_not_kept(visit: Visit, tmp_path: Path) -> None:
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "no_face.png")
    visit.drop(tmp_path / "no_face.png")
    visit.see("#first-message .id-notice")
    assert "There seems to be no face in this picture." in visit.text("#first-message")
    assert "Traceback" not in visit.browser.page_source and "No person is chosen yet" in visit.text("#first-card")

    visit.click("#make")
    wait_until(lambda: "No person is chosen yet" in visit.text("#stage"))

    visit.drop(ROOT / "demo/astronaut.jpg")
    wait_until(lambda: "Your photograph" in visit.text("#first-card"))
    assert "One face found" in visit.text("#first-card") and "little likeness" in visit.text("#first-card")
    assert "turned" not in visit.text("#first-card") and visit.text("#first-message") == ""
    wait_until(lambda: visit.page.files() == [], "photographs are deleted")


def test_stop_frees_the_server(visit: Visit) -> None:
    visit.pick(0)
    visit.quality("paper")
    visit.click("#make")
    wait_until(lambda: "step" in visit.text("#stage"))
    wait_until(lambda: visit.page.metrics("id3pm_active_rows") >= 1)
    done = visit.page.metrics("id3pm_images_total")
    visit.click("#stop")
    wait_until(lambda: "Stopped" in visit.text("#stage"))
    wait_until(lambda: visit.page.metrics("id3pm_active_rows") + visit.page.metrics("id3pm_waiting_rows") == 0, "", 10)
    assert visit.page.metrics("id3pm_images_total") == done
    assert visit.see("#make").is_displayed()

    visit.click("#make")
    wait_until(lambda: visit.page.metrics("id3pm_active_rows") >= 1)
    visit.browser.get("about:blank")  # leaving does the same
    wait_until(lambda: visit.page.metrics("id3pm_active_rows") + visit.page.metrics("id3pm_waiting_rows") == 0, "", 10)
    assert visit.page.metrics("id3pm_images_total") == done


def test_a_direction_of_the_face_space_changes_who_it_is(visit: Visit) -> None:
    visit.pick(0)
    visit.quality("fast")
    plain = np.asarray(visit.make(1), np.float64)
    visit.click("#space button")
    visit.set("move-smile", 4)
    visit.set("move-axis-1", -0.2)
    moved = np.asarray(visit.make(2), np.float64)
    assert "Sample person 1, moved" in visit.text("#stage")
    assert plain.shape == moved.shape == (256, 256, 3)
    assert np.abs(moved - plain).mean() > DIFFERENT, "the finished pictures of one seed"
