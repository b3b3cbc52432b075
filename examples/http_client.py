"""For engineers: searches a running service with a picture, over HTTP, with nothing but httpx.

    coocnet serve ~/Pictures                            # in another terminal
    python examples/http_client.py tower.jpg
    python examples/http_client.py tower.jpg --url https://photos.example.org    # the token in COOCNET_TOKEN

The service says what it can at /api/openapi.json; docs/serve.md explains it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import httpx


def ask(service: httpx.Client, method: str, path: str, *, tries: int = 10, **how: Any) -> Any:
    """The answer's JSON. The service says when to come again; what it refuses for good ends the program."""
    answer = service.request(method, path, **how)
    while "Retry-After" in answer.headers and (tries := tries - 1) > 0:
        time.sleep(float(answer.headers["Retry-After"]))
        answer = service.request(method, path, **how)
    is_json = "json" in answer.headers.get("Content-Type", "")
    if answer.is_error or not is_json:
        raise SystemExit(f"{path}: {answer.json()['detail'] if is_json else f'status {answer.status_code}'}")
    return answer.json()


def main() -> None:
    """Sends a picture and prints what the collection has like it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--limit", type=int, default=5)
    given = parser.parse_args()
    token = os.environ.get("COOCNET_TOKEN")
    headers = httpx.Headers({"Authorization": f"Bearer {token}"} if token else {}, encoding="utf-8")
    try:
        sent = given.picture.read_bytes()
    except OSError as error:
        raise SystemExit(f"{given.picture}: {error.strerror}") from error
    try:
        patient = httpx.HTTPTransport(retries=5)  # one that was just started does not listen yet
        with httpx.Client(base_url=given.url, headers=headers, timeout=70, transport=patient) as service:
            ask(service, "GET", "/health/ready")
            info = ask(service, "GET", "/api/info")
            found = ask(service, "POST", "/api/search/image", params={"limit": given.limit}, content=sent)
    except httpx.TransportError as error:
        raise SystemExit(f"nothing answers at {given.url}: {error}") from error
    print(f"{info['name']}: {info['pictures']} pictures")
    for hit in found["hits"]:
        print(f"{hit['rank']:>3}  {hit['similarity']:.3f}  {hit['name']}")


if __name__ == "__main__":
    main()
