"""What the documentation says is so: every block of code of every page runs, or says why it cannot."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from coocnet import poolings, recipe
from coocnet.data.scenes import make_scenes
from coocnet.evaluate import MEASURES
from documented import ROOT, Block, Reader, assert_said, blocks, check_parses, pages

REASONS = {
    "an installation": "what is installed here is what the tests run in",
    "a download": "the network is blocked in tests",
    "a server that is not there": "Milvus, a proxy, Prometheus",
    "a cluster": "Ray on many machines; tests/test_cluster.py has Ray's real processes",
    "object storage": "tests/test_remote_s3.py has a server of its protocol",
    "data that does not come with the package": "photographs, weights and benchmarks of others",
    "containers": "tests/test_deploy.py looks at them",
    "make": "it runs these tests, or is run by tests/test_demo.py and benchmarks/release.py",
    "minutes": "measurements and trainings",
    "it writes pages": "tests compare those pages",
    "an example of the help": "each stands on a page where it is run, or has one of the reasons above",
    "a layout": "no code",
    "run by tests/test_serve_docs.py": "the page of the service has a service for itself",
}
"""Why a block may be left out of what is run. Another reason is none."""
SHOWN = {"text", "math", "nginx", "caddy"}
"""Languages of blocks that nothing here can run."""
WITH_CODE = [page for page in pages() if any(not block.reason for block in blocks(page))]
ALL = [block for page in pages() for block in blocks(page)]


@pytest.mark.parametrize("read", pages())
def test_what_is_not_run_says_why(read):
    for block in blocks(read):
        assert not block.reason or block.reason in REASONS, f"{block.where}: {block.reason}"


def test_every_reason_is_one_that_somewhere_counts():
    assert {block.reason for block in ALL} - {""} == set(REASONS)


@pytest.mark.parametrize("block", [block for block in ALL if block.reason], ids=lambda block: block.where)
def test_what_is_not_run_has_commands_and_options_that_there_are(block):
    check_parses(block)


def test_every_command_of_the_help_stands_on_another_page():
    """Run there, or left out for a reason that is its own."""
    shown, elsewhere = set(), set()
    for block in ALL:
        if block.language == "sh":
            helps = block.reason == "an example of the help"
            (shown if helps else elsewhere).update(one[1] for one in block.commands() if one[0] == "coocnet")
    assert shown <= elsewhere


def test_code_that_is_not_run_and_uses_what_nobody_made_is_seen():
    check_parses(Block("page.md", 1, "python", "import a.b as c\nfor x in c: print([y for y in x])", "", ""))
    with pytest.raises(AssertionError, match="describer"):
        check_parses(Block("page.md", 1, "python", "rows = describer.describe([])", "", ""))


def test_a_command_that_there_is_not_is_seen():
    for code in ("coocnet index ~/Pictures --no-such", "python benchmarks/no_such.py", "make no-such"):
        with pytest.raises(Exception, match=r"no.such"):
            check_parses(Block("page.md", 1, "sh", code, "", ""))


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("found 3 of 60", "found 3 of 60\n", True),
        ("found 3 of 60", "found 4 of 60", False),
        ("0.912 tower.jpg", "0.921   tower.jpg", True),
        ("0.912 tower.jpg", "0.992 tower.jpg", False),
        ("in … end", "in 12 minutes end", True),
        ("in … end", "in 12 minutes", False),
        ("…/town", "/tmp/here/town", True),
        ("one", "one more", False),
        ("one more", "one", False),
    ],
)
def test_what_a_page_says_is_printed_is_compared(said, printed, same):
    block = Block("page.md", 1, "text", said, "", "")
    if same:
        assert_said(block, printed)
    else:
        with pytest.raises(AssertionError, match=r"page\.md:1"):
            assert_said(block, printed)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some sixty pictures and the queries that pages name; not to be written to."""
    folder = tmp_path_factory.mktemp("rendered")
    make_scenes(folder, instances=20, views=3, size_px=320)
    return folder


