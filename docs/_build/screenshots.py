"""Draw the pictures of the README that show programs: fit sample photographs, serve them, and photograph the page.

    python docs/_build/screenshots.py

It requires Chromium, and the package playwright. `saccade demo` draws ``demo.png``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
SACCADE = [sys.executable, "-m", "saccade"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    """Write ``serve.png``."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        desk = Path(folder)
        subprocess.run([*SACCADE, "sample-data", str(desk / "photos")], check=True)
        fit = ["fit", str(desk / "photos"), "--time-limit", "30", "--out", str(desk / "run")]
        subprocess.run([*SACCADE, *fit], check=True)
        one_of_each = [sorted(kind.glob("*.jpg"))[0] for kind in sorted((desk / "photos").iterdir())]
        serve = [*SACCADE, "serve", str(desk / "run"), "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the server has not started"
            try:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                photograph_page(browser, found[0], one_of_each)
                browser.close()
            finally:
                server.terminate()


def photograph_page(browser: Browser, url: str, photos: list[Path]) -> None:
    """Classify and explain photographs on the page of a server, and save a picture of it."""
    page = browser.new_page(viewport={"width": 1180, "height": 400})
    page.goto(url)
    page.locator("#files").set_input_files(photos)
    page.locator(".verdict").nth(len(photos) - 1).wait_for()
    for _ in photos:
        page.get_by_role("button", name="Explain", exact=False).first.click()
        page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / "serve.png", full_page=True)


if __name__ == "__main__":
    main()
