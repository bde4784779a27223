"""The browser that tests of pages share."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def browser():
    """Chromium; without it, tests that need it are skipped, but never where CI is set."""
    if not os.environ.get("CI"):
        pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        reason = "needs Chromium: install the package chromium, or set CHROMIUM to its path"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, and what went wrong on it."""

    def __init__(self, context):
        self.page = context.new_page()
        self.problems = []
        self.requests = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(message.text)


@pytest.fixture
def visit(browser):
    """Open addresses in pages of their own; at the end, none may have had a problem."""
    visits, contexts = [], []

    def open_page(url, **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        )
        visits.append(Visit(contexts[-1]))
        visits[-1].page.goto(url)
        return visits[-1]

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for each in visits for problem in each.problems] == []
