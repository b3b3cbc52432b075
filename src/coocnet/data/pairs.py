"""Pictures with what each shows: from a list, or from a folder with a folder for every thing."""

from __future__ import annotations

import csv
import itertools
import os
import random
from collections import defaultdict

from coocnet.data.walk import walk
from coocnet.errors import InputError, printable

_MOST_OF_ONE_INSTANCE = 1000


def pictures_by_instance(place: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The pictures of every instance, as absolute paths; instances and pictures in their order there.

    Args:
        place: a CSV file with the columns image and instance, images named as absolute paths or from its folder on;
            or a folder with one folder for every instance, whose pictures may lie deeper.

    Raises:
        InputError: neither of both; a column or a value is missing; a picture is listed under two instances; or
            pictures lie in the folder outside of any instance's.
    """
    return _of_folder(place) if os.path.isdir(place) else _of_list(place)


def pairs_of_list(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Every pair of pictures with one instance in a CSV file with the columns image and instance.

    Of an instance with very many pairs 1,000 are drawn, always the same ones.

    Args:
        path: the file; images are named as absolute paths or from its folder on.

    Returns:
        Absolute paths.

    Raises:
        InputError: it cannot be read, lacks a column or a value, or has no instance with two pictures.
    """
    found: list[tuple[str, str]] = []
    for instance, images in _of_list(path).items():
        every = list(itertools.combinations(images, 2))
        few = len(every) <= _MOST_OF_ONE_INSTANCE
        found += every if few else random.Random(instance).sample(every, _MOST_OF_ONE_INSTANCE)  # noqa: S311
    if not found:
        raise InputError(f"{printable(path)} names no instance with two pictures: there is nothing to learn from")
    return found


def _of_list(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    name, around = printable(path), os.path.dirname(os.path.abspath(path))
    showing: dict[str, list[str]] = defaultdict(list)
    instance_of: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if missing := {"image", "instance"} - {*(rows.fieldnames or ())}:
                raise InputError(f"{name} has no column {min(missing)!r}; it needs image and instance")
            for row in rows:
                if not ((row["image"] or "").strip() and (row["instance"] or "").strip()):
                    raise InputError(f"{name}, line {rows.line_num}: an image or its instance is missing")
                folder, file = os.path.split(os.path.join(around, row["image"]))
                image = os.path.join(os.path.realpath(folder), file)
                is_new = image not in instance_of
                before = instance_of.setdefault(image, row["instance"])
                if before != row["instance"]:
                    raise InputError(
                        f"{name}, line {rows.line_num}: {row['image']!r} is listed as {before!r} and as "
                        f"{row['instance']!r}; a picture shows one thing"
                    )
                if is_new:
                    showing[before].append(image)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8: save it as that ({error})") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    return dict(showing)


def _of_folder(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    found = walk(folder)
    showing: dict[str, list[str]] = defaultdict(list)
    if amiss := [*found.unread_folders, *found.skipped]:
        raise InputError(f"{len(amiss)} below {printable(folder)} cannot be used: {amiss[0]}; mend or remove them")
    for file in found.files:
        instance, _, rest = os.path.relpath(file.path, found.root).partition(os.sep)
        if not rest:
            raise InputError(
                f"{printable(file.path)} lies in no instance's folder: {printable(folder)} is to hold one folder for "
                "every thing, with the pictures of it"
            )
        showing[instance].append(file.path)
    if not showing:
        raise InputError(f"{printable(folder)} holds no pictures; give a folder with one folder for every thing")
    return dict(showing)
