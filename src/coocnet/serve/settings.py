"""What a service is told when it starts, and its limits: the only home of their defaults."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from coocnet.errors import InputError
from coocnet.recipe import Recipe

LEAST_TOKEN_LETTERS = 16


@dataclass(frozen=True)
class Settings:
    """How an index is served.

    Attributes:
        place: the index's own folder.
        recipe: to open it with; the one it stores if not given.
        token: what a client has to show; empty where none is needed, which is on the loopback interface alone.
        hosts: names by which the service may be addressed, beside those of the loopback interface and bare addresses.
        add_to: a folder for pictures that clients add; empty to refuse them.
        read_only: refuse everything that changes the index.
        device: where pictures are described; see :class:`coocnet.describe.Describer`.
        engine: see :class:`coocnet.describe.Describer`.
        upload_bytes: of a picture that is sent, at most.
        upload_px: its pixels, at most.
        json_bytes: of any other body, at most.
        kept_upload_bytes: memory for pictures that were sent, the oldest leave first.
        kept_thumbnail_bytes: memory for thumbnails.
        hits: the farthest place in a ranking that can be asked for.
        at_once: requests in work or waiting; one more is refused with 503.
        per_client: of these from one address, at most; one more is refused with 429.
        streams: open event streams, at most.
        answer_time_s: from the whole request to the beginning of the answer, at most.
        body_time_s: for all of a request's body to arrive, at most.
        transfer_time_s: for the head of a request, each piece of its body, and the taking of each piece of an answer.
        closing_time_s: how long answers begun may take once the service is told to end.
    """

    place: str
    recipe: Recipe | None = None
    token: str = ""
    hosts: tuple[str, ...] = ()
    add_to: str = ""
    read_only: bool = False
    device: str | None = None
    engine: str | None = None
    upload_bytes: int = 64 << 20
    upload_px: int = 100_000_000
    json_bytes: int = 8 << 20
    kept_upload_bytes: int = 256 << 20
    kept_thumbnail_bytes: int = 64 << 20
    hits: int = 2000
    at_once: int = 64
    per_client: int = 48
    streams: int = 32
    answer_time_s: float = 60.0
    body_time_s: float = 120.0
    transfer_time_s: float = 30.0
    closing_time_s: float = 20.0

    def __post_init__(self) -> None:
        if self.token and (len(self.token) < LEAST_TOKEN_LETTERS or not self.token.isascii()):
            raise InputError(
                f"a token has at least {LEAST_TOKEN_LETTERS} letters and digits, got {len(self.token)} letters; "
                "leave it out to have one made"
            )
        counts = ("upload_bytes", "upload_px", "json_bytes", "hits", "at_once", "per_client", "streams")
        for name in (*counts, "answer_time_s", "body_time_s", "transfer_time_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} of a service is more than 0, got {getattr(self, name)!r}")
        if self.add_to and not os.path.isdir(self.add_to):
            raise InputError(f"{self.add_to!r} is not a folder: make it first; added pictures are kept there")


def is_loopback(host: str) -> bool:
    """Whether a service that listens there can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
