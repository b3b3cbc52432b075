"""What the documentation says is so: every block of code of every page runs, or says why it cannot."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
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
    "coocnet.data", "coocnet.data.benchmarks",
)  # fmt: skip
"""Modules all of whose names have to be in the reference."""
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


@pytest.mark.slow
@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(site, module):
    head, _, entries = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2")
    documented = {line.split(" ")[0] for line in zlib.decompress(entries).decode().splitlines()}
    public = importlib.import_module(module)
    for name in public.__all__:
        if not inspect.ismodule(getattr(public, name)):
            homes = {f"{module}.{name}", f"{module}.{name}.{name}", f"coocnet.{name}"}
            assert homes & documented, f"{module}.{name} is on no page of docs/api"


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


@pytest.mark.parametrize("example", ["collect.py", "compare_poolings.py", "http_client.py"])
def test_an_example_is_short(example):
    assert len((ROOT / "examples" / example).read_text().splitlines()) <= 60
