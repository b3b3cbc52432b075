"""What docs/serve.md says is so: its examples run, its tables hold."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import typer

from coocnet.cli import app
from coocnet.serve import Settings
from service import Collection, Service, make_collection

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
OPEN, GUARDED = "127.0.0.1:8000", "127.0.0.1:8001"
"""Where the services of the page listen, in its words."""
TOKEN = "long and hard to guess"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return make_collection(tmp_path_factory.mktemp("documented"))


@pytest.fixture
def there(serves, asked: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    """The services that the page speaks of, in a folder with the pictures that it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Path("added").mkdir()
    for name, query in zip(("tower.jpg", "bridge.jpg"), asked.queries, strict=False):
        shutil.copyfile(query, name)
    return {
        OPEN: serves(asked.index, *_options("coocnet serve --index photos.cooc", tmp_path)),
        GUARDED: serves(asked.index, *_options("COOCNET_TOKEN=", tmp_path), COOCNET_TOKEN=TOKEN),
    }


def _options(begins: str, folder: Path) -> list[str]:
    """What the page starts a service with, but for the index and the port."""
    line = next(line for line in COMMANDS if line.startswith(begins))
    words = iter(shlex.split(line.partition("coocnet serve")[2]))
    options = dict(zip(words, words, strict=True))
    for tests_own in ("--index", "--port"):
        options.pop(tests_own, None)
    if "--add-to" in options:
        options["--add-to"] = str(folder / options["--add-to"])
    return [word for option in options.items() for word in option]


def really(text: str, there: dict[str, Service]) -> str:
    """The text with the addresses where the services listen in truth."""
    for said, service in there.items():
        text = text.replace(said, urlsplit(service.url).netloc)
    return text


def table(first_of_head: str) -> dict[str, list[str]]:
    """The cells of a table by those of its first column, without their marks."""
    body = PAGE.partition(f"| {first_of_head} |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_example_in_python_runs(there):
    named: dict[str, object] = {}
    assert TOKEN in PAGE
    for kind, block in BLOCKS:
        if kind == "python":
            at = PAGE[: PAGE.index(block)].count("\n")
            code = compile("\n" * at + really(block, there), "docs/serve.md", "exec")
            exec(code, named)
    for client in ("service", "guarded", "browser"):
        named[client].close()


def test_every_example_with_curl_runs(there):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    commands = [line for line in COMMANDS if line.startswith("curl ")]
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(really(command, there))
        ended = subprocess.run([*words, "--fail", "--max-time", "60"], capture_output=True, text=True)
        assert ended.returncode == 0, (command, ended.stderr)
        assert ended.stdout
    assert "event: end" in ended.stdout


def _served() -> list[str]:
    units = re.findall(r"^ExecStart=(.+)$", PAGE, re.MULTILINE)
    assert units
    return [
        line
        for line in (*COMMANDS, *units, *re.findall("^    (coocnet .+)$", PAGE, re.MULTILINE))
        if " serve" in line
    ]


@pytest.mark.parametrize("line", _served())
def test_every_command_is_one_that_there_is(line):
    words = shlex.split(line, comments=True)
    arguments = words[words.index("serve") + 1 :]
    command = typer.main.get_command(app).commands["serve"]
    assert command.make_context("serve", arguments)


def test_the_limits_are_those_in_force():
    def written(name: str, value: float) -> str:
        if name.endswith("_bytes"):
            return f"{value / (1 << 20):g} MiB"
        if name.endswith("_px"):
            return f"{value / 1e6:g} megapixels"
        return f"{value:g} s" if name.endswith("_time_s") else f"{value}"

    limits = {
        field.name: written(field.name, field.default)
        for field in dataclasses.fields(Settings)
        if type(field.default) in {int, float}
    }
    assert {name: cells[0] for name, cells in table("`Settings`").items()} == limits


def test_every_route_is_named(serving):
    routes = httpx.get(f"{serving.url}api/openapi.json").json()["paths"]
    real = {f"{method.upper()} {path}" for path, methods in routes.items() for method in methods}
    section = PAGE.partition("### Every route")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+ /\S+)` \|", section, re.MULTILINE)) == real | {"GET /api/openapi.json"}


def test_every_parameter_of_a_search_is_named(serving):
    operation = httpx.get(f"{serving.url}api/openapi.json").json()["paths"]["/api/search"]["get"]
    real = {parameter["name"] for parameter in operation["parameters"]} - {"picture", "upload", "box"}
    assert {name for names in table("parameter") for name in re.split("`, `", names)} == real


def test_every_metric_is_named(serving):
    said = httpx.get(f"{serving.url}metrics").text
    real = set(re.findall(r"^# HELP (coocnet_\w+)", said, re.MULTILINE))
    assert set(table("metric")) == {name for name in real if not name.endswith("_created")}
