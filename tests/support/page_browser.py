"""Chromium without a window, as Debian packages it, and what tests of the page do with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_SECONDS = 120
"""A busy machine is slow; nothing is measured here."""


def why_not() -> str | None:
    """Return why no browser can be driven, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "needs selenium: pip install '.[app-test]'"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)}: apt-get install chromium chromium-driver" if missing else None


@contextmanager
def browser(*, width: int = 1360, height: int = 960, dark: bool = False, scale: int = 1) -> Iterator[Browser]:
    """Start Chromium; it is ended with the block."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # CI is root in a container
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """A window with the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Open the page, and wait until it can be used."""
        self.driver.get(address)
        self.wait_for("#examples button, #picture input[type=file]")
        self.wait_for("#picture input[type=file]")

    def all(self, css: str) -> list[Any]:
        """Return the elements of a selector."""
        return list(self.driver.find_elements("css selector", css))

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, WAIT_SECONDS, 0.1, [StaleElementReferenceException])
        return waiting.until(lambda _: condition(), f"waited for {what}")

    def wait_for(self, css: str, count: int = 1) -> list[Any]:
        """Wait until there are so many elements of a selector; return them."""
        self.wait(lambda: len(self.all(css)) >= count, f"{count} {css}")
        return self.all(css)

    def upload(self, path: Path) -> None:
        """Choose a file as the query picture, as one does in the window that opens."""
        self.all("#picture input[type=file]")[0].send_keys(str(path))

    def paste_image(self, name: str) -> None:
        """Paste a drawn picture, as with Ctrl+V."""
        self.driver.execute_script(
            """const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 64;
            canvas.getContext('2d').fillRect(10, 10, 30, 30);
            canvas.toBlob(blob => {
              const clipboardData = new DataTransfer();
              clipboardData.items.add(new File([blob], arguments[0], {type: 'image/png'}));
              document.body.dispatchEvent(
                new ClipboardEvent('paste', {clipboardData, bubbles: true, cancelable: true}));
            });""",
            name,
        )

    def has_picture(self) -> str:
        """Return the address of the query picture that is shown, or an empty text."""
        shown = self.all("#picture img")
        return str(shown[0].get_attribute("src")) if shown else ""

    def type_words(self, words: str, *, into: str = "#words") -> None:
        """Type into a box what is to stand there."""
        from selenium.webdriver.common.keys import Keys

        box = self.all(f"{into} textarea, {into} input")[0]
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE)
        box.send_keys(words)

    def click(self, css: str, place: int = 0) -> None:
        """Click on an element, wherever it is on the page."""
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()",
            self.wait_for(css, place + 1)[place],
        )

    def tab(self, name: str) -> None:
        """Show a tab."""
        self.wait(lambda: [tab for tab in self.all("button[role=tab]") if tab.text == name], f"tab {name}")
        next(tab for tab in self.all("button[role=tab]") if tab.text == name).click()

    def unfold(self, name: str) -> None:
        """Open a part that is folded."""
        for label in self.all("button.label-wrap"):
            if (
                label.text.strip().startswith(name)
                and "open" not in str(label.get_attribute("class")).split()
            ):
                self.driver.execute_script("arguments[0].click()", label)

    def files(self, name: str, within: str = "#lists") -> list[str]:
        """Return the files of the cards of a list."""
        cards = self.all(f"{within} .ir-list[data-list={name}] .ir-card")
        return [str(card.get_attribute("data-file")) for card in cards]

    def search(self, *, reranked: bool = True) -> None:
        """Click on "Search", and wait until other lists are there than before."""
        before = self.lists()
        self.click("button#search")
        self.wait_for_other_lists(before, reranked=reranked)

    def lists(self) -> tuple[list[str], list[str]]:
        """Return the files of both lists."""
        return self.files("retrieved"), self.files("reranked")

    def wait_for_other_lists(self, before: tuple[list[str], list[str]], *, reranked: bool = True) -> None:
        """Wait until other lists are there, both of them or the one."""
        self.wait(
            lambda: (now := self.lists()) != before and now[0] and (now[1] or not reranked), "other lists"
        )

    def message(self) -> str:
        """Wait for a message, and return it."""
        self.wait_for("#message .ir-message")
        return str(self.all("#message .ir-message")[0].text)

    def fetched(self) -> list[str]:
        """Return the addresses of all that the page has loaded."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return list(self.driver.execute_script(script))
