"""The command: parses, calls, prints. Everything it does, the library does."""

from coocnet.cli import (
    catalogue,
    collection,
    datasets,
    evaluation,
    learning,
    migration,
    pictures,
    planning,
    removal,
    repairing,
    reproduction,
    searching,
    serving,
    training,
)
from coocnet.cli.app import app, main

__all__ = [
    "app",
    "catalogue",
    "collection",
    "datasets",
    "evaluation",
    "learning",
    "main",
    "migration",
    "pictures",
    "planning",
    "removal",
    "repairing",
    "reproduction",
    "searching",
    "serving",
    "training",
]
