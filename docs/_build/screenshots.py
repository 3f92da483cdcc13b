"""Draw the pictures of README and docs that show programs, from real runs on sample photographs and on digits.

    python docs/_build/screenshots.py [serve] [report] [recording]

It requires Chromium, and the package playwright. Without arguments all are drawn: the server's page (``serve.png``), a
report and some of its parts (``report*.png``), and a recording of ``saccade fit`` (``fit.svg``). `saccade demo` draws
``demo.png``.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from saccade import ImagePredictor
from saccade.apps.demo import write_digits
from saccade.events import RunStarted
from saccade.report.tables import print_trials
from saccade.study.display.frame import frame
from saccade.study.display.progress import ProgressDisplay
from saccade.study.display.state import RunState
from saccade.study.event_log import EventLog

IMAGES = Path(__file__).parents[1] / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PHOTOS = "fit photos --time-limit 1m --model tf_efficientnet_lite0,tf_efficientnet_lite1 --lr 1e-4:1e-2:log --out run"
DIGITS = (
    "fit digits/train --model test_resnet,resnet10t --lr 1e-4:3e-2:log --num-trials 16 --time-limit 5m "
    "--set pretrained=False --set img_size=32 --set epochs=6 --set batch_size=32 --set hflip=0 "
    "--set label_smoothing=0:0.2 --out digits-run"
)
"""A search with mistakes and differences to show."""

COLUMNS = 118  # of the recorded terminal
SECONDS_A_FRAME, SHOWN_S, LAST_SHOWN_S = 4.0, 0.8, 6.0  # of the run, and how long a frame and the last one are shown
PARTS = ("curves", "confusion", "mistakes")  # sections of the report that docs/report.md shows


def main() -> None:
    """Write the pictures that the arguments name."""
    wanted = sys.argv[1:] or ["serve", "report", "recording"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        desk = Path(folder)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if "recording" in wanted or "serve" in wanted:
            run_command(desk, "sample-data photos --num-images 120")
            run_command(desk, PHOTOS)
        if "recording" in wanted:
            (IMAGES / "fit.svg").write_text(recording(desk / "run", f"saccade {PHOTOS}"), encoding="utf-8")
        if "serve" in wanted:
            photograph_server(browser, desk)
        if "report" in wanted:
            write_digits(desk / "digits", 1400)
            run_command(desk, DIGITS)
            run_command(desk, "report digits-run")
            photograph_report(browser, desk / "digits-run" / "report.html")
        browser.close()


def run_command(desk: Path, arguments: str) -> None:
    """Run ``saccade`` in a folder."""
    subprocess.run([sys.executable, "-m", "saccade", *arguments.split()], check=True, cwd=desk)


def photograph_report(browser: Browser, report: Path) -> None:
    """Save pictures of the beginning of a report, and of some of its sections."""
    page = browser.new_page(viewport={"width": 1180, "height": 1300})
    shown = report.with_name("shown.html")  # without the path of a temporary folder
    text = report.read_text(encoding="utf-8").replace(str(report.parents[1]), "~")
    shown.write_text(text, encoding="utf-8")
    page.goto(shown.as_uri())
    page.screenshot(path=IMAGES / "report.png")
    page.set_viewport_size({"width": 760, "height": 900})
    for name in PARTS:
        page.locator(f"#{name}").screenshot(path=IMAGES / f"report-{name}.png")


def photograph_server(browser: Browser, desk: Path) -> None:
    """Classify and explain photographs on the page of a server, and save a picture of it."""
    photos = [sorted(kind.glob("*.jpg"))[0] for kind in sorted((desk / "photos").iterdir())]
    serve = [sys.executable, "-m", "saccade", "serve", str(desk / "run"), "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server has not started"
        try:
            page = browser.new_page(viewport={"width": 1180, "height": 400})
            page.goto(found[0])
            page.locator("#files").set_input_files(photos)
            page.locator(".verdict").nth(len(photos) - 1).wait_for()
            for _ in photos:
                page.get_by_role("button", name="Explain", exact=False).first.click()
                page.wait_for_timeout(2000)
            page.screenshot(path=IMAGES / "serve.png", full_page=True)
        finally:
            server.terminate()


def recording(run: Path, command: str) -> str:
    """Return an SVG that shows the terminal of a fit over time, from its events and by the code of its display."""
    timed = [(event, clock_s) for event, clock_s, _ in EventLog(run / "events.jsonl", as_text=True).timed()]
    timed = [(replace(event, folder="run") if isinstance(event, RunStarted) else event, at_s) for event, at_s in timed]
    start_s, end_s = timed[0][1], timed[-1][1]
    num_frames = int((end_s - start_s) / SECONDS_A_FRAME)
    consoles = []
    for until_s in (*(start_s + SECONDS_A_FRAME * number for number in range(num_frames + 1)), None):
        console = Console(file=io.StringIO(), record=True, force_terminal=True, width=COLUMNS, highlight=False)
        console.print(f"[bold]$[/bold] {command}")
        now_s = [start_s]
        display = ProgressDisplay(2, "", console, RunState(clock=lambda now_s=now_s: now_s[0]))
        display._screen = None  # lines only
        for event, clock_s in timed:
            if until_s is None or clock_s <= until_s:
                now_s[0] = clock_s
                display(event)
        if until_s is None:
            predictor = ImagePredictor.load(run, verbosity=0)
            print_trials(console, predictor.leaderboard())
        else:
            now_s[0] = until_s
            for line in frame(display.state, COLUMNS):
                console.print(line)
        consoles.append(console)
    return animated(consoles)


def animated(consoles: list[Console]) -> str:
    """Return the recorded consoles as one SVG that shows them one after another; the last one without animation."""
    texts = [console.export_text(clear=False, styles=False).rstrip("\n") for console in consoles]
    num_lines = max(text.count("\n") + 1 for text in texts)
    frames = []
    for number, (console, text) in enumerate(zip(consoles, texts, strict=True)):
        for _ in range(num_lines - text.count("\n") - 1):
            console.print()
        svg = console.export_svg(title="saccade fit", unique_id=f"t{number}")
        frames.append(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))
    total_s = SHOWN_S * (len(frames) - 1) + LAST_SHOWN_S
    style = []
    for number in range(len(frames)):
        first = 100 * SHOWN_S * number / total_s
        last = 100 if number == len(frames) - 1 else 100 * SHOWN_S * (number + 1) / total_s
        hidden, shown = "visibility: hidden", "visibility: visible"
        ends = f"{last:.2f}%, 100% {{ {hidden} }}" if last < 100 else f"100% {{ {shown} }}"
        style.append(
            f"@keyframes k{number} {{ 0% {{ {shown if number == 0 else hidden} }} {first:.2f}% {{ {shown} }} {ends} }}"
            f"#f{number} {{ visibility: {'visible' if number == len(frames) - 1 else 'hidden'}; "
            f"animation: k{number} {total_s}s step-end infinite; }}"
        )
    style.append("@media (prefers-reduced-motion: reduce) { g { animation: none !important; } }")
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', frames[-1])
    assert found
    shown = "".join(f'<g id="f{number}">{svg}</g>' for number, svg in enumerate(frames))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {found[1]} {found[2]}" width="{found[1]}">'
    return f"{head}<title>A terminal with saccade fit</title><style>{''.join(style)}</style>{shown}</svg>\n"


if __name__ == "__main__":
    main()
