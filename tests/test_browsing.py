"""What the tests of the page rely on: nothing that a page complains of goes by unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
GOOD = "<!doctype html><html lang=en><title>A page</title><link rel=icon href=data:,><main><h1>A page</h1>{}</main>"


def _show(page: Page, body: str, *, script: str = "") -> None:
    """Shows a page under a strict policy, with a script of its own and nothing else on its server."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix("http://127.0.0.1/")
        if path == "":
            html = GOOD.format(body) + "<script src=/page.js></script>"
            route.fulfill(body=html, content_type="text/html", headers={"Content-Security-Policy": STRICT})
        elif path == "page.js":
            route.fulfill(body=script, content_type="text/javascript")
        elif path == "unreachable":
            route.abort("connectionreset")
        else:
            route.fulfill(status=404)

    page.route("**/*", answer)
    page.goto("http://127.0.0.1/", wait_until="networkidle")


@pytest.mark.parametrize(
    ("body", "script", "complaint"),
    [
        ("", "throw new Error('oops')", "oops"),
        ("", "Promise.reject(new Error('later'))", "later"),
        ("", "fetch('/unreachable').catch(() => {})", "failed: GET http://127.0.0.1/unreachable"),
        ("<script>1</script>", "", "Content Security Policy"),
        ("<p style='color: red'>x</p>", "", "Content Security Policy"),
        ("<img src=/none.png alt=none>", "", "status of 404"),
    ],
)
def test_what_goes_wrong_in_a_page_is_heard(page, complaints, body: str, script: str, complaint: str) -> None:
    complaints.allow(complaint)
    complaints.allow("ERR_CONNECTION_RESET")
    _show(page, body, script=script)
    assert any(complaint in text for text in complaints.texts)
    assert not complaints.unexpected()


def test_a_request_that_the_page_gives_up_is_no_complaint(page, complaints) -> None:
    _show(page, "", script="const c = new AbortController(); fetch('/x', c).catch(() => {}); c.abort()")
    assert not complaints.texts


def test_what_somebody_cannot_use_is_told(page) -> None:
    from browsing import axe

    _show(page, "<button>Go</button>")
    assert axe(page) == ""
    _show(page, "<button></button><p>Below</p>")
    assert "Buttons must have discernible text" in axe(page)
    assert axe(page, within="p") == ""
