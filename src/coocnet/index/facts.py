"""What an index says of itself: what its rows were made with, and the whitening above them."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from coocnet.errors import ForeignIndexError, RecipeMismatchError, printable, quoted
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

NO_WHITENING = "0"
"""The version that stands for none, where none was asked for."""

_MOST_DIGITS = 18

MIGRATING = "migrating"
"""The fact that says what an index is an unfinished copy of: when that was made, and where it is."""


@dataclass(frozen=True)
class StoredWhitening:
    """A whitening with its version and whether it was learned on this collection."""

    version: int
    learned_here: bool
    whitening: Whitening


class Facts(ABC):
    """Facts about an index as a whole, wherever they are stored."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the index is, as messages say it."""

    @abstractmethod
    def meta(self, key: str) -> str | None:
        """A fact about the index as a whole."""

    @abstractmethod
    def put_facts(self, facts: Mapping[str, str]) -> None:
        """Stores facts together, as one change of what searches answer."""

    @abstractmethod
    def whitening(self) -> StoredWhitening | None:
        """The whitening in force, or None."""

    @property
    def recipe(self) -> Recipe:
        """The recipe the rows were made with; as long as there are none, the one the index was made with."""
        return _recipe(self.meta("recipe") or "")

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the weights the rows were made with; None as long as nothing was described."""
        return self.meta("weights_sha256")

    @property
    def copied_from(self) -> str:
        """Of which index this is an unfinished copy; empty where it is none."""
        return (self.meta(MIGRATING) or "").partition(" ")[2]

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuses a recipe whose rows would differ from those here; where there are none, any will do.

        Raises:
            RecipeMismatchError: the message lists the fields that differ.
        """
        stored = self.recipe
        if self.weights_sha256 is not None and stored.row_fingerprint() != recipe.row_fingerprint():
            raise mismatch(self.place, stored, recipe)

    def check_weights(self, weights_sha256: str) -> None:
        """Refuses other weights than those of the rows here.

        Raises:
            RecipeMismatchError: other weights.
        """
        bound = self.weights_sha256
        if bound is not None and bound != weights_sha256:
            raise RecipeMismatchError(
                f"{printable(self.place)} was made with weights of SHA-256 {bound[:12]}…, "
                f"not {weights_sha256[:12]}…. Give the weights it was made with (those inside the "
                "package: install the release of coocnet that made it), or make another index."
            )

    def adopt(self, recipe: Recipe) -> None:
        """Takes over a recipe that fits the rows here. To be called by the sole writer.

        Raises:
            RecipeMismatchError: it does not fit.
        """
        self.check_recipe(recipe)
        if recipe != self.recipe:
            self.put_facts({"recipe": recipe.to_toml()})

    def bind(self, recipe: Recipe, weights_sha256: str, dim: int, *engines: str) -> None:
        """Notes, before the first row, what rows are made with. To be called by the sole writer.

        Recipe, weights and dimensions are those of all rows; engines may be several, since their rows agree.

        Raises:
            RecipeMismatchError: the rows here were made with another recipe or other weights.
            WhiteningError: the whitening in force was given for other rows.
        """
        self.check_recipe(recipe)
        self.check_weights(weights_sha256)
        held = self.whitening()
        if held is not None:
            held.whitening.check_fits(recipe.row_fingerprint(), weights_sha256, dim)
        facts = {"recipe": recipe.to_toml(), "weights_sha256": weights_sha256, "dim": str(dim)}
        self.put_facts({**facts, "engines": " ".join(sorted({*self.engines(), *engines}))})

    @property
    def dim(self) -> int:
        """Numbers in a row; 0 before the first.

        Raises:
            ForeignIndexError: what stands there is no such number.
        """
        return self.whole("dim")

    def whole(self, key: str) -> int:
        """A fact that is a whole number, 0 where there is none.

        Raises:
            ForeignIndexError: what stands there is none.
        """
        text = self.meta(key) or "0"
        if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
            raise ForeignIndexError(
                f"{printable(self.place)} is damaged (its {key} is {quoted(text)}). Make the index anew."
            )
        return int(text)

    def engines(self) -> list[str]:
        """The engines that rows were described by; none before the first, and of an index older than engines."""
        return (self.meta("engines") or "").split()

    def whitening_declined(self) -> bool:
        """Whether the user asked for none, so that none is to be learned either."""
        return self.meta("whitening") == NO_WHITENING

    def put_storage(self, storage: str) -> None:
        """Notes how rows are to be kept for searching, a name in ``coocnet.index.kept.STORAGES``."""
        self.put_facts({"storage": storage})

    def put_thumbnails(self, place: str) -> None:
        """Notes where small copies of the pictures are to be kept; nowhere, where it is empty."""
        self.put_facts({"thumbnails": place})


@lru_cache(16)
def _recipe(text: str) -> Recipe:
    # Every search asks for the recipe, and to parse it takes longer than much of a search.
    return Recipe.from_toml(text)


def mismatch(place: str, stored: Recipe, given: Recipe) -> RecipeMismatchError:
    """The error that lists the fields in which two recipes' rows differ, long values cut."""
    ours, theirs = stored.row_table(), given.row_table()
    fields = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    there, here = ([reprlib.repr(table.get(name)) for name in fields] for table in (ours, theirs))
    listed = "; ".join(
        f"{name} {one} there, {other} here" for name, one, other in zip(fields, there, here, strict=True)
    )
    return RecipeMismatchError(
        f"{printable(place)} holds rows of another recipe: {listed}. "
        "Search it with its own recipe (leave the recipe out), or make another index for this one."
    )
