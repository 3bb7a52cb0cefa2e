"""A visitor of the page, with a real browser: what the tests of the page share."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.common.exceptions import WebDriverException

from id3pm.sampling.presets import PRESETS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0  # other jobs may have the processor
# Collects the pictures that the stage has shown.
WATCH = """
window.seen = new Set();
const look = () => document.querySelectorAll('#stage img').forEach((img) => window.seen.add(img.src));
const all = {subtree: true, childList: true, attributes: true};
new MutationObserver(look).observe(document.querySelector('#stage'), all);
"""


class Page:
    """A running page with its service, by what they print."""

    def __init__(self, url: str, metrics_url: str, folder: Path, log: Path) -> None:
        self.log = log
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


@contextlib.contextmanager
def serve_page(repository: Path, folder: Path) -> Iterator[Page]:
    """The page, and a service on this model repository; `folder` is for what they leave."""
    program = [sys.executable, str(ROOT / "demo/page.py"), "--repository", str(repository), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    log = folder / "log"
    with (
        log.open("w") as printed,
        subprocess.Popen(program, stdout=printed, stderr=printed, env=environment, cwd=ROOT) as process,
    ):
        try:
            url, metrics_url = addresses(process, log)
            (uploads,) = folder.glob("id3pm-page-*")
            yield Page(url, metrics_url, uploads, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not uploads.exists()
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()


def addresses(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Of the page and of its service's metrics, as soon as it has printed them."""

    def found() -> tuple[str, str] | None:
        assert process.poll() is None, log.read_text()
        words = {line.partition(":")[0]: line.split() for line in log.read_text().splitlines()}
        return (words["page"][1], words["service"][-1]) if "page" in words else None

    return wait_until(found, "the page to start", 200)


class Visit:
    """A visitor before an open page."""

    def __init__(self, browser: Any, page: Page) -> None:
        self.browser = browser
        self.page = page
        before = browser.current_window_handle
        browser.switch_to.new_window("tab")  # a visit of its own: a tab keeps its pictures
        mine = browser.current_window_handle
        browser.switch_to.window(before)
        browser.close()
        browser.switch_to.window(mine)
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

    def pick(self, number: int, which: str = "first") -> None:
        """Chooses a sample person."""
        self.click(f"#{which}-samples [data-pick='{number}']")
        wait_until(lambda: f"Sample person {number + 1}" in self.text(f"#{which}-card"))

    def quality(self, name: str) -> None:
        """Chooses a preset; returns when the sliders have followed."""
        self.click(f"#quality input[value='{name}']")
        wait_until(lambda: self.steps() == str(PRESETS[name].base.steps), "the slider to follow the quality")

    def steps(self) -> str:
        return str(self.browser.find_element("css selector", "#steps input[type=number]").get_attribute("value"))

    def set(self, slider: str, value: float) -> None:
        field = self.see(f"#{slider} input[type=number]")
        wait_until(field.is_displayed, f"{slider} to be unfolded")
        field.clear()
        field.send_keys(f"{value}\t")

    def ask(self, slider: str, value: float, line: str) -> None:
        """Sets an attribute until the page's line of attributes has this part; while it is drawn, it may miss a key."""

        def follows() -> bool:
            self.set(slider, value)
            time.sleep(2.0)
            return line in self.text("#requested")

        wait_until(follows, f"{line!r} to be shown")

    def seen(self) -> list[str]:
        return list(self.browser.execute_script("return [...window.seen]"))

    def make(self, number: int) -> Image.Image:
        """Makes the picture that will be this one of the visit; the finished one, not a preview."""
        self.click("#make")
        self.see(f"#details [data-again='{number}']")
        return decoded(self.see("#download-png").get_attribute("href"))

    def receipt(self) -> dict[str, Any]:
        """Of the picture that is shown."""
        with urllib.request.urlopen(self.see("#download-receipt").get_attribute("href")) as data:
            receipt: dict[str, Any] = json.loads(data.read())
        return receipt


def wait_until(condition: Callable[[], Any], what: str = "", timeout_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def decoded(uri: str) -> Image.Image:
    with urllib.request.urlopen(uri) as data:
        return Image.open(io.BytesIO(data.read()))
