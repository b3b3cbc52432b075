"""What lies below a folder: the pictures, what only looks like one, and what could not be seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coocnet.data.walk import FileStamp, walk
from coocnet.errors import ImageError, InputError


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names_below(root: Path) -> list[str]:
    """The pictures that the walk finds, relative to the folder, in its order."""
    return [os.path.relpath(file.path, root) for file in walk(root).files]


def skipped_below(root: Path) -> dict[str, ImageError]:
    return {os.path.relpath(error.path, root): error for error in walk(root).skipped}


# ---- what is found ----


KNOWN = [
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".bmp",
    ".heic",
    ".heif",
    ".avif",
]


@pytest.mark.parametrize("suffix", KNOWN)
def test_suffixes_are_known_in_any_case(tmp_path: Path, suffix: str) -> None:
    names = ["a" + suffix, "b" + suffix.upper(), "c" + suffix.title()]
    put(tmp_path, *names)
    assert names_below(tmp_path) == names


def test_pictures_are_sorted_by_path_at_every_depth(tmp_path: Path) -> None:
    names = ["z.jpg", "b/c.jpg", "b.jpg", "b/a/x.jpg", "a.jpg", "B.jpg"]
    put(tmp_path, *names)
    assert names_below(tmp_path) == sorted(names)


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "album/a.jpg")
    monkeypatch.chdir(tmp_path)
    found = walk("album")
    assert (found.root, [file.path for file in found.files]) == (
        str(tmp_path / "album"),
        [str(tmp_path / "album" / "a.jpg")],
    )


def test_a_tilde_is_the_home_folder(own_home: Path) -> None:
    put(own_home, "album/a.jpg")
    assert walk("~/album").root == str(own_home / "album")


def test_a_stamp_is_size_and_time_of_change(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_700_000_000_123_456_000))
    assert [file.stamp for file in walk(tmp_path).files] == [FileStamp(5, 1_700_000_000_123_456_000)]


def test_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "notes.txt", "b/raw.cr2", "b/jpg", "b/a.jpg.part")
    found = walk(tmp_path)
    assert (len(found.files), found.others) == (1, 4)
    assert found.skipped == found.unread_folders == []


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    found = walk(tmp_path)
    assert found.files == found.skipped == found.unread_folders == []
    assert found.others == 0


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, ".a.jpg", ".thumbs/b.jpg", "album/.c.jpg", "album/.trash/deep/d.jpg", "album/e.jpg")
    assert names_below(tmp_path) == ["album/e.jpg"]
    assert walk(tmp_path).skipped == []


def test_a_hidden_folder_with_the_name_of_a_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".thumbs.jpg").mkdir()
    assert walk(tmp_path).skipped == []


def test_a_hidden_root_is_walked(tmp_path: Path) -> None:
    put(tmp_path, ".album/a.jpg")
    assert names_below(tmp_path / ".album") == ["a.jpg"]


# ---- links, and what has a picture's name but cannot be one ----


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/original.dat", "album/notes.txt")
    (tmp_path / "album" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "original.dat")
    found = walk(tmp_path / "album")
    assert [(file.path, file.stamp.size_bytes) for file in found.files] == [
        (str(tmp_path / "album" / "a.jpg"), len("elsewhere/original.dat"))
    ]


def test_links_to_folders_are_not_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.jpg", "album/deep/b.jpg")
    (tmp_path / "album" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "deep" / "loop").symlink_to(tmp_path / "album")
    assert names_below(tmp_path / "album") == ["deep/b.jpg"]


def test_a_root_that_is_a_link_is_walked(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "album").symlink_to("elsewhere")
    found = walk(tmp_path / "album")
    assert [file.path for file in found.files] == [str(tmp_path / "elsewhere" / "a.jpg")]


def test_a_dangling_link_is_gone_only_where_its_targets_folder_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    (tmp_path / "b.jpg").symlink_to("unmounted/gone.jpg")
    gone, unknown = skipped_below(tmp_path)["a.jpg"], skipped_below(tmp_path)["b.jpg"]
    assert (gone.reason, gone.unread) == ("a link to a file that is gone", False)
    assert (unknown.reason, unknown.unread) == ("cannot be read: no such file or directory", True)
    assert names_below(tmp_path) == []


def test_a_folder_with_the_name_of_a_picture_is_reported_and_entered(tmp_path: Path) -> None:
    put(tmp_path, "panorama.jpg/tile.png")
    error = skipped_below(tmp_path)["panorama.jpg"]
    assert (error.reason, error.unread) == ("a folder", False)
    assert names_below(tmp_path) == ["panorama.jpg/tile.png"]


def test_a_link_to_a_folder_with_the_name_of_a_picture_is_reported_and_not_entered(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.jpg", "album/b.jpg")
    (tmp_path / "album" / "link.jpg").symlink_to(tmp_path / "elsewhere")
    assert skipped_below(tmp_path / "album")["link.jpg"].reason in ("a folder", "a link to a folder")
    assert names_below(tmp_path / "album") == ["b.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_with_the_name_of_a_picture_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    error = skipped_below(tmp_path)["a.jpg"]
    assert (error.reason, error.unread) == ("not a regular file", False)
    assert names_below(tmp_path) == []


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    try:
        for name in (b"caf\xe9.jpg", b"\xff\xfe.png"):
            (tmp_path / os.fsdecode(name)).write_bytes(b"x")
        (tmp_path / os.fsdecode(b"gone\xe9.jpg")).symlink_to("nowhere")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    found = walk(tmp_path)
    assert {os.path.basename(os.fsencode(file.path)) for file in found.files} == {b"caf\xe9.jpg", b"\xff\xfe.png"}
    assert all(os.path.exists(file.path) for file in found.files)
    (dangling,) = found.skipped
    assert os.path.basename(os.fsencode(dangling.path)) == b"gone\xe9.jpg"
    assert str(dangling).encode("utf-8").startswith(os.fsencode(tmp_path) + rb"/gone\udce9.jpg: a link to")


# ---- what could not be seen ----


def assert_unread_but_the_rest_found(root: Path, folder: str) -> None:
    found = walk(root)
    assert [os.path.relpath(error.path, root) for error in found.unread_folders] == [folder]
    assert found.unread_folders[0].reason.startswith("folder cannot be listed: ")
    assert [os.path.relpath(file.path, root) for file in found.files] == ["a.jpg", "z/b.jpg"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_reported_and_the_rest_found(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "closed/hidden.jpg", "z/b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        assert_unread_but_the_rest_found(tmp_path, "closed")
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.skipif(os.mkdir not in os.supports_dir_fd, reason="this system opens no folder by its parent")
def test_a_folder_too_deep_to_be_opened_is_reported_and_the_rest_found(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "z/b.jpg")
    path_limit = os.pathconf(tmp_path, "PC_PATH_MAX")
    parent, path = os.open(tmp_path, os.O_RDONLY), tmp_path
    while len(os.fsencode(path)) < path_limit:
        name = "d" * min(200, os.pathconf(tmp_path, "PC_NAME_MAX"))
        os.mkdir(name, dir_fd=parent)
        child = os.open(name, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent, path = child, path / name
    os.close(parent)
    assert_unread_but_the_rest_found(tmp_path, os.path.relpath(path, tmp_path))


# ---- what is no folder ----


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        walk(tmp_path / "gone")
    assert str(caught.value).startswith(f"{tmp_path / 'gone'} does not exist; give the folder")


def test_a_file_as_root_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(InputError) as caught:
        walk(tmp_path / "a.jpg")
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'} is not a folder; give the folder")


def test_a_dangling_link_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "album").symlink_to("gone")
    with pytest.raises(InputError, match="gone does not exist"):
        walk(tmp_path / "album")


def test_a_file_dated_centuries_ahead_has_a_stamp_of_64_bits(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", (2**34, 2**34))
    assert walk(tmp_path).files[0].stamp.modified_ns == 2**63 - 1
