"""The docstrings of the package as Markdown: roles become links where they lead somewhere, ``::`` becomes a colon."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from griffe import AliasResolutionError, Extension, NameResolutionError

if TYPE_CHECKING:
    from griffe import Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")
LITERAL = re.compile(r"^(.*?)[ \t]*::$", re.MULTILINE)


class AsMarkdown(Extension):
    """Rewrites every docstring once the package is read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrites the docstring of one class, function, module or attribute."""
        if obj.docstring is None:
            return
        text = obj.docstring.value

        def linked(role: re.Match[str]) -> str:
            try:
                path = obj.resolve(role[1]) if not role[1].startswith("coocnet.") else role[1]
            except (NameResolutionError, AliasResolutionError):
                return f"`{role[1]}`"
            return f'<autoref identifier="{escape(path)}" optional><code>{escape(role[1])}</code></autoref>'

        text = ROLE.sub(linked, text)
        text = LITERAL.sub(lambda found: f"{found[1]}:" if found[1].strip() else "", text)
        obj.docstring.value = text.replace("``", "`")
