"""The page in a real browser: previews, downloads, replays, kind errors, and a Stop that reaches the server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

pytestmark = pytest.mark.server
ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0  # other jobs may have the processor
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1400",
)
# Collects the pictures that the stage has shown.
WATCH = """
window.seen = new Set();
const look = () => document.querySelectorAll('#stage img').forEach((img) => window.seen.add(img.src));
const all = {subtree: true, childList: true, attributes: true};
new MutationObserver(look).observe(document.querySelector('#stage'), all);
"""


class Page:
    """A running page with its service, by what they print."""

    def __init__(self, url: str, metrics_url: str, folder: Path) -> None:
        self.url = url
        self.metrics_url = metrics_url
        self.folder = folder

    def metrics(self, name: str) -> float:
        """Sum of a metric over the stages."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def files(self) -> list[Path]:
        """What lies in the page's temporary folder: nothing of a visitor should."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def page(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    program = [sys.executable, str(ROOT / "demo/page.py"), "--repository", str(built), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    log = folder / "log"
    with (
        log.open("w") as printed,
        subprocess.Popen(program, stdout=printed, stderr=printed, env=environment, cwd=ROOT) as process,
    ):
        try:
            url, metrics_url = addresses(process, log)
            (uploads,) = folder.glob("id3pm-page-*")
            yield Page(url, metrics_url, uploads)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not uploads.exists()
        finally:
            process.kill()


def addresses(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Of the page and of its service's metrics, as soon as it has printed them."""

    def found() -> tuple[str, str] | None:
        assert process.poll() is None, log.read_text()
        words = {line.partition(":")[0]: line.split() for line in log.read_text().splitlines()}
        return (words["page"][1], words["service"][-1]) if "page" in words else None

    return wait_until(found, "the page to start", 200)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        missing = "no browser to test the page in: apt-get install chromium chromium-driver"
        if os.environ.get("ID3PM_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


class Visit:
    """A visitor before an open page."""

    def __init__(self, browser: Any, page: Page) -> None:
        self.browser = browser
        self.page = page
        browser.get(page.url)
        self.see("#first-samples [data-pick]")
        wait_until(lambda: "ready" in self.text(".id-pill"))
        browser.execute_script(WATCH)

    def see(self, selector: str) -> Any:
        """The element, as soon as it is there."""
        return wait_until(lambda: self.browser.find_elements("css selector", selector), selector)[0]

    def text(self, selector: str) -> str:
        """What is to be read in an element; nothing where it is not there."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.browser.execute_script(script, selector)).strip()

    def click(self, selector: str) -> None:
        """Clicks as soon as nothing is in the way."""

        def clicked() -> bool:
            with contextlib.suppress(WebDriverException):
                self.browser.find_element("css selector", selector).click()
                return True
            return False

        wait_until(clicked, selector)

    def drop(self, path: Path) -> None:
        """Gives a file to the first person's field."""
        self.browser.find_element("css selector", "#first-drop input[type=file]").send_keys(str(path))

    def pick(self, number: int) -> None:
        """Chooses a sample person."""
        self.click(f"#first-samples [data-pick='{number}']")
        wait_until(lambda: f"Sample person {number + 1}" in self.text("#first-card"))

    def quality(self, name: str) -> None:
        self.click(f"#quality input[value='{name}']")

    def steps(self) -> str:
        return str(self.browser.find_element("css selector", "#steps input[type=number]").get_attribute("value"))

    def set(self, slider: str, value: float) -> None:
        field = self.see(f"#{slider} input[type=number]")
        field.clear()
        field.send_keys(f"{value}\t")

    def seen(self) -> list[str]:
        return list(self.browser.execute_script("return [...window.seen]"))


@pytest.fixture
def visit(browser: Any, page: Page) -> Visit:
    return Visit(browser, page)


def wait_until(condition: Callable[[], Any], what: str = "", timeout_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def test_a_sample_person_becomes_a_picture_that_its_receipt_makes_again(visit: Visit, tmp_path: Path) -> None:
    visit.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visit.pick(2)
    visit.quality("fast")
    wait_until(lambda: visit.steps() == "8", "the slider to follow the quality")
    visit.set("steps", 30)  # eight of them may be over before a browser has drawn two
    visit.click("#make")
    large = visit.see("#details #download-png") and visit.see("#stage img.id-large")
    assert large.get_property("naturalWidth") == 256
    small = {src for src in visit.seen() if decoded(src).size == (64, 64)}
    assert len(small) >= 2, "the small picture was seen forming"
    assert "Likeness" in visit.text("#stage") and "Strangers have" in visit.text("#stage")

    visit.click("#download-png")
    file = wait_until(lambda: [path for path in tmp_path.glob("*.png")], "the download")[0]
    with Image.open(file) as image:
        receipt = json.loads(image.text["id3pm"])
        assert image.size == (256, 256) and "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    assert receipt["seed"] == 1 and receipt["stages"]["base"]["options"]["steps"] == 30

    visit.click("#details [data-again]")
    visit.see("#details .id-good")
    assert "identical" in visit.text("#details .id-good")
    assert visit.browser.find_elements("css selector", "#history [data-pick]")

    loaded = visit.browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [url for url in loaded if not url.startswith((visit.page.url, "data:"))] == [], "nothing from elsewhere"


def test_photographs_are_judged_kindly_and_not_kept(visit: Visit, tmp_path: Path) -> None:
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "nobody.png")
    visit.drop(tmp_path / "nobody.png")
    visit.see("#first-message .id-notice")
    assert "There seems to be no face in this picture." in visit.text("#first-message")
    assert "Traceback" not in visit.browser.page_source and "Nobody is chosen yet" in visit.text("#first-card")

    visit.click("#make")
    wait_until(lambda: "Nobody is chosen yet" in visit.text("#stage"))

    visit.drop(ROOT / "demo/astronaut.jpg")
    wait_until(lambda: "Your photograph" in visit.text("#first-card"))
    assert "One face found" in visit.text("#first-card") and visit.text("#first-message") == ""
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
    visit.click("#make")
    plain = visit.see("#stage img.id-large").get_attribute("src")
    visit.click("#space button")
    visit.set("move-smile", 4)
    visit.set("move-axis-1", -0.2)
    visit.click("#make")
    wait_until(lambda: "Sample person 1, moved" in visit.text("#stage"))
    moved = wait_until(lambda: visit.browser.find_elements("css selector", "#stage img.id-large"))[0]
    assert moved.get_attribute("src") != plain


def decoded(uri: str) -> Image.Image:
    with urllib.request.urlopen(uri) as data:
        return Image.open(io.BytesIO(data.read()))
