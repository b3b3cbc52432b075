"""Files that come with the package: a network's weights, and a whitening for the rows made with it."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent
"""The folder they lie in; only read."""
