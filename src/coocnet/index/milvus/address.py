"""Where an index in Milvus is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from coocnet.errors import InputError

SCHEMES = ("milvus", "milvus+tls", "milvus-lite")
TOKEN = "COOCNET_MILVUS_TOKEN"  # noqa: S105 - the name of the variable
_PORT = 19530
_NAME = re.compile(r"(?!.*__)[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Address:
    """An index on a Milvus server, or in a file of Milvus Lite.

    Attributes:
        uri: as pymilvus takes it.
        name: of the index, with which the names of its collections begin.
        shown: as messages say it: without a password.
        token: what the server is shown, from the address or from the environment; empty for none.
    """

    uri: str
    name: str
    shown: str
    token: str = field(default="", repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is in a file of Milvus Lite."""
        return not self.uri.startswith(("http://", "https://"))

    @classmethod
    def of(cls, location: str) -> Address:
        """``milvus://[user:password@]host[:port]/name``, or ``milvus-lite:///folder/name``.

        ``milvus+tls`` speaks TLS. Without a password the token is that of the environment's
        ``COOCNET_MILVUS_TOKEN``, ``user:password`` or an API key.

        Raises:
            InputError: something else.
        """
        try:
            parts = urlsplit(location)
            port = parts.port or _PORT
        except ValueError:
            shown = _without_password(location)
            raise InputError(f"{shown!r} is no address of an index: host or port cannot be read") from None
        folder, _, name = unquote(parts.path).rpartition("/")
        is_file = parts.scheme == "milvus-lite"
        is_whole = not parts.netloc if is_file else bool(parts.hostname and not folder)
        if not _NAME.fullmatch(name) or not is_whole or parts.query or parts.fragment:
            raise InputError(
                f"an index in Milvus is milvus://HOST:PORT/NAME or milvus-lite:///FOLDER/NAME, with a name of "
                f"letters, digits and single _, got {_without_password(location)!r}"
            )
        if is_file:
            return cls(os.path.join(folder or "/", f"{name}.db"), name, location)
        scheme = "https" if parts.scheme == "milvus+tls" else "http"
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        given = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        return cls(
            f"{scheme}://{host}:{port}",
            name,
            f"{parts.scheme}://{host}:{port}/{name}",
            given or os.environ.get(TOKEN, ""),
        )


def is_in_milvus(location: str) -> bool:
    """Whether a location is meant to be one in Milvus, well written or not."""
    return location.partition(":")[0] in SCHEMES and ":" in location


def _without_password(location: str) -> str:
    return re.sub(r"//.*@", "//…@", location, flags=re.DOTALL)
