"""What only an index in Milvus does: approximate search on a server, and servers and writers that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest
from PIL import Image

import coocnet
from coocnet.describe import Describer
from coocnet.errors import IndexBusyError, IndexMissingError, IndexStorageError, InputError
from coocnet.index import Index, open_index
from coocnet.index.milvus.address import Address
from coocnet.index.milvus.server import Server
from coocnet.recipe import Recipe
from indexing import described, digest_of, held, named, synthetic_rows
from milvus_server import MilvusServer

pytest.importorskip("pymilvus", reason="an index in Milvus needs: pip install 'coocnet[milvus]'")

pytestmark = pytest.mark.slow

on_server = pytest.mark.milvus


@pytest.fixture
def place(milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place for an index on a server."""
    monkeypatch.setattr("coocnet.index.milvus.lease._SETTLES_S", 0.05)
    with milvus.place() as place:
        yield place


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The place of an index in Milvus Lite, whose writers wait for one another no longer than they have to."""
    pytest.importorskip("milvus_lite", reason="needs: pip install milvus-lite")
    monkeypatch.setattr("coocnet.index.milvus.lease._SETTLES_S", 0.05)
    return f"milvus-lite://{tmp_path}/index"


def put(index: Index, rows: dict[str, np.ndarray]) -> None:
    """Stores rows under paths, as a sync would."""
    store = index._store
    with store.sole_writer():
        store.bind(index.recipe, "0" * 64, len(next(iter(rows.values()))), "float32")
        store.put(described(rows))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 60 small pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(60):
        pixels = np.kron(random.integers(0, 256, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def mean_recall(index: Index, queries: np.ndarray, k: int) -> float:
    exactly, approximately = (index.search(queries, k=k, exact=exact) for exact in (True, False))
    return float(
        np.mean(
            [
                len({hit.path for hit in one} & {hit.path for hit in other}) / k
                for one, other in zip(exactly, approximately, strict=True)
            ]
        )
    )


@on_server
def test_an_approximate_search_finds_as_much_as_it_says(place: str, recipe: Recipe) -> None:
    rows = synthetic_rows(6000)
    with open_index(place, Recipe(whitening="none")) as index:
        put(index, named(rows[:5990]))
        told = index.build_ann()
        assert told == index.info().approximate
        assert told.contents == 5990
        assert min(told.recall, told.recall_of_others) >= 0.95
        assert told.probes < told.lists // 2
        others = synthetic_rows(300, seed=0)  # rows of the collection, each found itself first
        assert mean_recall(index, others, 10) == pytest.approx(told.recall, abs=0.05)
        assert mean_recall(index, others, 10) < 1  # else nothing here would be approximate
        assert {len(hits) for hits in index.search(others, k=100, exact=False)} == {100}
        assert index.approximates(k=10)
        assert not index.approximates(k=10, expansion="aqe")
        assert not index.approximates(k=1000)
        row_of = {digest_of(row): row for row in rows}
        for query, hits in zip(others[:20], index.search(others[:20], k=10, exact=False), strict=True):
            for hit in hits:
                assert hit.similarity == pytest.approx(float(row_of[hit.digest] @ query), abs=1e-6)
        with pytest.raises(InputError, match="up to 100"):
            index.search(others[:1], k=500, exact=False)


@on_server
def test_pictures_that_come_and_go_are_seen_by_an_approximate_search(place: str) -> None:
    rows = synthetic_rows(3010)
    with open_index(place, Recipe(whitening="none")) as index:
        put(index, named(rows[:3000]))
        index.build_ann()
        put(index, {f"/new/{at}.jpg": row for at, row in enumerate(rows[3000:])})
        found = index.search(rows[3000:], k=1, exact=False)
        assert [hits[0].path for hits in found] == [f"/new/{at}.jpg" for at in range(10)]
        index.remove([found[4][0].digest])
        assert index.search(rows[3004:3005], k=1, exact=False)[0][0].path != "/new/4.jpg"


@on_server
def test_a_search_is_exact_once_the_whitening_is_another(place: str) -> None:
    rows = synthetic_rows(3000)
    with open_index(place, Recipe(whitening="none")) as index:
        put(index, named(rows))
        index.use_whitening(index.fit_whitening(dim=12))
        assert index.build_ann().recall >= 0.95
        index.use_whitening(index.fit_whitening(dim=8))
        info = index.info()
        assert info.approximate is None
        assert "another whitening" in info.out_of_force
        assert not index.approximates(k=10)
        with pytest.raises(InputError, match="no approximate search in force"):
            index.search(rows[:1], k=3, exact=False)
        assert index.search(rows[:1], k=1)[0][0].digest == digest_of(rows[0])
        index.build_ann()
        assert index.info().out_of_force == ""
        kinds = set(index._store._server.kinds())
        assert kinds == {"facts", "pictures", "rows", "v2", "a2"}  # nothing of the former whitening is left


@on_server
def test_a_collection_that_was_not_finished_is_made_anew(place: str, photos: Path, recipe: Recipe, describer) -> None:
    open_index(place, recipe).close()
    server = Server(Address.of(place))
    schema = server._client.create_schema(auto_id=False)
    schema.add_field("key", server._pymilvus.DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("row", server._pymilvus.DataType.FLOAT_VECTOR, dim=8)
    server._client.create_collection(server.name("rows"), schema=schema)  # and killed before it had its index
    server.close()
    with open_index(place) as index:
        assert index.contents == 0
        index.sync(photos, describer=describer)
        assert index.contents == 60


def test_milvus_lite_has_no_approximate_search(lite: str) -> None:
    with open_index(lite, Recipe(whitening="none")) as index, pytest.raises(InputError, match="needs a server"):
        index.build_ann()


@on_server
@pytest.mark.parametrize("at", [1, 30, 59])
def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    milvus: MilvusServer, place: str, photos: Path, tmp_path: Path, recipe: Recipe, describer: Describer, at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("coocnet.index.sync._STORE_EVERY_S", 0.0)
    restarts = []

    def restart(progress) -> None:
        if progress.done == at:
            milvus.kill()
            milvus.start()
            restarts.append(at)

    with open_index(place, recipe) as index:
        # It waits for the server; an error is allowed, a loss is not.
        with suppress(IndexStorageError):
            index.sync(photos, describer=describer, progress=restart)
        assert restarts == [at]
    with open_index(place) as index, open_index(tmp_path / "beside.cooc", recipe) as beside:
        index.sync(photos, describer=describer)
        beside.sync(photos, describer=describer)
        assert held(index) == held(beside)
        assert (index.pictures, index.contents) == (60, 60)


_WRITER = """
import sys, time
from coocnet.index import open_index
from coocnet.index.milvus import lease
import coocnet.index.sync
from coocnet.recipe import Recipe

