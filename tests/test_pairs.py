"""Pairs of pictures from a list of what each shows."""

from __future__ import annotations

import pytest

from coocnet.data.pairs import pairs_of_list
from coocnet.errors import InputError


def test_pictures_of_one_instance_are_paired_with_each_other(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,instance,more\na.jpg,tower,x\nb.jpg,gate,x\nsub/c.jpg,tower,x\n/d.jpg,tower,x\n")
    a, c, d = str(tmp_path / "a.jpg"), str(tmp_path / "sub/c.jpg"), "/d.jpg"
    assert pairs_of_list(path) == [(a, c), (a, d), (c, d)]


def test_of_very_many_pairs_the_same_thousand_are_drawn(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,instance\n" + "".join(f"{n}.jpg,tower\n" for n in range(60)))
    drawn = pairs_of_list(path)
    assert len(set(drawn)) == 1000
    assert pairs_of_list(path) == drawn


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"image,name\na.jpg,b\n", "no column 'instance'"),
        (b"", "no column 'image'"),
        (b"image,instance\na.jpg,\n", "line 2: an image or its instance is missing"),
        (b"image,instance\na.jpg,one\nb.jpg,two\n", "no instance with two pictures"),
        (b"image,instance\n\xff\xfe,one\n", "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, content: bytes, says: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        pairs_of_list(path)


def test_a_missing_list_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        pairs_of_list(tmp_path / "none.csv")
