"""Pairs of pictures that show the same thing, from a list of what each picture shows."""

from __future__ import annotations

import csv
import itertools
import os
import random
from collections import defaultdict

from coocnet.errors import InputError, printable

_MOST_OF_ONE_INSTANCE = 1000


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
    around = os.path.dirname(os.path.abspath(path))
    showing: dict[str, dict[str, None]] = defaultdict(dict)
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if missing := {"image", "instance"} - {*(rows.fieldnames or ())}:
                raise InputError(f"{printable(path)} has no column {min(missing)!r}; it needs image and instance")
            for row in rows:
                if not (row["image"] and row["instance"]):
                    raise InputError(f"{printable(path)}, line {rows.line_num}: an image or its instance is missing")
                showing[row["instance"]][os.path.join(around, row["image"])] = None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{printable(path)}: {getattr(error, 'strerror', None) or error}") from error
    found: list[tuple[str, str]] = []
    for instance, images in showing.items():
        every = list(itertools.combinations(images, 2))
        few = len(every) <= _MOST_OF_ONE_INSTANCE
        found += every if few else random.Random(instance).sample(every, _MOST_OF_ONE_INSTANCE)  # noqa: S311
    if not found:
        raise InputError(f"{printable(path)} names no instance with two pictures: there is nothing to learn from")
    return found
