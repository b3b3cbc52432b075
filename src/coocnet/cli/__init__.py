"""The command: parses, calls, prints. Everything it does, the library does."""

from coocnet.cli import catalogue, collection, evaluation, learning, pictures
from coocnet.cli.app import app, main

__all__ = ["app", "catalogue", "collection", "evaluation", "learning", "main", "pictures"]
