"""Moving an index elsewhere: from a folder to a server, or back, without describing anything again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from coocnet.errors import IndexStorageError, InputError, printable
from coocnet.index.collection import Index
from coocnet.index.facts import MIGRATING, mismatch
from coocnet.index.records import Records

_COPIED = ("weights_sha256", "dim", "engines", "storage", "thumbnails")
_AT_ONCE = 500

Item = TypeVar("Item")


@dataclass
class MigrationReport:
    """What a migration did.

    Attributes:
        pictures: files that both indexes now hold, each compared with the other in stamp, content and row.
        copied: how many of them were written by this run; the others an interrupted run before it had written.
        contents: different contents, each with one row.
        removed: files noted as taken out of the collection.
    """

    pictures: int = 0
    copied: int = 0
    contents: int = 0
    removed: int = 0


def migrate(
    source: Index, destination: Index, *, progress: Callable[[str, int, int], None] | None = None
) -> MigrationReport:
    """Copies all that an index holds into one that is empty, then compares them row by row.

    Pictures, rows, the whitening in force, the folders with what was skipped there, and what was taken out. What is
    derived, such as an approximate search, is left to be built there. It may be interrupted at any moment; the same
    call goes on; of a copy that is finished it only compares. The source is only read.

    Args:
        source: an index.
        destination: one of the same recipe that holds nothing, or what was copied of this source.
        progress: called with what is being done, pictures done, and pictures in all.

    Raises:
        InputError: the destination holds pictures of its own; the source is an unfinished copy; or both are the same.
        RecipeMismatchError: the destination has another recipe.
        IndexBusyError: another process writes the destination.
        IndexStorageError: one cannot be read or written; or the source was changed meanwhile.
    """
    there, here = source._store, destination._store
    if here.place == there.place:
        raise InputError(f"{printable(here.place)} cannot be moved to itself")
    if there.meta(MIGRATING):
        raise InputError(f"{printable(there.place)} is an unfinished copy: finish it first, or copy what it is of")
    if destination.recipe.row_fingerprint() != source.recipe.row_fingerprint():
        raise mismatch(here.place, source.recipe, destination.recipe)
    report, before = MigrationReport(), source.state()
    told = progress or _untold
    with here.sole_writer():
        if _is_its_own(there, here):
            if here.meta(MIGRATING) or not _is_finished(there, here, report, told):
                raise InputError(
                    f"{printable(here.place)} holds pictures already, and not those of an unfinished copy of "
                    f"{printable(there.place)}: give a new place"
                )
            return report
        _begin(there, here)
        _copy_whitening(there, here)
        _copy_pictures(there, here, report, told)
        _copy_notes(there, here, report)
        differs = _compare(there, here, report, told)
        if source.state() != before or _notes_of(there) != _notes_of(here):
            raise IndexStorageError(
                f"{printable(there.place)} was changed meanwhile: do the same again, it copies what is new"
            )
        if differs:
            raise IndexStorageError(
                f"{printable(here.place)} does not hold {differs} as it was copied: do the same again, "
                "and if that does not help, copy to a new place"
            )
        here.put_facts({MIGRATING: ""})
    destination._changed()
    return report


def _is_its_own(there: Records, here: Records) -> bool:
    """Whether it holds something that is not of an unfinished copy."""
    holds = here.count_pictures() or here.folder_paths() or here.taken_out() or here.meta(MIGRATING)
    return bool(holds) and here.meta(MIGRATING) != _name_of(there)


def _is_finished(
    there: Records, here: Records, report: MigrationReport, told: Callable[[str, int, int], None]
) -> bool:
    """Whether it is a copy already, as one is whose run was ended after its last step."""
    if here.count_pictures() != there.count_pictures() or _notes_of(there) != _notes_of(here):
        return False
    if not _same_whitening(there, here):
        return False
    report.removed = len(here.taken_out())
    return not _compare(there, here, report, told, drops=False)


def _name_of(there: Records) -> str:
    return f"{there.meta('made')} {there.place}"


def _begin(there: Records, here: Records) -> None:
    """Notes what is being copied, so that nothing else is taken for it."""
    if here.meta(MIGRATING) != _name_of(there):
        here.put_facts({MIGRATING: _name_of(there)})
    here.adopt(there.recipe)
    here.put_facts({key: value for key in _COPIED if (value := there.meta(key)) is not None})


def _same_whitening(there: Records, here: Records) -> bool:
    wanted, held = there.whitening(), here.whitening()
    if wanted is None or held is None:
        return wanted is held and there.whitening_declined() == here.whitening_declined()
    return held.learned_here == wanted.learned_here and held.whitening.equals(wanted.whitening)


def _copy_whitening(there: Records, here: Records) -> None:
    """Before the rows, which are then whitened as they come."""
    if _same_whitening(there, here):
        return
    wanted = there.whitening()
    if wanted is not None:
        here.put_whitening(wanted.whitening, learned_here=wanted.learned_here)
    elif there.whitening_declined():
        here.put_whitening(None, learned_here=False)
    else:
        here.forget_whitening()


def _copy_pictures(
    there: Records, here: Records, report: MigrationReport, told: Callable[[str, int, int], None]
) -> None:
    done, total = 0, there.count_pictures()
    for some in _blocks(there.each_picture()):
        known = here.pictures_at([one.path for one in some])
        new = [one for one in some if known.get(one.path) != one]
        rows = there.rows_of_each([one.digest for one in new])
        here.put([replace(one, row=rows[one.digest]) for one in new if one.digest in rows])
        done += len(some)
        report.copied += len(new)
        told("Copying", done, total)


def _copy_notes(there: Records, here: Records, report: MigrationReport) -> None:
    skipped = there.skipped()
    for folder in there.folders():
        below = os.path.join(folder.path, "")
        reasons = {path: reason for path, reason in skipped.items() if path == folder.path or path.startswith(below)}
        here.note_sync(folder.path, reasons, when=folder.synchronised)
    wanted = there.taken_out()
    if former := {one.digest for one in here.taken_out()}:
        here.forget_removals(former)
    here.note_removals(wanted, as_they_are=True)
    report.removed = len(wanted)


def _notes_of(records: Records) -> tuple[object, ...]:
    return records.folders(), records.skipped(), records.taken_out()


def _compare(
    there: Records,
    here: Records,
    report: MigrationReport,
    told: Callable[[str, int, int], None],
    *,
    drops: bool = True,
) -> str:
    """Picture by picture and row by row; says what differs, if anything does.

    What only the copy has was deleted at the source between two runs, and is dropped, unless that differs too.
    """
    total, gone = there.count_pictures(), []
    copies = here.each_picture()
    copy = next(copies, None)
    for some in _blocks(there.each_picture()):
        digests = [one.digest for one in some]
        rows, copied = there.rows_of_each(digests), here.rows_of_each(digests)
        for one in some:
            while copy is not None and os.fsencode(copy.path) < os.fsencode(one.path):
                gone.append(copy.path)
                copy = next(copies, None)
            if copy != one or not np.array_equal(rows.get(one.digest, ()), copied.get(one.digest, ())):
                return printable(one.path)
            copy = next(copies, None)
        report.pictures += len(some)
        told("Comparing", report.pictures, total)
    gone += [one.path for one in chain([copy] if copy is not None else [], copies)]
    if gone and not drops:
        return printable(gone[0])
    here.drop(gone)
    report.contents = there.count_contents()
    return "" if here.count_contents() == report.contents else f"{report.contents} contents"


def _untold(what: str, done: int, total: int) -> None:
    """Tells nobody how far it is."""


def _blocks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while some := list(islice(items, _AT_ONCE)):
        yield some
