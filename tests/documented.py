"""The code of the documentation: its blocks, and a reader who types them in.

A page is read with a Markdown parser, never by looking for backticks. What a block is for is told by its language and
by what stands before it::

    ```sh, ```python        are run, in order, in a home and a folder of the page's own
    ```toml title="FILE"    is written to that file, as the reader is told to
    ```text                 after one of these: what it prints; "…" stands for anything, numbers may differ a little
    <!-- not run: REASON -->    before a block: it is looked at, not run
"""

from __future__ import annotations

import ast
import builtins
import configparser
import functools
import itertools
import json
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from coocnet.cli import app
from coocnet.recipe import tomllib
from service import Service

ROOT = Path(__file__).parents[1]
NEAR = 0.02
"""How far a number that a page prints may be from the one that is there: processors round differently."""
_MARK = re.compile(r"<!-- not run: (.+?) -->")
_TITLE = re.compile(r'title="([^"]+)"')
_ASSIGNED = re.compile(r"^(\w+)=(.*)$")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Block:
    """One block of code on a page.

    Attributes:
        page: the page, below the root of the repository.
        line: where it begins, from 1 on.
        language: its first word; "sh" where it is indented and has none.
        code: what is in it.
        title: the file that it is to be saved as, or "".
        reason: why it is not run, or "".
    """

    page: str
    line: int
    language: str
    code: str
    title: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command of a block of ``sh``, comments left out, continued lines joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


