"""A real browser for the tests of the page, and what they ask of every page."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
PATIENCE_MS = 90_000


def chromium() -> str | None:
    """Where Chromium is on this machine, if anywhere."""
    names = (os.environ.get("COOCNET_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts Chromium. Where there is none, the test is skipped, or fails if COOCNET_BROWSER says "required"."""
    place = chromium()
    if place is None:
        missing = "no Chromium on this machine: put it on the PATH, or name it in COOCNET_CHROMIUM"
        if os.environ.get("COOCNET_BROWSER") == "required":
            pytest.fail(f"{missing} (COOCNET_BROWSER says that it is required)", pytrace=False)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


class Complaints:
    """What a page complained of: errors in its scripts, refused content, requests that failed.

    A request that the page itself gave up is none. An answer of 400 or more is one, unless the test allows it.
    """

    def __init__(self, page: Page) -> None:
        self.texts: list[str] = []
        self._allowed: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.texts.append(f"not caught: {error}"))
        page.on("requestfailed", self._failed)

    def allow(self, pattern: str) -> None:
        """Complaints that a regular expression finds itself in are what the test is about."""
        self._allowed.append(pattern)

    def unexpected(self) -> list[str]:
        return [text for text in self.texts if not any(re.search(pattern, text) for pattern in self._allowed)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.texts.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":
            self.texts.append(f"failed: {request.method} {request.url}: {request.failure}")


def axe(page: Page, *, within: str | None = None) -> str:
    """What a page lacks of WCAG 2.2 AA and of good practice, as text; empty if nothing.

    Args:
        page: in the state to be looked at.
        within: a CSS selector of the part to be looked at, if not the whole page.
    """
    found = Axe().run(page, context=within, options={"runOnly": {"type": "tag", "values": STANDARDS}}).response
    lines = []
    for violation in found["violations"]:
        lines.append(f"{violation['id']} ({violation['impact']}): {violation['help']}; {violation['helpUrl']}")
        for node in violation["nodes"]:
            reasons = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
            lines.append(f"  {node['html'][:200]}\n    " + "\n    ".join(reasons))
    return "\n".join(lines)


def picture_of(page: Page, folder: Path) -> str:
    """Keeps what a page looked like and its markup, and with COOCNET_TRACE set how it came to that; says where."""
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / "page.png", full_page=True)
    (folder / "page.html").write_text(page.content())
    if not os.environ.get("COOCNET_TRACE"):
        return f"the page is in {folder}: page.png, page.html; with COOCNET_TRACE=1 also how it came to that"
    page.context.tracing.stop(path=folder / "trace.zip")
    return f"the page is in {folder}: page.png, page.html, trace.zip (playwright show-trace trace.zip)"
