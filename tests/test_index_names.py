"""Pictures are listed and named, and no name or match tells what lies above their folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from coocnet.data.images import content_digest
from coocnet.errors import InputError
from coocnet.index import open_index
from indexing import contents, named, put, sync, synthetic_rows


@pytest.fixture
def nested(photos, tmp_path) -> Path:
    """The photographs as folders within folders."""
    for number, path in enumerate(sorted(photos.iterdir())):
        folder = photos / ("Summer", "winter/Alps", ".")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{number:02}_ÄB.jpg")
    return photos


def test_the_files_and_the_row_of_a_content_are_told(place, photos, recipe, describer) -> None:
    first = sorted(photos.iterdir())[0]
    shutil.copy(first, photos / "copy.jpg")
    sync(place, photos, recipe, describer)
    digest = content_digest(first.read_bytes())
    with open_index(place) as index:
        assert index.files_of(digest) == [str(photos / "copy.jpg"), str(first)]
        assert index.row_of(digest).tolist() == index.row_of_file(first).tolist()
        assert index.files_of(b"\0" * 16) == []
        assert index.row_of(b"\0" * 16) is None


def test_the_files_of_several_contents_are_those_of_each(place, photos, recipe, describer, monkeypatch) -> None:
    some = sorted(photos.iterdir())
    shutil.copy(some[0], photos / "copy.jpg")
    shutil.copy(some[0], photos / "copy, again 1.jpg")
    sync(place, photos, recipe, describer)
    digests = [content_digest(path.read_bytes()) for path in some]
    unknown = b"\0" * 16
    monkeypatch.setattr("coocnet.index.store._AT_ONCE", 7)
    with open_index(place) as index:
        expected = {digest: index.files_of(digest) for digest in digests}
        assert {len(files) for files in expected.values()} == {1, 3}
        assert index.files_of_each([*digests, unknown]) == expected
        assert index.files_of_each([unknown]) == index.files_of_each([]) == {}


def test_several_pictures_are_named_as_each_alone(place, nested, recipe, describer) -> None:
    sync(place, nested, recipe, describer)
    paths = [path for path, _, _ in contents(place)]
    with open_index(place) as index:
        assert index.names_of(iter(paths)) == [index.name_of(path) for path in paths]


def test_pages_of_a_listing_are_the_collection_in_order_of_path(place, nested, recipe, describer) -> None:
    sync(place, nested, recipe, describer)
    everything = [(path, digest) for path, digest, _ in contents(place)]
    with open_index(place) as index:
        pages = [index.listing(offset=start, limit=5) for start in range(0, 25, 5)]
        assert [one for _, page in pages for one in page] == everything
        assert {total for total, _ in pages} == {18}
        assert index.listing(offset=3, limit=0) == (18, [])
        assert index.listing(offset=1 << 40, limit=1 << 40) == (18, [])


@pytest.mark.slow
@pytest.mark.parametrize("text", ["summer", "SUMMER", "_Äb", "winter/alps/0", "s/0", "/0", ".jpg", "nothing of it"])
def test_a_listing_is_narrowed_by_text_in_the_names(place, nested, recipe, describer, text) -> None:
    sync(place, nested, recipe, describer)

    def small(name: str) -> str:
        return "".join(one.lower() if one.isascii() else one for one in name)

    with open_index(place) as index:
        expected = [
            (path, digest) for path, digest, _ in contents(place) if small(text) in small(index.name_of(path))
        ]
        assert index.listing(offset=0, limit=100, contains=text) == (len(expected), expected)
        assert index.listing(offset=1, limit=3, contains=text) == (len(expected), expected[1:4])


def test_no_text_tells_what_lies_above_a_folder(place, nested, recipe, describer, tmp_path) -> None:
    sync(place, nested, recipe, describer)
    lone = Path(shutil.copy(next(nested.rglob("*.jpg")), tmp_path / "lone.jpg"))
    with open_index(place) as index:
        index.add([lone], describer=describer)
        for above in (*nested.parts[1:], str(nested), f"{nested}/Summer", tmp_path.name, f"/{lone.name}", "/Summer"):
            assert index.listing(offset=0, limit=5, contains=above) == (0, []), above
        assert index.listing(offset=0, limit=5, contains="lone")[0] == 1


def test_ascii_letters_alone_are_alike_in_small_and_capital(place, nested, recipe, describer) -> None:
    sync(place, nested, recipe, describer)
    with open_index(place) as index:
        assert index.listing(offset=0, limit=0, contains="_Äb")[0] == 18
        assert index.listing(offset=0, limit=0, contains="_äb")[0] == 0


def test_names_that_are_not_text_are_listed(place, photos, recipe, describer) -> None:
    odd = os.fsdecode(os.fsencode(photos) + b"/caf\xe9\n.jpg")
    shutil.copy(sorted(photos.iterdir())[0], odd)
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        total, page = index.listing(offset=0, limit=5, contains="CAF")
        assert (total, [path for path, _ in page]) == (1, [odd])
        assert index.name_of(odd) == "caf\\udce9\\n.jpg"


@pytest.mark.parametrize(
    "wrong", [{"offset": -1}, {"limit": -1}, {"offset": 1 << 63}, {"limit": True}, {"limit": 2.0}], ids=str
)
def test_numbers_that_are_none_are_refused(place, recipe, wrong) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match="got "):
        index.listing(**{"offset": 0, "limit": 1, **wrong})


def test_text_that_no_path_can_hold_is_refused(place, recipe) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match="no text"):
        index.listing(offset=0, limit=1, contains="\ud800")


# Names


def test_a_name_begins_at_the_only_folder(place, nested, recipe, describer, tmp_path) -> None:
    sync(place, nested, recipe, describer)
    with open_index(place) as index:
        assert index.name_of(str(nested / "winter" / "Alps" / "1.jpg")) == "winter/Alps/1.jpg"
        assert index.name_of(str(nested / "1.jpg")) == "1.jpg"
        assert index.name_of(str(tmp_path / "1.jpg")) == "1.jpg"
        assert index.name_of(f"{nested}2/1.jpg") == "1.jpg"


def test_with_several_folders_a_name_begins_with_that_of_its_folder(
    place, photos, recipe, describer, tmp_path
) -> None:
    other = Path(shutil.copytree(photos, tmp_path / "z" / "photos"))
    third = Path(shutil.copytree(photos, other / "inner"))
    with open_index(place, recipe) as index:
        index.sync(photos, describer=describer)
        assert index.name_of(str(photos / "1.jpg")) == "1.jpg"
        index.sync(other, describer=describer)
        assert index.name_of(str(photos / "1.jpg")) == "photos/1.jpg"
        assert index.name_of(str(other / "a" / "1.jpg")) == "photos (2)/a/1.jpg"
        assert index.name_of(str(third / "1.jpg")) == "photos (2)/inner/1.jpg"
        index.sync(third, describer=describer)
        assert index.name_of(str(third / "1.jpg")) == "inner/1.jpg"
        assert index.name_of(str(tmp_path / "1.jpg")) == "1.jpg"
        names = [index.name_of(path) for path, _ in index.listing(offset=0, limit=100)[1]]
        assert len(set(names)) == 54


def test_a_picture_at_the_root_of_the_disk_has_a_name(place) -> None:
    put(place, {**named(synthetic_rows(2)), "/top.jpg": synthetic_rows(3)[2]})
    with open_index(place) as index:
        assert index.name_of("/top.jpg") == "top.jpg"
        assert index.listing(offset=0, limit=5, contains="TOP")[0] == 1
        assert index.listing(offset=0, limit=5, contains="/")[0] == 0