lease._LASTS_S, lease._RENEWED_S, lease._SETTLES_S = 6.0, 0.5, 0.05
coocnet.index.sync._STORE_EVERY_S = 0.0
place, photos, recipe = sys.argv[1:]

def tell(progress):
    print(progress.done, flush=True)
    time.sleep(0.02)

with open_index(place, Recipe.load(recipe)) as index:
    index.sync(photos, progress=tell)
"""


@on_server
@pytest.mark.parametrize("at", [1, 30, 55])
def test_a_writer_that_is_killed_loses_and_doubles_nothing(
    place: str, photos: Path, tmp_path: Path, recipe: Recipe, recipe_file: Path, describer: Describer, at: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(coocnet.__file__).parents[1])}
    asked = [sys.executable, "-c", _WRITER, place, str(photos), str(recipe_file)]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        for line in writer.stdout:
            if int(line) >= at:
                writer.kill()
                break
        writer.stdout.read()
    with open_index(place) as index, open_index(tmp_path / "beside.cooc", recipe) as beside:
        with pytest.raises(IndexBusyError, match="after it was killed"):
            index.sync(photos, describer=describer)
        time.sleep(6.0)
        stored = index.pictures
        report = index.sync(photos, describer=describer)
        assert report.unchanged == stored < 60
        assert report.added + report.recognised == 60 - stored
        beside.sync(photos, describer=describer)
        assert held(index) == held(beside)
        assert (index.pictures, index.contents) == (60, 60)


def test_a_search_whose_whitening_is_replaced_meanwhile_begins_anew(
    lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = synthetic_rows(200)
    with open_index(lite, Recipe(whitening="none")) as index, open_index(lite) as writer:
        put(index, named(rows))
        writer.learn_whitening(dim=8)
        vectors = index._store.vectors
        nearest = vectors.nearest

        def nearest_after_a_change(*asked):
            monkeypatch.setattr(vectors, "nearest", nearest)
            writer.learn_whitening(dim=6)
            return nearest(*asked)

        monkeypatch.setattr(vectors, "nearest", nearest_after_a_change)
        assert index.search(rows[:3], k=5) == index.search(rows[:3], k=5)
        assert index.whitening().dim == 6
        # Of the former whitening no more is kept than its number, so that no other one has it.
        keys = [key for key, _ in index._store._notes.below("whitening/")]
        assert keys == ["1/", "2/", *(key for key in keys if key.startswith("2/0"))]


def test_facts_that_are_asked_for_while_a_whitening_is_replaced_are_those_after(
    lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = synthetic_rows(100)
    with open_index(lite, Recipe(whitening="none")) as index, open_index(lite) as writer:
        put(index, named(rows))
        writer.learn_whitening(dim=8)
        vectors = index._store.vectors
        read = vectors._read_whitening

        def read_after_a_change(version):
            monkeypatch.setattr(vectors, "_read_whitening", read)
            writer.learn_whitening(dim=6)
            return read(version)

        monkeypatch.setattr(vectors, "_read_whitening", read_after_a_change)
        assert index.whitening().dim == 6


def test_what_was_dropped_while_an_index_was_opened_is_left_out(lite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = synthetic_rows(100)
    with open_index(lite, Recipe(whitening="none")) as writer:
        put(writer, named(rows))
        writer.learn_whitening(dim=8)
        for moment in ("_is_finished", "name"):
            whole = getattr(Server, moment)

            def after_a_change(server, kind, moment=moment, whole=whole):
                if kind.startswith("v"):
                    monkeypatch.setattr(Server, moment, whole)
                    writer.learn_whitening(dim=8)
                return whole(server, kind)

            monkeypatch.setattr(Server, moment, after_a_change)
            with open_index(lite) as index:
                assert index.search(rows[:1], k=1)[0][0].digest == digest_of(rows[0])
            assert getattr(Server, moment) is whole


def test_what_an_interruption_left_unfinished_is_dropped_by_the_next_writer(
    lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_index(lite, Recipe(whitening="none")) as index:
        put(index, named(synthetic_rows(50)))
        server = index._store._server
        with monkeypatch.context() as patch:
            patch.setattr(server._client, "create_index", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                index.learn_whitening(dim=8)
        assert set(server.made()) - set(server.kinds()) == {"v1"}
        index.learn_whitening(dim=8)
        assert set(server.made()) == {"facts", "pictures", "rows", "v2"}


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_file_of_milvus_lite_is_made_with_its_folder_and_never_by_looking(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="needs: pip install milvus-lite")
    place = f"milvus-lite://{tmp_path}/folder/index"
    with pytest.raises(IndexMissingError, match="make one with"):
        open_index(place)
    assert not list(tmp_path.iterdir())
    open_index(place, Recipe()).close()
    open_index(place).close()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IndexStorageError, match="cannot be made"):
        open_index(f"milvus-lite://{tmp_path}/file/index", Recipe())


def test_a_collection_that_is_listed_while_milvus_lite_makes_it_is_whole(
    lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milvus_lite import db

    begun = Event()

    class SlowCollection(db.Collection):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)
            begun.set()
            time.sleep(0.3)

    monkeypatch.setattr(db, "Collection", SlowCollection)
    os.makedirs(os.path.dirname(Address.of(lite).uri), exist_ok=True)
    server = Server(Address.of(lite))
    with ThreadPoolExecutor() as threads:
        making = threads.submit(server.make, "facts", 100, {"value": 100})
        assert begun.wait(10)
        assert set(server.made()) <= {"facts"}
        making.result()
    assert Server(Address.of(lite)).kinds() == ["facts"]


def test_an_index_in_milvus_lite_is_opened_by_threads_at_once(lite: str, recipe: Recipe) -> None:
    from milvus_lite.server_manager import server_manager_instance

    with open_index(lite, recipe) as index:
        put(index, named(synthetic_rows(3)))
    together = Barrier(4)

    def pictures(_: int) -> int:
        together.wait()
        with open_index(lite) as index:
            return index.pictures

    for _ in range(5):
        server_manager_instance.release_server(Address.of(lite).uri)  # as if another process began
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(pictures, range(4))) == [3, 3, 3, 3]


def test_a_scheme_without_its_slashes_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for mistyped in ("milvus:/host/photos", "milvus:host/photos", "milvus+tls:/host/photos"):
        with pytest.raises(InputError, match="milvus://HOST:PORT/NAME"):
            open_index(mistyped, Recipe())
    assert not list(tmp_path.iterdir())


def test_a_reason_that_is_too_long_for_milvus_is_cut_to_whole_letters(lite: str) -> None:
    with open_index(lite, Recipe()) as index:
        with index._store.sole_writer():
            index._store.note_sync("/photos", {"/photos/a.jpg": "x" + "ü" * 40_000})
        assert index.info().skipped == {"/photos/a.jpg": "x" + "ü" * 32_767}


def test_what_a_server_answers_is_no_reason_to_ask_whether_it_runs(lite: str) -> None:
    server = Server(Address.of(lite))
    with pytest.raises(IndexStorageError) as caught:
        server.count("nothing")
    server.close()
    assert "running" not in str(caught.value)


def test_a_writer_that_stood_still_for_too_long_writes_no_more(
    lite: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_index(lite, recipe) as index:
        with monkeypatch.context() as patch:
            patch.setattr("coocnet.index.milvus.lease._LASTS_S", 0.5)
            with index._store.sole_writer():
                time.sleep(0.6)
                with pytest.raises(IndexBusyError, match="others may write"):
                    index._store.put_whitening(None, learned_here=False)
        put(index, named(synthetic_rows(3)))  # the right can be had again
        assert index.pictures == 3
