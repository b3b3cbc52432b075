"""Pictures: decoding files into arrays, finding them in a folder, rendering scenes of our own; benchmarks below."""

from coocnet.data.images import Box, Picture, decode, fit, read_bytes
from coocnet.data.walk import FileStamp, FoundFile, Walk, walk

__all__ = ["Box", "FileStamp", "FoundFile", "Picture", "Walk", "decode", "fit", "read_bytes", "walk"]
