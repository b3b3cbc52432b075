"""Whatever is asked of the service, it answers as its own OpenAPI document says, and tells nothing it should not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from service import Collection, Service, make_collection, picture_id, serve

INSTANCES = 4
MANNERS = settings(
    max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
PROBLEM = "application/problem+json"
SENSELESS = [
    # That exactly one source is named, and that a box lies within its picture, no schema says.
    "positive_data_acceptance",
    # These follow a resource through several requests, which here are made one by one.
    "use_after_free",
    "ensure_resource_availability",
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return make_collection(tmp_path_factory.mktemp("asked"), instances=INSTANCES)


@pytest.fixture(scope="module")
def service(asked: Collection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service to which everything may be done."""
    home = tmp_path_factory.mktemp("schema")
    with pytest.MonkeyPatch.context() as patch, serve(asked.index, "--add-to", asked.photos, home=home) as service:
        patch.setenv("no_proxy", "127.0.0.1")
        yield service


@pytest.fixture(scope="module")
def document(service: Service, asked: Collection) -> schemathesis.schemas.BaseSchema:
    """What the service says of itself, with values among those drawn that it knows."""
    document = schemathesis.openapi.from_url(f"{service.url}api/openapi.json", wait_for_schema=10)
    document.config.update(base_url=service.url, request_timeout=30, max_redirects=0)
    pictures = [asked.photos / name for name in asked.names] + asked.queries
    ids = [picture_id(path) for path in pictures[:6]]
    bodies = [path.read_bytes() for path in pictures[:3]]

    def often_known(context: object, drawn: Any) -> Any:
        for name in {"id", "picture", "upload", "result", "relevant"} & set(drawn or {}):
            drawn[name] = _one_of(ids, drawn[name])
        return drawn

    def often_a_picture(context: object, drawn: Any) -> Any:
        return _one_of(bodies, drawn) if isinstance(drawn, bytes) else drawn

    document.hooks.hook("map_path_parameters")(often_known)
    document.hooks.hook("map_query")(often_known)
    document.hooks.hook("map_body")(often_a_picture)
    return document


def _one_of(known: list, drawn: object) -> object:
    """Every second time one of those known instead of what was drawn."""
    place = zlib.crc32(repr(drawn).encode())
    return drawn if place % 2 else known[place // 2 % len(known)]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_what_the_service_says_they_are(
    mode: schemathesis.GenerationMode,
    document: schemathesis.schemas.BaseSchema,
    service: Service,
    asked: Collection,
    subtests: pytest.Subtests,
) -> None:
    """Positive: requests that fit the document; negative: requests that do not."""
    places = [asked.index, asked.photos, asked.index.parent, service.log.parent]

    def tells_no_place(context: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
        told = response.content + repr(response.headers).encode()
        assert not [place for place in places if bytes(place) in told]

    def tells_problems(context: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
        if response.status_code < 400:
            return
        assert response.status_code < 500 or (response.status_code == 503 and "retry-after" in response.headers)
        assert response.headers["content-type"] == [PROBLEM]
        problem = response.json()
        assert problem["type"].startswith("urn:coocnet:problem:")
        assert problem["status"] == response.status_code
        assert problem["title"]
        assert problem["detail"]

    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=senseless, additional_checks=[tells_no_place, tells_problems])

    load_all_checks()
    senseless = CHECKS.get_by_names(SENSELESS)
    for operation in (described.ok() for described in document.get_all_operations()):
        with subtests.test(operation.label):
            MANNERS(given(operation.as_strategy(generation_mode=mode))(check))()
