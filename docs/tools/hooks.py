"""Hooks of the site: pages that stand outside ``docs/``, what pages link to, equations without a script.

A page has one home. Those outside ``docs/`` (README.md, deploy/README.md, ...) come into the site as they are, under
their path in the repository, and so does each file that a page links to. So a link that is right in the repository is
right in the site, once ``docs/`` is taken out of it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from latex2mathml.converter import convert
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ICON = ("images/icon.svg", "src/coocnet/serve/static/icon.svg")
"""The site's, and where it comes from: the page of the service."""
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
"""The address of a link or a picture, without its anchor."""
EQUATION = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the navigation that stand elsewhere, and every file that a page links to."""
    for path in _named(config.nav):
        if files.get_file_from_path(path) is None and (ROOT / path).is_file():
            files.append(_added(path, config))
    files.append(File.generated(config, ICON[0], abs_src_path=str(ROOT / ICON[1])))
    for page in list(files.documentation_pages()):
        folder = posixpath.dirname(_in_repository(page.src_uri))
        for link in LINK.findall(CODE.sub("", page.content_string)):
            path = _in_site(posixpath.normpath(posixpath.join(folder, unquote(link))))
            if files.get_file_from_path(path) is None and (ROOT / path).is_file() and not path.endswith(".md"):
                files.append(_added(path, config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Writes links as they are in the site, and equations as MathML."""
    here = page.file.src_uri
    folder = posixpath.dirname(_in_repository(here))

    def moved(link: re.Match[str]) -> str:
        path = _in_site(posixpath.normpath(posixpath.join(folder, unquote(link[1]))))
        return posixpath.relpath(path, posixpath.dirname(here) or ".")

    parts, at = [], 0
    for code in CODE.finditer(markdown):  # what looks like a link in code is none
        parts += [LINK.sub(moved, markdown[at : code.start()]), code[0]]
        at = code.end()
    parts.append(LINK.sub(moved, markdown[at:]))
    return EQUATION.sub(_equation, "".join(parts))


def _equation(found: re.Match[str]) -> str:
    return f'<div class="equation" markdown="0">{convert(found[1].strip(), display="block")}</div>\n'


def _named(nav: object) -> list[str]:
    """Every path of the navigation."""
    if isinstance(nav, str):
        return [nav]
    below = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return [path for part in below for path in _named(part)]


def _added(path: str, config: MkDocsConfig) -> File:
    return File.generated(config, path, abs_src_path=str(ROOT / path))


def _in_repository(path: str) -> str:
    """Where a file of the site stands in the repository."""
    return path if not (ROOT / "docs" / path).is_file() else f"docs/{path}"


def _in_site(path: str) -> str:
    """Where a file of the repository stands in the site."""
    return path.removeprefix("docs/")