@pytest.fixture
def folder(rendered: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader types: ``~/Pictures`` and ``~/other-pictures`` are there, and the pictures that pages name."""
    everything = sorted((rendered / "database").glob("*.jpg"))
    for name, files in (("Pictures", everything), ("other-pictures", everything[::6])):
        (own_home / name).mkdir()
        for file in files:
            shutil.copyfile(file, own_home / name / file.name)
    shutil.copyfile(everything[-1], own_home / "Pictures" / "receipt.jpg")
    here = tmp_path / "here"
    here.mkdir()
    queries = sorted((rendered / "queries").glob("*.jpg"))
    for name, query in zip(
        ("street.jpg", "tower.jpg", "bridge.jpg", "query.jpg", "photo.jpg"), queries, strict=False
    ):
        shutil.copyfile(query, here / name)
    for name, found in (("found.jpg", everything[3]), ("a.jpg", everything[0]), ("b.jpg", everything[1])):
        shutil.copyfile(found, here / name)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def tables_as_they_were() -> object:
    """What a page adds to the tables of choices is taken away again."""
    tables = (poolings.POOLINGS, recipe.POOLINGS, recipe.PRESETS, MEASURES)
    before = [copy.copy(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


@pytest.mark.slow
@pytest.mark.parametrize("read", WITH_CODE)
@pytest.mark.usefixtures("tables_as_they_were")
def test_every_block_of_a_page_runs(read, folder, command, serves):
    reader = Reader(folder, command, serves)
    for block in blocks(read):
        if not block.reason and block.language not in SHOWN - {"text"}:
            reader.follow(block)


def test_the_page_of_commands_is_what_the_commands_say():
    ended = subprocess.run(
        [sys.executable, "docs/tools/commands.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


PUBLIC = (
    "coocnet", "coocnet.ops", "coocnet.evaluate", "coocnet.ranking", "coocnet.index", "coocnet.serve", "coocnet.viz",
    "coocnet.data", "coocnet.data.benchmarks", "coocnet.nn", "coocnet.train", "coocnet.cluster", "coocnet.errors",
)  # fmt: skip
"""Modules all of whose names have to be in the reference."""
SHOWN_HOW = ("collect.py", "compare_poolings.py", "http_client.py")
"""The examples that people learn the library from."""
SOURCE = re.compile(r"\b(?:19|20)\d\d\b|\bours\b|\beqs?\. \d")
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'>\s]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it: strictly, so that a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src"), "no_proxy": "*"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not LOADED.findall(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text(), sheet


@pytest.fixture(scope="module")
def documented(site: Path) -> set[str]:
    """Every name that has a place in the reference."""
    head, _, entries = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2")
    return {line.split(" ")[0] for line in zlib.decompress(entries).decode().splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(documented, module):
    public = importlib.import_module(module)
    for name in public.__all__:
        if not inspect.ismodule(getattr(public, name)):
            homes = {f"{module}.{name}", f"{module}.{name}.{name}", f"coocnet.{name}"}
            assert homes & documented, f"{module}.{name} is on no page of docs/api"


def _is_module(path: str) -> bool:
    try:
        return isinstance(importlib.import_module(path), ModuleType)
    except ModuleNotFoundError:
        return False


def _names(code: str, modules: dict[str, str]) -> Iterator[str]:
    """Names of the package that code uses; ``modules`` gets those that it imports, by their names there."""
    nodes = list(ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {one.asname: one.name for one in node.names if one.asname and one.name.startswith("coocnet")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "coocnet":
            for one in node.names:
                path = f"{node.module}.{one.name}"
                if _is_module(path):
                    modules[one.asname or one.name] = path
                else:
                    yield path
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            path = f"{modules[node.value.id]}.{node.attr}"
            if not _is_module(path):
                yield path


@pytest.mark.slow
@pytest.mark.parametrize("read", [*pages(), *(f"examples/{name}" for name in SHOWN_HOW)])
def test_every_name_that_is_shown_is_in_the_reference(documented, read):
    text, modules, used = (ROOT / read).read_text(), {}, set()
    if read.endswith(".py"):
        used.update(_names(text, modules))
    else:
        for block in blocks(read):
            if block.language == "python":
                used.update(_names(block.code, modules))
        used.update(re.findall(r"`(coocnet(?:\.\w+)+)(?:\(.*?\))?`", text))
    inside = tuple(f"{name}." for name in used if _is_module(name))
    assert all(any(name.startswith(module) for name in documented) for module in inside), inside
    assert not {name for name in used if name not in documented and not _is_module(name)}


def test_a_name_that_is_shown_is_seen():
    modules = {}
    found = _names("import coocnet as cn\nfrom coocnet import recipe\ncn.ops.gem\nrecipe.POOLINGS", modules)
    assert set(found) == {"coocnet.recipe.POOLINGS"}
    assert modules == {"cn": "coocnet", "recipe": "coocnet.recipe"}
    assert set(_names("from coocnet.cluster import ClusterDescriber", {})) == {"coocnet.cluster.ClusterDescriber"}


@pytest.mark.slow
def test_an_example_of_a_docstring_is_shown_as_code(site):
    for page in site.glob("api/**/*.html"):
        text = page.read_text()
        assert "<blockquote" not in text, page
        assert "admonition" not in text, page
    operators = importlib.import_module("coocnet.ops")
    written = sum((inspect.getdoc(getattr(operators, name)) or "").count(">>> ") for name in operators.__all__)
    shown = (site / "api/ops.html").read_text().count('<span class="gp">&gt;&gt;&gt; </span>')
    assert shown == written > 0


@pytest.mark.slow
def test_what_a_function_returns_is_one_value(site):
    sections = 0
    for page in site.glob("api/**/*.html"):
        for section in page.read_text().split('<span class="doc-section-title">')[1:]:
            if section.startswith(("Returns:", "Yields:")):
                sections += 1
                within = section.partition('class="doc doc-object ')[0]
                assert within.count("doc-section-item") == 1, f"{page}: {within}"
    assert sections > 20


@pytest.mark.slow
def test_the_contents_of_a_page_name_no_module_twice(site):
    for page in site.glob("api/**/*.html"):
        assert "doc-symbol-toc doc-symbol-module" not in page.read_text(), page


@pytest.mark.slow
def test_what_is_internal_is_not_in_the_reference(documented):
    assert not {f"coocnet.errors.{name}" for name in ("UNREADABLE", "quoted", "printable")} & documented


def test_every_error_that_is_raised_on_purpose_is_public():
    errors = importlib.import_module("coocnet.errors")
    raised = [name for name, value in vars(errors).items() if inspect.isclass(value)]
    assert sorted(raised) == errors.__all__
    assert all(issubclass(getattr(errors, name), errors.CoocnetError) for name in errors.__all__)


def _functions(module: str) -> Iterator[tuple[str, object]]:
    """The public functions of a module, and the methods of its classes that say something."""
    public = importlib.import_module(module)
    for name in public.__all__:
        value = inspect.unwrap(found) if callable(found := getattr(public, name)) else found
        if inspect.isfunction(value):
            yield f"{module}.{name}", value
        elif inspect.isclass(value):
            for key, given in vars(value).items():
                method = given.__func__ if isinstance(given, classmethod | staticmethod) else given
                if inspect.isfunction(method) and method.__doc__ and not key.startswith("_"):
                    yield f"{module}.{name}.{key}", method


@pytest.mark.parametrize("module", PUBLIC)
def test_a_docstring_says_what_is_taken_and_what_is_raised(module):
    missing = []
    for name, function in _functions(module):
        said = inspect.getdoc(function) or ""
        code = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        if any(isinstance(node, ast.Raise) and node.exc for node in code) and "Raises:" not in said:
            missing.append(f"{name}: Raises")
        taken = [one for one in inspect.signature(function).parameters if one not in {"self", "cls"}]
        if len(taken) > 1 and not re.search(r"^Args:|^See :meth:", said, re.MULTILINE):
            missing.append(f"{name}: Args")
    assert not missing


def test_every_operator_names_its_source():
    operators = importlib.import_module("coocnet.ops")
    functions = {name: inspect.unwrap(getattr(operators, name)) for name in operators.__all__ if name != "Threshold"}
    said = {name: inspect.getdoc(one) or "" for name, one in functions.items()}
    assert not [name for name, text in said.items() if not SOURCE.search(text)]


@pytest.mark.slow
def test_every_link_of_a_page_leads_somewhere(site):
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    for page, text in pages.items():
        for link in re.findall(r'<a[^>]*?\shref="?([^"\s>]+)', text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path)).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page}: {link}"
            if anchor and target in pages:
                assert f'id="{unquote(anchor)}"' in pages[target] or f"id={unquote(anchor)}" in pages[target], (
                    f"{page}: {link}"
                )


def test_the_screen_of_the_readme_is_one():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("example", SHOWN_HOW)
def test_an_example_is_short(example):
    assert len((ROOT / "examples" / example).read_text().splitlines()) <= 60
