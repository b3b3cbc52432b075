"""A document of headings, paragraphs, tables and pictures, as Markdown and as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coocnet.errors import printable
from coocnet.output import written_whole

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1c1e24; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums;
        display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #d5d8de; padding: .3rem .7rem; text-align: left; white-space: nowrap; }
td:last-child { white-space: normal; }
img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e7ea; background: #16181d; }
  th, td { border-color: #3a3e47; }
}
"""


@dataclass(frozen=True)
class Part:
    """A heading, paragraphs, rows of a table with their head first, and a picture; each may be empty."""

    heading: str
    level: int = 2
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    picture: str = ""


def write_document(parts: Sequence[Part], folder: Path, name: str) -> None:
    """Writes ``NAME.md`` and ``NAME.html`` beside the pictures that they show.

    Raises:
        InputError: they cannot be written.
    """
    for ending, text in ((".md", _markdown(parts)), (".html", _page(parts))):
        with written_whole(folder / f"{name}{ending}") as unfinished:
            Path(unfinished).write_text(text, encoding="utf-8")


def _markdown(parts: Sequence[Part]) -> str:
    lines: list[str] = []
    for part in parts:
        lines += [f"{'#' * part.level} {printable(part.heading)}", ""]
        for paragraph in part.paragraphs:
            lines += [printable(paragraph), ""]
        if part.rows:
            head, *rest = part.rows
            lines += [_line(head), _line(["---"] * len(head)), *map(_line, rest), ""]
        if part.picture:
            lines += [f"![{printable(part.heading)}]({part.picture})", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"


def _page(parts: Sequence[Part]) -> str:
    body: list[str] = []
    for part in parts:
        body.append(f"<h{part.level}>{_text(part.heading)}</h{part.level}>")
        body += [f"<p>{_text(paragraph)}</p>" for paragraph in part.paragraphs]
        if part.rows:
            head, *rest = part.rows
            body.append("<table><thead><tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr></thead>")
            body += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rest]
            body.append("</table>")
        if part.picture:
            body.append(f'<p><img src="{_text(part.picture)}" alt="{_text(part.heading)}"></p>')
    title = _text(parts[0].heading)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(printable(text))
