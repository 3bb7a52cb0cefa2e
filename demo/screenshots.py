"""The pictures of the page in the documentation, by a headless Chromium: `web.png` and `web_forming.png`.

    python demo/page.py --repository build/attributes
    python demo/screenshots.py                # to out/web; --out docs replaces those of the documentation

Needs Chromium, its driver and `pip install -e ".[dev]"`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.support.wait import WebDriverWait

from id3pm.evaluation.figures.table import copy_small

WAIT_S = 120.0
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
    "--hide-scrollbars",
)
PERSON = 7  # a sample person, from 0
SHOWN: tuple[dict[str, float], ...] = (
    {"attribute-yaw": -25},
    {"attribute-yaw": 25},
    {"attribute-smile": 0.9},
    {"move-hair_brightness": 2},
)
"""What is moved before each further picture."""
FORMED = 0.15  # of the steps, when a face is taken that is forming


@contextlib.contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 1400) -> Iterator[Any]:
    """A headless browser.

    Args:
        profile: An empty folder for what it keeps.
        width: Of its window, in pixels.
        height: Of its window.

    Raises:
        FileNotFoundError: There is no Chromium, or no driver for it.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        raise FileNotFoundError("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


class PageDriver:
    """Operates the page in a browser.

    Args:
        browser: Shows it.
        url: Of the page.
    """

    def __init__(self, browser: Any, url: str) -> None:
        self._browser = browser
        self._wait = WebDriverWait(browser, WAIT_S, ignored_exceptions=[WebDriverException])
        browser.get(url)
        self.see(".id-ready")

    def see(self, selector: str) -> Any:
        """The element, as soon as it is there."""
        return self._wait.until(lambda browser: browser.find_element("css selector", selector), selector)

    def click(self, selector: str) -> None:
        """Clicks as soon as nothing is in the way."""
        self._wait.until(lambda browser: browser.find_element("css selector", selector).click() or True, selector)

    def pick(self, person: int) -> None:
        """Chooses a sample person, from 0."""
        self.click(f"#first-samples [data-pick='{person}']")
        self.see(f"#first-samples [data-pick='{person}'][aria-pressed='true']")

    def move(self, sliders: Mapping[str, float]) -> None:
        """Sets the sliders with these ids."""
        for name, value in sliders.items():
            field = self.see(f"#{name} input[type=number]")
            field.clear()
            field.send_keys(f"{value}\t")

    def make(self, number: int) -> None:
        """Makes the picture that will be this one of the visit, and returns when it is there."""
        self.click("#make")
        self.see(f"#details [data-again='{number}']")

    def forming(self, file: Path) -> None:
        """A face on its way, with the settings of the paper, which take longest."""
        self.pick(PERSON)
        self.click("#quality input[value='paper']")
        self.see("#quality input[value='paper']:checked")
        self.click("#make")
        self._wait.until(lambda browser: self._done() > FORMED, "a picture that is forming")
        self.picture(file, whole=False)
        self.click("#stop")
        self.see("#make")

    def all_open(self, file: Path) -> None:
        """Attributes and directions open, after a few pictures."""
        self.click("#quality input[value='balanced']")
        self.pick(PERSON)
        self.make(1)
        self.click("#space button")
        self.click("#attributes button")
        for number, sliders in enumerate(SHOWN, start=2):
            self.move(sliders)
            self.make(number)
        self.click("#details [data-again]")
        self.see("#details .id-good")
        self.click("#details summary")  # the receipt
        self.picture(file, whole=True)

    def _done(self) -> float:
        """Share of the 64 px steps that are made."""
        said = self._browser.find_element("css selector", "#stage").text
        found = re.search(r"64 px: step (\d+) of (\d+)", said)
        return int(found[1]) / int(found[2]) if found else 0.0

    def picture(self, file: Path, *, whole: bool) -> None:
        """Saves what is to be seen, marked as generated; both columns instead of the window if `whole`."""
        if whole:
            bottom = "document.querySelector('.id-columns').getBoundingClientRect().bottom + window.scrollY"
            width, height = self._browser.execute_script(f"return [window.innerWidth, Math.ceil({bottom}) + 20]")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self._browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            self._wait.until(lambda browser: browser.execute_script("return window.innerHeight") == height)
        self._browser.execute_script("window.scrollTo(0, 0)")
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / file.name
            raw.write_bytes(self._browser.get_screenshot_as_png())
            copy_small(raw, file.parent)


@click.command()
@click.option("--page", default="http://127.0.0.1:7860", show_default=True, help="Address of a page that runs.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/web"), show_default=True)
@click.option("--width", type=click.IntRange(800), default=1440, show_default=True, help="Of the window, in pixels.")
def main(page: str, out: Path, width: int) -> None:
    """Take the pictures: attributes and directions at work, and a face that is forming."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), width, 1000) as browser:
        driver = PageDriver(browser, page)
        driver.forming(out / "web_forming.png")
        driver.all_open(out / "web.png")
    click.echo(out)


if __name__ == "__main__":
    main()
