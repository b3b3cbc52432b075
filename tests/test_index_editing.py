"""Single pictures are added to an index, taken out of it, and taken back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from coocnet.data.images import content_digest
from coocnet.errors import IndexBusyError, InputError
from coocnet.index import open_index
from coocnet.index.database import DATABASE_NAME, LOCK_NAME
from indexing import Unused, contents, counts, sync


def digest_of(path: Path) -> bytes:
    return content_digest(path.read_bytes())


def reasons(report) -> dict[str, str]:
    return {Path(error.path).name: error.reason for error in report.skipped}


# Adding


def test_added_files_are_stored_as_a_sync_stores_them(place, photos, recipe, describer, tmp_path) -> None:
    some = sorted(photos.iterdir())[:3]
    with open_index(place, recipe) as index:
        assert counts(index.add(some, describer=describer)) == {"added": 3}
    for path in sorted(photos.iterdir())[3:]:
        path.unlink()
    sync(tmp_path / "other.cooc", photos, recipe, describer)
    assert contents(place) == contents(tmp_path / "other.cooc")
    assert counts(sync(place, photos, recipe, Unused)) == {"unchanged": 3}


def test_adding_looks_at_no_other_file(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    gone, new = sorted(photos.iterdir())[0], photos / "new.png"
    gone.unlink()
    Image.new("RGB", (90, 70), "teal").save(new)
    with open_index(place) as index:
        assert counts(index.add([new], describer=describer)) == {"added": 1}
        assert index.holds(gone)
        assert index.info().pictures == 19


def test_an_added_file_that_is_known_is_recognised_changed_or_left(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    same, changed = sorted(photos.iterdir())[:2]
    copy = Path(shutil.copy(same, photos / "copy.jpg"))
    Image.new("RGB", (90, 70), "teal").save(changed)
    with open_index(place) as index:
        report = index.add([same, changed, copy, copy], describer=describer)
        assert counts(report) == {"updated": 1, "recognised": 1, "unchanged": 1}
        assert report.described == 1
        assert (index.info().pictures, index.info().contents) == (19, 18)
        assert counts(index.add([same], describer=Unused)) == {"unchanged": 1}


def test_an_added_file_that_became_unusable_leaves_the_index(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first = sorted(photos.iterdir())[0]
    first.write_text("hello")
    with open_index(place) as index:
        assert counts(index.add([first], describer=describer)) == {"dropped": 1, "skipped": 1}
        assert (index.info().pictures, index.info().contents) == (17, 17)


def test_files_that_cannot_be_added_are_reported(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    picture = sorted(photos.iterdir())[0].read_bytes()
    (photos / ".hidden").mkdir()
    for name in ("notes.txt", ".hidden.jpg", ".hidden/inside.jpg"):
        (photos / name).write_bytes(picture)
    (photos / "text.jpg").write_text("hello")
    (photos / "folder.jpg").mkdir()
    names = ("notes.txt", ".hidden.jpg", ".hidden/inside.jpg", "text.jpg", "folder.jpg", "missing.jpg")
    with open_index(place) as index:
        report = index.add([photos / name for name in names], describer=describer)
        assert counts(report) == {"skipped": 6}
        assert reasons(report) == {
            "notes.txt": "hidden, or not named as a picture (.jpg, .png, …)",
            ".hidden.jpg": "hidden, or not named as a picture (.jpg, .png, …)",
            "inside.jpg": "in a hidden folder of the collection",
            "text.jpg": "not a picture",
            "folder.jpg": "a folder",
            "missing.jpg": "no such file",
        }
        assert index.info().pictures == 18


def test_a_file_goes_by_its_real_folder_however_it_is_reached(place, photos, recipe, describer, tmp_path) -> None:
    (tmp_path / "link").symlink_to(photos)
    first = sorted(photos.iterdir())[0]
    with open_index(place, recipe) as index:
        index.add([tmp_path / "link" / first.name], describer=describer)
    assert [path for path, _, _ in contents(place)] == [str(first)]


def test_a_file_that_was_skipped_is_no_longer_listed_as_such_once_it_is_in(place, photos, recipe, describer) -> None:
    bad = photos / "bad.jpg"
    bad.write_text("hello")
    sync(place, photos, recipe, describer)
    Image.new("RGB", (90, 70), "teal").save(bad)
    with open_index(place) as index:
        assert list(index.info().skipped) == [str(bad)]
        index.add([bad], describer=describer)
        assert not index.info().skipped


def test_what_was_added_before_an_interruption_is_kept(place, photos, recipe, describer) -> None:
    def interrupt(state) -> None:
        assert state.total == 18
        if state.done == 7:
            raise KeyboardInterrupt

    with open_index(place, recipe) as index:
        with pytest.raises(KeyboardInterrupt):
            index.add(photos.iterdir(), describer=describer, progress=interrupt)
        assert index.info().pictures == 7


@pytest.mark.parametrize("wrong", ["photo.jpg", b"photo.jpg", 3, [3], ["a\0b.jpg"], Path("photo.jpg")], ids=repr)
def test_what_is_no_list_of_paths_is_refused(place, recipe, wrong) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match="got "):
        index.add(wrong)


# Taking out


def test_a_content_is_taken_out_with_all_its_files_and_found_no_more(place, photos, recipe, describer) -> None:
    first, second = sorted(photos.iterdir())[:2]
    shutil.copy(first, photos / "copy.jpg")
    sync(place, photos, recipe, describer)
    row = describer.describe([first])
    with open_index(place) as index, open_index(place) as reader:
        assert reader.search(row, k=1)[0][0].digest == digest_of(first)
        assert index.remove([digest_of(first)]) == 2
        for one in (index, reader):
            assert len(one.search(row, k=50)[0]) == 17
            assert all(hit.digest != digest_of(first) for hit in one.search(row, k=50)[0])
        assert index.removed() == {digest_of(first): [str(photos / "copy.jpg"), str(first)]}
        assert (index.info().pictures, index.info().contents) == (17, 17)
        assert index.row_of(digest_of(first)) is None
        assert index.files_of(digest_of(first)) == []
        assert index.row_of(digest_of(second)) is not None
    assert first.exists()


def test_what_was_taken_out_stays_out_of_later_syncs(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first = sorted(photos.iterdir())[0]
    with open_index(place) as index:
        index.remove([digest_of(first)])
        report = index.sync(photos, describer=Unused)
        assert counts(report) == {"unchanged": 17, "skipped": 1}
        assert reasons(report) == {first.name: "taken out of the collection"}
        assert index.info().skipped == {str(first): "taken out of the collection"}
    again = sync(place, photos, recipe, describer, verify_content=True)
    assert (counts(again), again.described) == ({"recognised": 17, "skipped": 1}, 0)


def test_what_was_taken_out_stays_out_under_another_name_or_stamp(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first, second = sorted(photos.iterdir())[:2]
    with open_index(place) as index:
        index.remove([digest_of(first), digest_of(second)])
        first.rename(photos / "renamed.jpg")
        os.utime(second, (1, 1))
        assert counts(index.sync(photos, describer=describer)) == {"unchanged": 16, "skipped": 2}
        assert sorted(index.removed().values()) == sorted([[str(photos / "renamed.jpg")], [str(second)]])
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 16, "skipped": 2}


def test_a_stored_file_that_gets_a_content_which_was_taken_out_leaves(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first, second = sorted(photos.iterdir())[:2]
    with open_index(place) as index:
        index.remove([digest_of(first)])
        shutil.copyfile(first, second)
        assert counts(index.sync(photos, describer=describer)) == {"unchanged": 16, "dropped": 1, "skipped": 2}
        assert not index.holds(second)


def test_unknown_contents_are_quoted_and_nothing_is_taken_out(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    known = digest_of(sorted(photos.iterdir())[0])
    with open_index(place) as index:
        with pytest.raises(InputError, match="ab" * 16):
            index.remove([known, b"\xab" * 16])
        with pytest.raises(InputError, match=known.hex()):
            index.restore([known])
        assert index.info().pictures == 18
        assert index.removed() == {}
        assert index.remove(iter([])) == 0
        assert index.remove(iter([known])) == 1
        with pytest.raises(InputError, match=known.hex()):
            index.remove([known])


@pytest.mark.parametrize("wrong", [b"\xab" * 16, "ab", 3, ["ab"], [3]], ids=repr)
def test_what_is_no_list_of_digests_is_refused(place, recipe, wrong) -> None:
    with open_index(place, recipe) as index:
        with pytest.raises(InputError, match="digests"):
            index.remove(wrong)
        with pytest.raises(InputError, match="digests"):
            index.restore(wrong)


def test_the_last_picture_can_be_taken_out_and_the_rest_goes_on(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    row = describer.describe(sorted(photos.iterdir())[:1])
    with open_index(place, recipe) as index:
        index.learn_whitening(dim=4)
        index.remove({digest_of(path) for path in photos.iterdir()})
        assert index.search(row, k=3) == [[]]
        assert index.listing(offset=0, limit=5) == (0, [])
        assert counts(index.restore(index.removed(), describer=describer)) == {"added": 18}
        assert len(index.search(row, k=3)[0]) == 3


def test_an_index_without_a_table_of_what_was_taken_out_is_used_as_any_other(
    place, photos, recipe, describer
) -> None:
    sync(place, photos, recipe, describer)
    with sqlite3.connect(place / DATABASE_NAME) as db:
        db.execute("DROP TABLE removed")
    db.close()
    with open_index(place) as index:
        assert index.removed() == {}
        index.sync(photos, describer=Unused)
        with pytest.raises(InputError):
            index.remove([b"\0" * 16])
        digest = digest_of(sorted(photos.iterdir())[0])
        index.remove([digest])
        assert set(index.removed()) == {digest}


def test_nothing_is_changed_while_another_process_synchronises(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first = sorted(photos.iterdir())[0]
    with open_index(place) as index, FileLock(place / LOCK_NAME):
        for change in (
            lambda: index.add([first], describer=describer),
            lambda: index.remove([digest_of(first)]),
            lambda: index.restore([]),
        ):
            with pytest.raises(IndexBusyError):
                change()


def test_a_removal_that_fails_half_way_changes_nothing(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first, second = sorted(photos.iterdir())[:2]
    before = contents(place)
    with open_index(place) as index, closing(sqlite3.connect(place / DATABASE_NAME, isolation_level=None)) as db:
        number = db.execute("SELECT id FROM descriptors WHERE digest = ?", (digest_of(second),)).fetchone()[0]
        db.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON descriptors"
            f" WHEN old.id = {number} BEGIN SELECT raise(ABORT, 'no'); END"
        )
        with pytest.raises(Exception, match="no"):
            index.remove([digest_of(first), digest_of(second)])
        assert index.removed() == {}
        db.execute("DROP TRIGGER refuse")  # no index that has one is opened
    assert contents(place) == before


# Taking back


def test_what_was_taken_out_is_restored_as_it_was(place, photos, recipe, describer) -> None:
    first = sorted(photos.iterdir())[0]
    shutil.copy(first, photos / "copy.jpg")
    sync(place, photos, recipe, describer)
    before = contents(place)
    with open_index(place) as index:
        index.remove([digest_of(first)])
        report = index.restore([digest_of(first)], describer=describer)
        assert counts(report) == {"added": 1, "recognised": 1}
        assert index.removed() == {}
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 19}
    after = contents(place)
    assert [one[:2] for one in after] == [one[:2] for one in before]
    for one, other in zip(after, before, strict=True):
        np.testing.assert_allclose(np.frombuffer(one[2], "<f4"), np.frombuffer(other[2], "<f4"), atol=1e-6)


def test_a_restored_file_that_is_gone_or_changed_is_reported(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    gone, changed, stored, whole = sorted(photos.iterdir())[:4]
    digests = [digest_of(path) for path in (gone, changed, stored, whole)]
    with open_index(place) as index:
        index.remove(digests)
        Image.new("RGB", (90, 70), "teal").save(stored)
        index.sync(photos, describer=describer)
        gone.unlink()
        Image.new("RGB", (70, 90), "navy").save(changed)
        report = index.restore(digests, describer=describer)
        assert counts(report) == {"added": 1, "skipped": 3}
        assert reasons(report) == {
            gone.name: "no such file",
            changed.name: "changed since it was taken out of the collection",
            stored.name: "changed since it was taken out of the collection",
        }
        assert index.removed() == {digests[0]: [str(gone)]}  # to be restored when it can be read again
        assert index.holds(stored)
        assert not index.holds(changed)
        assert counts(index.sync(photos, describer=describer)) == {"added": 1, "unchanged": 16}


def test_a_file_that_has_its_old_content_again_is_restored(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first = sorted(photos.iterdir())[0]
    whole, digest = first.read_bytes(), digest_of(first)
    with open_index(place) as index:
        index.remove([digest])
        Image.new("RGB", (90, 70), "teal").save(first)
        index.sync(photos, describer=describer)
        first.write_bytes(whole)
        assert counts(index.restore([digest], describer=describer)) == {"updated": 1}
        assert index.files_of(digest) == [str(first)]
        assert (index.info().pictures, index.info().contents) == (18, 18)


def test_a_content_that_was_taken_out_is_taken_back_by_adding_it(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first = sorted(photos.iterdir())[0]
    with open_index(place) as index:
        index.remove([digest_of(first)])
        assert counts(index.add([first], describer=describer)) == {"added": 1}
        assert index.removed() == {}
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 18}


def test_one_restored_leaves_the_others_out(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    one, two = sorted(photos.iterdir())[:2]
    with open_index(place) as index:
        digest = digest_of(one)
        index.remove([digest, digest_of(two)])
        shutil.copyfile(two, one)
        report = index.restore([digest], describer=describer)
        assert reasons(report) == {one.name: "taken out of the collection"}
        assert list(index.removed()) == [digest_of(two)]


def test_an_interrupted_restore_still_has_the_rest_taken_out(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    digests = [digest_of(path) for path in photos.iterdir()]
    with open_index(place) as index:
        index.remove(digests)

        class Stopping:
            def __getattr__(self, name):
                return getattr(describer, name)

            def stream(self, items, load):
                for count, one in enumerate(describer.stream(items, load)):
                    if count == 5:
                        raise KeyboardInterrupt
                    yield one

        with pytest.raises(KeyboardInterrupt):
            index.restore(digests, describer=Stopping())
        assert (index.info().pictures, len(index.removed())) == (5, 13)
        index.restore(index.removed(), describer=describer)
        assert (index.info().pictures, len(index.removed())) == (18, 0)
