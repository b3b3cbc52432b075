"""The table of targets."""

from __future__ import annotations

from importlib import import_module

from fuzz.target import Target

TARGETS = {
    "images": "pictures.IMAGES",
    "boxes": "pictures.BOXES",
    "recipes": "recipes.RECIPES",
    "weights": "networks.WEIGHTS",
    "whitenings": "networks.WHITENINGS",
    "filters": "networks.FILTERS",
    "checkpoints": "networks.CHECKPOINTS",
    "arrays": "evaluations.ARRAYS",
    "truths": "evaluations.TRUTHS",
    "archives": "archives.ARCHIVES",
    "databases": "indexes.DATABASES",
    "derived": "indexes.DERIVED",
    "repairs": "repairs.REPAIRS",
    "http": "services.HTTP",
    "sockets": "services.SOCKETS",
}
"""Where each is, so that a process loads no more than its own needs."""


def target(name: str) -> Target:
    """The target of this name."""
    module, _, attribute = TARGETS[name].partition(".")
    found = getattr(import_module(f"fuzz.{module}"), attribute)
    assert isinstance(found, Target)
    return found
