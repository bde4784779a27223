"""Make the pictures of docs/answer.md, docs/explain.md, docs/explore.md and the README.

Needs Chromium and the package playwright: ``python docs/pictures/make.py``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

import fullback as fb
from fullback.explorer.launch import explorer

HERE = Path(__file__).parent
PARTS = {  # the cells whose windows docs/answer.md shows
    "answer-pool": "d:relu2/0,5,10",
    "answer-filter": "g:conv2.weight/0,0,0,0",
    "answer-full": "d:pool1/0,6,9",
}


def main() -> None:
    """Write the pictures beside this file."""
    net = fb.load(HERE.parent.parent / "examples" / "question.safetensors")
    data = fb.load_data("digits")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        fb.explain(net, data.x_test[108], data.y_test[108], path, title="A 9 taken for an 8")
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = open_report(browser, path, "light", 560, width=1880)  # all of it side by side
        page.locator(".picture").screenshot(path=HERE / "answer.png")
        for name, cell in PARTS.items():
            page = open_report(browser, path, "light", 900, f"#cell={cell}", width=980)
            page.locator(".panel .equation").screenshot(path=HERE / f"{name}.png")
        for scheme in ("light", "dark"):
            page = open_report(browser, path, scheme, 900, "#step=19&cell=d:pool1/0,6,9")
            page.screenshot(path=HERE / f"explain-{scheme}.png")
        explore(browser, net, data)
        browser.close()


def explore(browser: Browser, net: fb.Network, data: fb.Dataset) -> None:
    """Make the pictures of the explorer: a drawn digit, and the lab."""
    with explorer(net, data, name="question", port=0) as server:
        page = open_explorer(browser, server.address, "light", 900)
        page.click("#reset")
        page.click("#train")
        page.wait_for_selector("text=Done, 20 epochs")
        page.click("#fold-training")
        page.click("#clear")
        draw(page, [(0.3, 0.22), (0.7, 0.22), (0.45, 0.8)])
        page.evaluate("fullback.view.select({ array: 'g:conv1.weight', index: [0, 0, 1, 1] })")
        page.wait_for_timeout(500)
        page.screenshot(path=HERE / "explore-light.png")
        page = open_explorer(browser, server.address, "dark", 900)
        page.click("#tab-lab")
        page.select_option("#mistake", "relu-mask-missing")
        page.wait_for_selector("#checks li")
        page.wait_for_selector("#lab-view[data-state=done]", timeout=120_000)
        page.click("#controls")
        page.wait_for_timeout(500)
        page.screenshot(path=HERE / "explore-lab.png")


def open_explorer(browser: Browser, address: str, scheme: str, height: int) -> Page:
    """Return a page of the explorer."""
    page = browser.new_page(viewport={"width": 1400, "height": height}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def draw(page: Page, places: list[tuple[float, float]]) -> None:
    """Draw a line on the pad, through places that are shares of its sides."""
    box = page.locator("#pad").bounding_box()
    for n, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=9)
        if not n:
            page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(500)


def open_report(
    browser: Browser, path: Path, scheme: str, height: int, place: str = "", width: int = 1400
) -> Page:
    """Return a page that shows the report at a place."""
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(f"{path.as_uri()}{place}")
    page.wait_for_function("window.fullback !== undefined")
    page.wait_for_timeout(300)
    return page


if __name__ == "__main__":
    main()
