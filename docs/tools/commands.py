"""Writes docs/commands.md, the help of every command, from the commands themselves.

    python docs/tools/commands.py            # writes it
    python docs/tools/commands.py --check    # says whether it is as it should be

Needs coocnet[dev].
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from coocnet.cli import app
from coocnet.cli.app import PANELS

Command = Any
"""A command or a parameter of typer's, whose kinds have no public names."""
PAGE = Path(__file__).resolve().parents[1] / "commands.md"
HEAD = """\
# Commands

Written by `python docs/tools/commands.py` from the commands themselves, which say the same: `coocnet COMMAND --help`.

Every command ends with status 0 when it went well; 1 for what can be mended, with a message that says how; 2 for
commands, options or arguments that are missing or that it does not know; 130 when it was interrupted.
`COOCNET_INDEX`, `COOCNET_WEIGHTS` and `COOCNET_DATA` in the environment name the index, the folder of weights and the
folder of benchmarks.
"""


def page() -> str:
    """The whole page."""
    commands = get_command(app).commands  # type: ignore[attr-defined] # a group has them
    parts = [HEAD]
    for panel, names in PANELS.items():
        rows = [f"| [`coocnet {name}`](#coocnet-{name}) | {_first(commands[name])} |" for name in names]
        parts.append("\n".join([f"| {panel} | |", "|---|---|", *rows]) + "\n")
    listed = [name for names in PANELS.values() for name in names]
    parts += [part for name in listed for part in _described(f"coocnet {name}", commands[name])]
    return "\n".join(parts)


def _described(name: str, command: Command) -> Iterator[str]:
    """One command and those below it."""
    yield f"## {name}\n" if name.count(" ") == 1 else f"### {name}\n"
    yield _text(command.help) + "\n"
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    below = getattr(command, "commands", {})
    usage = [name, "[OPTIONS]", *(_usage(argument) for argument in arguments), *(["COMMAND"] if below else [])]
    yield "```text\n" + " ".join(usage) + "\n```\n"
    examples = list(_examples(command.epilog or ""))
    if examples:
        yield "<!-- not run: an example of the help -->\n```sh\n" + "\n".join(examples) + "\n```\n"
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield "\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n"
    for short, deeper in below.items():
        yield from _described(f"{name} {short}", deeper)


def _first(command: Command) -> str:
    """The first sentence of a command's help, without what follows a colon."""
    return re.split(r"(?<=\.)\s|\n\n", _text(command.help))[0]


def _text(text: str) -> str:
    """Help as paragraphs of one line each."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _usage(argument: Command) -> str:
    many = "..." if argument.nargs == -1 and not _metavar(argument).endswith(("...", "…")) else ""
    return f"{_metavar(argument)}{many}" if argument.required else f"[{_metavar(argument)}{many}]"


def _metavar(parameter: Command) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("[]{}").replace("|", " or ")


def _examples(epilog: str) -> Iterator[str]:
    """The commands of "Example:  coocnet …     (a remark)", a line each, remarks behind them."""
    lines: list[str] = []
    for piece in re.split(r"\s{2,}|\s*&&\s*", epilog.partition(":")[2].strip()):
        if piece.startswith("coocnet "):
            lines.append(piece)
        elif lines and (remark := piece.removeprefix("then").strip(" ()")):
            lines[-1] += f"  # {remark}"
    yield from lines


def _row(parameter: Command) -> str:
    """A row of the table: the option and its value, its default, its help."""
    if parameter.param_type_name == "argument":
        named = f"`{_metavar(parameter)}`"
    else:
        value = "" if parameter.is_flag else " " + _value(parameter)
        every = " / ".join([", ".join(parameter.opts), *parameter.secondary_opts])
        named = f"`{every}{value}`"
    default = parameter.default
    shown = ""
    if parameter.required:
        shown = "required"
    elif isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        shown = f"`{default}`"
    said = " ".join((parameter.help or "").split())
    if getattr(parameter, "envvar", None):
        said += f" In the environment: `{parameter.envvar}`."
    return " | ".join([f"| {named}", shown, f"{said} |"])


def _value(option: Command) -> str:
    if option.metavar:
        return str(option.metavar).replace("|", " or ")  # a table's cell holds no other
    kind = str(option.bare_type())
    return "TEXT" if "str" in kind else "FILE" if "path" in kind else "NUMBER"


def main() -> None:
    """Writes the page, or compares."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE.name} is stale: python docs/tools/commands.py")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
