"""What the tests of the page do in it again and again, and what the service says of the same."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from browsing import PATIENCE_MS

if TYPE_CHECKING:
    from playwright.sync_api import JSHandle, Locator, Page

    from service import Service

ALL = {"threshold": "none", "limit": 50}
"""How the page asks for the first results, unless told otherwise."""


def ask(page: Page, service: Service, path: str, **query: Any) -> Any:
    """What the service answers, asked beside the page, with its cookies."""
    answer = page.request.get(f"{service.url}api/{path}", params=query)
    assert answer.ok, answer.text()
    return answer.json()


def until(read: Callable[[], Any], wanted: Any) -> None:
    """Waits until something reads as wanted."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while (last := read()) != wanted and time.monotonic() < deadline:
        pass
    assert last == wanted


def hits(page: Page) -> Locator:
    """The results that are shown, in order."""
    return page.get_by_role("list", name="Results").get_by_role("link")


def found(page: Page) -> list[str]:
    """The ids of the results that are shown, in order."""
    read = "links => links.map(link => new URL(link.href).searchParams.get('view'))"
    return hits(page).evaluate_all(read)


def expect_same(page: Page, service: Service, **query: Any) -> list[dict[str, Any]]:
    """Waits until the page shows what the service answers to a query; returns the hits."""
    if "upload" in query:
        page.wait_for_url(lambda url: "upload=" in url)  # it has been sent
    wanted = ask(page, service, "search", **{**ALL, **query})["hits"]
    assert wanted
    until(lambda: found(page), [hit["id"] for hit in wanted])
    return wanted


def transfer(page: Page, name: str, content: bytes, *, kind: str = "image/jpeg") -> JSHandle:
    """A file as the browser hands it over when it is dropped or pasted."""
    make = """([name, type, text]) => {
        const given = new DataTransfer();
        given.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
        return given;
    }"""
    return page.evaluate_handle(make, [name, kind, base64.b64encode(content).decode()])


def drop(page: Page, name: str, content: bytes, *, kind: str = "image/jpeg") -> None:
    """Drops a file onto the page."""
    given = transfer(page, name, content, kind=kind)
    page.get_by_role("main").dispatch_event("dragover", {"dataTransfer": given})
    page.get_by_role("main").dispatch_event("drop", {"dataTransfer": given})


def choose(page: Page, path: Path, button: str = "Choose a file") -> None:
    """Chooses a file with the dialog of the browser."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(path)


def noise(path: Path, *, seed: int = 0, size_px: int = 200) -> Path:
    """A picture of nothing."""
    values = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, quality=90)
    return path
