"""A headless Chromium that says what a page asked for and what went wrong in it.

    python -m pytest -m browser tests/browser

needs `pip install -e '.[browser]'` and Chromium (Debian: apt-get install chromium).
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page with what it asked for (but itself) and what it complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra `browser`")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium) -> Iterator[Any]:
    """opened(path, width=900, scheme="light"): the page of a file, loaded."""
    contexts = []

    def open_page(path: Path, width: int = 900, scheme: str = "light") -> Opened:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        found = Opened(context.new_page())
        own = path.resolve().as_uri()
        found.page.on("request", lambda r: found.requests.append(r.url) if r.url != own else None)
        found.page.on("console", lambda m: found.complaints.append(m.text) if m.type in ("error", "warning") else None)
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        found.page.goto(own)
        found.page.wait_for_load_state("networkidle")
        return found

    yield open_page
    for context in contexts:
        context.close()
