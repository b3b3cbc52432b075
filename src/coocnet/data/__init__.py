"""Pictures: decoding files into arrays, finding them in a folder, and rendering scenes of our own."""

from coocnet.data.images import Box, Picture, decode, fit, read_bytes
from coocnet.data.walk import FileStamp, FoundFile, Walk, walk

__all__ = ["Box", "FileStamp", "FoundFile", "Picture", "Walk", "decode", "fit", "read_bytes", "walk"]
