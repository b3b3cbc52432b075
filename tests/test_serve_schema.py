"""Whatever is asked of the service, it answers as its own OpenAPI document says, and tells nothing it should not."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from service import Collection, Service, make_collection, picture_id, serve

pytestmark = pytest.mark.slow

INSTANCES = 4
MANNERS = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
PROBLEM = "application/problem+json"
UNSAYABLE = {"picture", "upload", "box", "name", "folder", "descriptor"}
"""Parameters of which the service wants more than a schema can say: exactly one source, a row of the right length"""


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


@pytest.fixture
def document(service: Service) -> schemathesis.schemas.BaseSchema:
    """What the service says of itself."""
    document = schemathesis.openapi.from_url(f"{service.url}api/openapi.json", wait_for_schema=10)
    document.config.update(base_url=service.url, request_timeout=30, max_redirects=0)
    return document


class Known:
    """Values that the service knows. Most of what is drawn is replaced by one, so that something is found."""

    def __init__(self, service: Service, asked: Collection) -> None:
        files = [asked.photos / name for name in asked.names[:6]]
        self.pictures = [picture_id(path) for path in files]
        self.uploads = [picture_id(path) for path in asked.queries]
        self.bodies = [path.read_bytes() for path in files + asked.queries]
        with httpx.Client(base_url=service.url, trust_env=False, timeout=120) as client:
            for path in asked.queries:
                client.post("/api/uploads", content=path.read_bytes()).raise_for_status()
            self.row = client.get("/api/descriptor", params={"picture": self.pictures[0]}).json()["row"]
            self.jobs = [client.post("/api/sync", json={}).raise_for_status().json()["id"]]
        self.values = {
            "picture": self.pictures,
            "upload": self.uploads,
            "result": self.pictures,
            "relevant": self.pictures,
            "box": ["10,10,150,150"],
            "threshold": ["none", "auto", "0.5"],
            "expansion": ["none", "aqe"],
            "reranking": ["none", "reciprocal"],
            "offset": [0, 3],
            "name": ["Tür.jpg"],
        }

    def into(self, document: schemathesis.schemas.BaseSchema) -> None:
        """From now on, what is drawn of the document is mostly known."""
        document.hooks.hook("map_path_parameters")(lambda context, drawn: self._path(context.operation, drawn))
        document.hooks.hook("map_query")(lambda context, drawn: self._query(context.operation, drawn))
        document.hooks.hook("map_body")(lambda _, drawn: self._body(drawn))

    def _path(self, operation: schemathesis.schemas.APIOperation, drawn: dict | None) -> dict | None:
        if drawn and "id" in drawn:
            kind = operation.path.split("/")[2]
            drawn["id"] = _mostly({"jobs": self.jobs, "uploads": self.uploads}.get(kind, self.pictures), drawn["id"])
        return drawn

    def _query(self, operation: schemathesis.schemas.APIOperation, drawn: dict | None) -> dict | None:
        drawn = {name: _mostly(self.values.get(name, []), value) for name, value in (drawn or {}).items()}
        if any(parameter.name == "upload" for parameter in operation.query):
            source = "upload" if "upload" in drawn and zlib.crc32(repr(drawn).encode()) % 2 else "picture"
            drawn.pop({"upload": "picture", "picture": "upload"}[source], None)
            drawn.setdefault(source, self.values[source][0])
        return drawn

    def _body(self, drawn: object) -> object:
        if isinstance(drawn, dict):
            given = {**self.values, "descriptor": [self.row], "relevant": [self.pictures[:2]], "folder": [None, 0]}
            return {name: _mostly(given.get(name, []), value) for name, value in drawn.items()}
        return _mostly(self.bodies, drawn) if isinstance(drawn, bytes) else drawn


def _mostly(known: list, drawn: object) -> object:
    """Three times of four one of those known, if there are any, instead of what was drawn."""
    place = zlib.crc32(repr(drawn).encode())
    return known[place // 4 % len(known)] if known and place % 4 else drawn


def _can_be_wrong(operation: schemathesis.schemas.APIOperation) -> bool:
    """Whether there is anything in a request that the document says something about."""
    return bool([*operation.iter_parameters()]) or any(
        body.media_type == "application/json" for body in operation.body
    )


def _await_syncs(url: str) -> None:
    """Waits until nobody holds the index: what writes is refused as long as a sync does."""
    until = time.monotonic() + 120
    while any(
        job["state"] in ("waiting", "running") for job in httpx.get(f"{url}api/jobs", timeout=60).json()["jobs"]
    ):
        assert time.monotonic() < until
        time.sleep(0.1)


def _answers(document: schemathesis.schemas.BaseSchema, mode: schemathesis.GenerationMode, check, subtests) -> None:
    for operation in (described.ok() for described in document.get_all_operations()):
        if mode is schemathesis.GenerationMode.NEGATIVE and not _can_be_wrong(operation):
            continue
        _await_syncs(str(document.config.base_url))
        with subtests.test(operation.label):
            MANNERS(given(operation.as_strategy(generation_mode=mode))(check))()


@pytest.fixture(scope="module")
def check(service: Service, asked: Collection) -> Callable[[schemathesis.Case], schemathesis.Response]:
    """Sends a request and looks at the answer."""
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

    def send(case: schemathesis.Case) -> schemathesis.Response:
        # These two follow a resource through several requests, which here are made one by one.
        senseless = ["use_after_free", "ensure_resource_availability"]
        named = {parameter.name for parameter in case.operation.iter_parameters()}
        named.update(case.body if isinstance(case.body, dict) else ())
        if case.media_type == "application/octet-stream" or named & UNSAYABLE:
            senseless.append("positive_data_acceptance")
        return case.call_and_validate(
            excluded_checks=CHECKS.get_by_names(senseless), additional_checks=[tells_no_place, tells_problems]
        )

    load_all_checks()
    return send


def test_what_fits_the_document_is_answered_as_it_says(document, service, asked, check, subtests) -> None:
    succeeded = set()

    def check_and_count(case: schemathesis.Case) -> None:
        if check(case).status_code < 300:
            succeeded.add(case.operation.label)

    Known(service, asked).into(document)
    _answers(document, schemathesis.GenerationMode.POSITIVE, check_and_count, subtests)
    assert {operation.ok().label for operation in document.get_all_operations()} <= succeeded


def test_what_does_not_fit_the_document_is_refused(document, check, subtests) -> None:
    def check_alone(case: schemathesis.Case) -> None:
        check(case)

    _answers(document, schemathesis.GenerationMode.NEGATIVE, check_alone, subtests)