@functools.cache
def pages() -> list[str]:
    """Every page that people read, below the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/NOTES.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@functools.cache
def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found, reason = [], ""
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "html_block" and (mark := _MARK.search(token.content)):
            reason = mark[1]
        elif token.type in {"fence", "code_block"}:
            language, _, rest = (token.info.strip() or "sh").partition(" ")
            title = _TITLE.search(rest)
            line = token.map[0] + 1
            found.append(Block(page, line, language, token.content, title[1] if title else "", reason))
            reason = ""
    return found


def check_parses(block: Block) -> None:
    """Looks at a block that is not run: its commands and options exist, its files parse."""
    if block.language in PARSERS:
        PARSERS[block.language](block.code)
    if block.language == "python":
        _check_names(block)
    if block.language != "sh":
        return
    for words in block.commands():
        check_command(list(itertools.dropwhile(_ASSIGNED.match, words)))


def check_command(words: list[str]) -> None:
    """A command of ours has to be one that there is; a script or a target of make too."""
    arguments = [word for word in words[1:] if word not in {">", "|", "&&"}]
    if words[0] == "coocnet" and arguments[0] != "--version":
        group = typer.main.get_command(app)
        command = group.commands[arguments[0]]
        if arguments[1:] or arguments[0] not in {"datasets", "restore"}:
            command.make_context(arguments[0], _without_redirection(words[2:]), resilient_parsing=False)
    elif Path(words[0]).name.startswith("python") and arguments[0].endswith(".py"):
        source = (ROOT / arguments[0]).read_text()
        for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
            assert option in source, f"{arguments[0]} has no {option}"
    elif words[0] == "pip":
        named = re.findall(r"(?:coocnet|\.)\[([\w,]+)\]", shlex.join(words))
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {extra for group in named for extra in group.split(",")} <= set(extras), shlex.join(words)
    elif words[0] == "make":
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no {target} to make"


def _without_redirection(words: list[str]) -> list[str]:
    return words[: words.index(">")] if ">" in words else words


def _read_ini(text: str) -> None:
    configparser.ConfigParser(strict=False, interpolation=None).read_string(text)


def _check_names(block: Block) -> None:
    """Every name that is used has to be one of Python, or one that this block or one before it on the page makes."""
    earlier = blocks(block.page) if (ROOT / block.page).exists() else []
    codes = [ast.parse(one.code) for one in earlier if one.language == "python" and one.line < block.line]
    nodes = list(ast.walk(ast.parse(block.code)))
    made = set(dir(builtins))
    for node in itertools.chain(*map(ast.walk, codes), nodes):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            made.add(node.id)
    unknown = {node.id for node in nodes if isinstance(node, ast.Name)} - made
    assert not unknown, f"{block.where}: nobody says what {', '.join(sorted(unknown))} is"


PARSERS: dict[str, Callable[[str], object]] = {
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "ini": _read_ini,
}


class Reader:
    """Somebody who types what a page says, from top to bottom.

    Args:
        folder: where it is typed.
        command: runs ``coocnet``, as the fixture of this name.
        serves: starts a service, as the fixture of this name.
    """

    def __init__(
        self,
        folder: Path,
        command: Callable[..., subprocess.CompletedProcess[str]],
        serves: Callable[..., Service],
    ) -> None:
        self._folder, self._command, self._serves = folder, command, serves
        self._names: dict[str, object] = {"__name__": "documented"}
        self._served: dict[str, str] = {}
        self._said = ""

    def follow(self, block: Block) -> None:
        """Does what a block says."""
        if block.title:
            (self._folder / block.title).write_text(block.code)
        if block.language == "sh":
            self._said = "".join(self._run(words, block) for words in block.commands())
        elif block.language == "python":
            self._said = self._execute(block)
        elif block.language == "text" and self._said:
            assert_said(block, self._said)
            self._said = ""
        else:
            check_parses(block)

    def _execute(self, block: Block) -> str:
        written = StringIO()
        code = compile("\n" * block.line + self._here(block.code), block.page, "exec")
        with redirect_stdout(written):
            exec(code, self._names)
        return written.getvalue()

    def _run(self, words: list[str], block: Block) -> str:
        environment = {}
        while found := _ASSIGNED.match(words[0]):
            environment[found[1]] = os.path.expanduser(found[2])
            words = words[1:]
        words = [os.path.expanduser(os.path.expandvars(self._here(word))) for word in words]
        target = None
        if ">" in words:
            *words, _, target = words
        if words[:2] == ["coocnet", "serve"]:
            self._serve(words[2:], environment)
            return ""
        if words[0] == "python":
            return self._script(ROOT / words[1], words[2:])
        if words[0] == "coocnet":
            ended = self._command(self._folder, *words[1:], **environment)
        else:
            ended = subprocess.run(words, cwd=self._folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{block.where}: {shlex.join(words)}\n{ended.stdout}{ended.stderr}"
        if target:
            (self._folder / target).write_text(ended.stdout)
            return ""
        return ended.stdout + ended.stderr

    def _script(self, script: Path, arguments: list[str]) -> str:
        """Runs a script of the repository within this process, which has loaded everything already."""
        written = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(written):
            patch.setattr(sys, "argv", [str(script), *arguments])
            status: object = 0
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as ended:
                status = ended.code
        assert not status, f"{script.name} {shlex.join(arguments)}: {status}\n{written.getvalue()}"
        return written.getvalue()

    def _serve(self, words: list[str], environment: dict[str, str]) -> None:
        command = typer.main.get_command(app).commands["serve"]
        given = command.make_context("serve", list(words)).params
        kept = [word for word in words if word not in {"--index", "-i", "--port"}]
        for own in (given["index_place"], str(given["port"])):
            kept = [word for word in kept if word != own]
        place = self._folder / given["index_place"]
        options = [str(self._folder / word) if (self._folder / word).is_dir() else word for word in kept]
        service = self._serves(place, *options, **environment)
        self._served[str(given["port"])] = service.url.split("/")[2]

    def _here(self, text: str) -> str:
        """The text with the addresses at which the services listen in truth."""
        return _ADDRESS.sub(lambda found: self._served.get(found[1], found[0]), text)


def assert_said(block: Block, said: str) -> None:
    """Compares what a page says is printed with what was."""
    real = said.replace(os.path.expanduser("~"), "~").split()
    at = 0
    words = block.code.split()
    for place, word in enumerate(words):
        if word == "…":
            following = words[place + 1] if place + 1 < len(words) else None
            while following is not None and at < len(real) and not _same(following, real[at]):
                at += 1
            if following is None:
                return
            continue
        assert at < len(real), f"{block.where} says {word!r} where nothing more was printed:\n{said}"
        assert _same(word, real[at]), f"{block.where} says {word!r}, printed was {real[at]!r}:\n{said}"
        at += 1
    assert at == len(real), f"{block.where} leaves out {' '.join(real[at:])!r}:\n{said}"


def _same(word: str, real: str) -> bool:
    """Equal but for numbers with a decimal point, which may differ a little; "…" within a word is anything."""
    pattern = ".*".join(map(re.escape, word.split("…")))
    if re.fullmatch(pattern, real):
        return True
    if _NUMBER.sub("#", word) != _NUMBER.sub("#", real):
        return False
    pairs = zip(_NUMBER.findall(word), _NUMBER.findall(real), strict=True)
    return all(one == other or _near(one, other) for one, other in pairs)


def _near(one: str, other: str) -> bool:
    return "." in one and "." in other and math.isclose(float(one), float(other), abs_tol=NEAR)


def runnable(page: str) -> Iterator[Block]:
    """The blocks of a page that are run."""
    yield from (block for block in blocks(page) if not block.reason)
