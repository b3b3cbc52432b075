"""The index: a folder that remembers the rows of a collection, keeps up with it, and is searched."""

from coocnet.index.approximate import ApproximateInfo
from coocnet.index.collection import Index
from coocnet.index.gallery import Hit
from coocnet.index.info import IndexInfo
from coocnet.index.local import LocalIndex
from coocnet.index.opening import open_index
from coocnet.index.records import SyncedFolder
from coocnet.index.sync import SyncProgress, SyncReport

__all__ = [
    "ApproximateInfo",
    "Hit",
    "Index",
    "IndexInfo",
    "LocalIndex",
    "SyncProgress",
    "SyncReport",
    "SyncedFolder",
    "open_index",
]
