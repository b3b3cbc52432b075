"""What the service takes and gives, as its OpenAPI document says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="Digest of a picture file's content.")]
_NAMED = 3
Kind = Literal["activation", "cooccurrence"]


def _no_truth(value: object) -> object:
    """True and false are no numbers, though Python counts them as such."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, and this is true or false")  # noqa: TRY004 - the kind that pydantic tells
    return value


class Told(BaseModel):
    """What the service gives."""


class Asked(BaseModel):
    """What the service takes: nothing but what is named, and finite numbers."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _knows_all_names(cls, given: Any) -> Any:
        """One error for all names that are not known: a million of them would be a million errors."""
        unknown = [name for name in given if name not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            named = ", ".join(repr(str(name)[:40]) for name in unknown[:_NAMED])
            raise ValueError(f"there is no {named}; there is {', '.join(cls.model_fields)}")
        return given


class ProblemDocument(Told):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class RecipeFacts(Told):
    """How the pictures are described."""

    name: str
    fingerprint: str
    row_fingerprint: str = Field(description="Of what decides a descriptor: those of another one do not fit.")
    backbone: str
    tap: str
    size_px: int
    pooling: str
    dim: int


class Folder(Told):
    """A folder of the collection, by its number."""

    number: int
    name: str
    pictures: int
    synchronised: str


class Skipped(Told):
    """A file that was left out."""

    name: str
    reason: str


class Limits(Told):
    """What may be sent and asked for."""

    upload_bytes: int
    upload_megapixels: float
    hits: int


class Info(Told):
    """What the index holds."""

    version: str
    name: str
    pictures: int
    contents: int
    recipe: RecipeFacts
    engines: list[str]
    whitening: dict[str, str] | None
    search: Literal["exact", "approximate"]
    recall: float | None
    size_bytes: int
    made: str
    folders: list[Folder]
    skipped: list[Skipped]
    skipped_total: int
    auto_threshold: float | None = Field(description="What threshold=auto is; null for fewer than 50 pictures.")
    expansions: list[str]
    rerankings: list[str]
    explains: bool = Field(description="Whether similarities can be explained by cells.")
    can_add: bool
    can_write: bool
    limits: Limits


class Picture(Told):
    """A picture of the collection."""

    id: Id
    name: str = Field(description="Where it lies within the collection.")
    width: int | None = Field(description="Pixels, upright; null where the file cannot be read now.")
    height: int | None


class PictureDetails(Picture):
    """A picture of the collection, with all of its files."""

    names: list[str]
    format: str | None


class Pictures(Told):
    """A page of the collection, in order of path."""

    total: int
    pictures: list[Picture]


class Removed(Told):
    """A picture that was taken out of the collection."""

    id: Id
    names: list[str]


class RemovedPictures(Told):
    """Everything that was taken out."""

    pictures: list[Removed]


class Upload(Told):
    """A picture that was sent, kept for a while in memory."""

    id: Id
    width: int
    height: int
    picture: bool = Field(description="Whether it is in the collection.")


class Hit(Told):
    """A picture found."""

    rank: int
    id: Id
    name: str
    names_total: int = Field(description="How many files of the collection have this content.")
    similarity: float = Field(description="Cosine of the whitened descriptors, at most 1.")
    identical: bool = Field(description="Whether it is the very picture that was searched for.")
    width: int | None
    height: int | None


class Found(Told):
    """Pictures found, best first."""

    hits: list[Hit]
    more: bool = Field(description="Whether there are hits beyond these.")
    threshold: float | None = Field(description="What hits had to reach.")
    nearest: float | None = Field(description="Similarity of the nearest picture, whatever the threshold.")
    approximate: bool
    gone: list[str] = Field(description="Ids given as relevant that are not in the collection, and were left out.")


class SearchByDescriptor(Asked):
    """A search by a descriptor, as /api/descriptor gives it."""

    descriptor: Annotated[list[float], FailFast()] = Field(min_length=1, max_length=2**18)
    limit: Annotated[int, BeforeValidator(_no_truth)] = Field(50, ge=1, le=200)
    offset: Annotated[int, BeforeValidator(_no_truth)] = Field(0, ge=0, le=10_000)
    threshold: Literal["none", "auto"] | Annotated[float, BeforeValidator(_no_truth)] = "none"
    expansion: str | None = None
    reranking: str = "none"
    exact: bool = False
    relevant: Annotated[list[Id], FailFast()] = Field(default_factory=list, max_length=100)


class Grid(Told):
    """A number for each cell of a network's map."""

    rows: int
    columns: int
    values: list[float] = Field(description="Row after row.")
    box: list[int] = Field(description="The part the map is of: x1, y1, x2, y2 in pixels of the upright picture.")
    width: int
    height: int


class HeatmapGrid(Grid):
    """Sums over channels, of activations or of their direct co-occurrence."""

    kind: Kind


class CellMatch(Told):
    """Two cells, (row, column), and what they contribute together."""

    query: list[int]
    result: list[int]
    contribution: float


class ExplanationDocument(Told):
    """Where a similarity comes from: the contributions of either picture sum to similarity - constant."""

    similarity: float
    constant: float = Field(description="What all pictures of the collection have in common contributes.")
    centred: bool
    query: Grid
    result: Grid
    matches: list[CellMatch]
    notes: list[str]


class Descriptor(Told):
    """A row before whitening, of unit length."""

    row: list[float]
    row_fingerprint: str = Field(description="As /api/info has it: rows of another one cannot be compared.")


class SyncAsked(Asked):
    """What to bring up to date."""

    folder: Annotated[int, BeforeValidator(_no_truth)] | None = Field(
        None, ge=0, description="The number of a folder in /api/info; all if null."
    )
    verify_content: bool = False
    allow_empty: bool = False


class SyncDone(Told):
    """What a sync did."""

    added: int = 0
    updated: int = 0
    recognised: int = 0
    unchanged: int = 0
    dropped: int = 0
    skipped: list[Skipped] = Field(default_factory=list)
    whitening: str = ""
    approximate: str = ""
    time_s: float = 0.0


class JobDocument(Told):
    """Work that goes on by itself."""

    id: str
    kind: Literal["sync"] = "sync"
    state: Literal["waiting", "running", "done", "stopped", "failed"]
    done: int
    total: int | None
    folder: str | None
    started: str
    ended: str | None
    report: SyncDone | None
    problem: dict[str, Any] | None


class Jobs(Told):
    """All jobs remembered, the newest first."""

    jobs: list[JobDocument]


class SessionAsked(Asked):
    """A token to be exchanged for a cookie."""

    token: str = Field(max_length=1000)


class Health(Told):
    """Whether the service is alive, or ready to answer."""

    status: Literal["ok", "starting", "failed"]
    detail: str = ""
