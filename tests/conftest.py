"""Fixtures: a home of one's own, weights without a download, and the real data where it lies beside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
import torch
import typer.main
from safetensors.torch import save_file

from coocnet.backbones import BACKBONES
from coocnet.cli import main
from coocnet.data.scenes import View, make_scenes
from coocnet.describe import Describer
from coocnet.recipe import Recipe
from milvus_server import MilvusServer, milvus_server, why_not
from service import Collection, Service, make_collection, serve
from serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from starlette.testclient import TestClient

    from asking import Shelf
    from browsing import Complaints

typer.main.get_command = cache(
    typer.main.get_command
)  # it takes a while, and some hundred commands are run in one process
torch.set_num_threads(1)  # the maps are small: more threads wait for one another longer than they compute


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What drives a browser or a server of its own is slow."""
    for item in items:
        if not {"browser", "collection", "serves", "serving"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees or touches the user's cache, settings or weights."""
    home = tmp_path_factory.mktemp("home")
    for name in ("COOCNET_WEIGHTS", "COOCNET_INDEX", "COOCNET_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return home


@pytest.fixture(scope="module", params=["compiled", "torch"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test runs twice: with the compiled loops, and with PyTorch alone."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled loops need: pip install 'coocnet[fast]'")
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coocnet.ops.quick.compiled_loops", lambda: None)
        yield


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A real Milvus server."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server whose files and manners a test decides."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real photographs, weights and golden numbers; the test is skipped where it is absent."""
    folder = Path(os.environ.get("COOCNET_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "golden" / "golden.json").is_file():
        pytest.skip(f"the real data is not at {folder}; name its place in COOCNET_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file for SqueezeNet with random filters: a real network, though nobody trained it."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, tensor in BACKBONES["squeezenet1_1"].build().state_dict().items():
        fan_in = tensor[0].numel()
        noise = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        tensors[name.replace(".", "_")] = noise if name.endswith("weight") else torch.zeros(tensor.shape)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def recipe(quick: Recipe) -> Recipe:
    """A quick recipe that needs nothing from outside."""
    return quick


@pytest.fixture(scope="session")
def quick(random_weights: Path) -> Recipe:
    """As ``recipe``, for fixtures that outlive a test."""
    return Recipe(
        name="quick",
        backbone="squeezenet1_1",
        tap="features",
        weights=str(random_weights),
        size_px=128,
        whitening="none",
    )


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[View]]:
    """A small rendered collection: its folder and what is in it. Not to be written to."""
    folder = tmp_path_factory.mktemp("scenes")
    return folder, make_scenes(folder, instances=6, views=3, size_px=160)


@pytest.fixture
def describer(recipe: Recipe) -> Describer:
    return Describer(recipe)


@pytest.fixture
def photos(tmp_path: Path, scenes) -> Path:
    """A copy of the rendered database pictures, free to be changed."""
    return Path(shutil.copytree(scenes[0] / "database", tmp_path / "photos"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cooc"


@pytest.fixture(
    params=[
        "folder",
        pytest.param("milvus-lite", marks=pytest.mark.slow),
        pytest.param("milvus", marks=pytest.mark.milvus),
    ]
)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for an index."""
    if request.param == "folder":
        yield str(tmp_path / "index.cooc")
        return
    pytest.importorskip("pymilvus", reason="an index in Milvus needs: pip install 'coocnet[milvus]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coocnet.index.milvus.lease._SETTLES_S", 0.05)
        if request.param == "milvus":
            with request.getfixturevalue("milvus").place() as place:
                yield place
        else:
            pytest.importorskip("milvus_lite", reason="needs: pip install milvus-lite")
            yield f"milvus-lite://{tmp_path}/index"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command in a folder, within this process, which has loaded torch already."""

    def in_this_process(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        status: int | str | None = 0
        with monkeypatch.context() as patched:
            patched.chdir(folder)
            patched.setattr(sys, "argv", ["coocnet", *map(str, arguments)])
            patched.setenv("OMP_WAIT_POLICY", "PASSIVE")
            for name, value in environment.items():
                patched.setenv(name, value)
            capsys.readouterr()
            try:
                main()
            except SystemExit as ended:
                status = ended.code
        written = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(status or 0), written.out, written.err)

    return in_this_process


@pytest.fixture
def run(command, tmp_path: Path):
    """Runs the command in a new folder of its own."""
    return partial(command, tmp_path)


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(recipe.to_toml())
    return path


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Arguments as a user without a type checker passes them: our own errors, not the checker's, have to speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Some 50 rendered pictures and their index. Not to be written to."""
    return make_collection(tmp_path_factory.mktemp("collection"))


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, scenes: tuple[Path, list[View]], quick: Recipe) -> Shelf:
    """The rendered scenes and their index, for what the service answers. Not to be written to."""
    from asking import shelved

    return shelved(scenes[0] / "database", tmp_path_factory.mktemp("shelf") / "photos.cooc", quick)


@pytest.fixture(scope="module")
def client(shelf: Shelf) -> Iterator[TestClient]:
    """A client of the service of the shelf, within this process."""
    from asking import client_of

    with client_of(shelf.place) as client:
        yield client


@pytest.fixture(scope="session")
def serving(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real command, which serves the collection. Not to be written to."""
    with serve(collection.index, home=tmp_path_factory.mktemp("serving")) as service:
        yield service


@pytest.fixture
def serves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Serves an index of the test's own, with options of its own: ``serves(place, "--option", NAME="value")``."""
    with ExitStack() as running:

        def start(index: Path, *options: object, **environment: str) -> Service:
            home = tmp_path_factory.mktemp("serves")
            return running.enter_context(serve(index, *options, home=home, **environment))

        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Its event loop runs in this thread, so it ends with the module, before others need a loop."""
    from browsing import open_browser

    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(
    browser: Browser, serves: Callable[..., Service], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A new page, closed before any service that ``serves`` began; ``page.goto(serving.url)``.

    A test whose page complained fails at its end: see ``complaints``.
    """
    from browsing import PATIENCE_MS, Complaints

    context = browser.new_context(locale="en-GB", timezone_id="UTC", accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    if os.environ.get("COOCNET_TRACE"):
        context.tracing.start(screenshots=True, snapshots=True)
    page = context.new_page()
    request.node.stash[_COMPLAINTS] = complaints = Complaints(page)
    yield page
    context.close()
    assert not complaints.unexpected(), "the page complained:\n" + "\n".join(complaints.unexpected())


@pytest.fixture
def complaints(page: Page, request: pytest.FixtureRequest) -> Complaints:
    """What the page complained of so far; ``complaints.allow("status of 413")`` for what the test provokes."""
    return request.node.stash[_COMPLAINTS]


_COMPLAINTS: pytest.StashKey[Complaints] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test of the page says where its picture is."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if call.when == "call" and report.failed and page is not None:
        from browsing import picture_of

        report.sections.append(("the page", picture_of(page, item.funcargs["tmp_path"] / "page")))
    return report
