"""Checks the parameters of a request. A bad request raises `BadRequest` with a sentence for the user."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: An end of a range, or a threshold.
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=1000)]
Needle = Annotated[str, Field(min_length=1, max_length=500)]
StageName = Annotated[str, Field(min_length=1, max_length=40)]
#: Prefixes of parameters that go on with the name of a column or rule: `low.words=20`.
DYNAMIC = {"low": "low", "high": "high", "set": "set_"}
REPEATED = ("rule",)
#: The name of a new run's folder: it needs no quotes in a shell, and stays in its folder. It may be left out.
NewName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?$")]
MOST = 100  # ranges or thresholds in a request, at most


class BadRequest(Exception):
    """A request that can't be answered; the message says why. `status` is the HTTP status."""

    def __init__(self, message: str, status: int = 422):
        super().__init__(message)
        self.status = status


class Asked(BaseModel):
    """The parameters of a route, or the JSON of an action. `run`: the name of a run, empty where the explorer shows only one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Name = ""


class Filter(Asked):
    """A filter: it chooses the documents that meet all of these conditions."""

    stage: StageName
    decision: Literal["kept", "dropped"] | None = None
    rule: Annotated[tuple[Name, ...], Field(max_length=MOST)] = ()
    alone: bool = False
    language: Name | None = None
    page_type: Name | None = None
    source: Name | None = None
    host: Name | None = None
    url: Needle | None = None
    text: Needle | None = None
    low: Annotated[dict[Name, Number], Field(max_length=MOST)] = {}
    high: Annotated[dict[Name, Number], Field(max_length=MOST)] = {}


class DocumentsAsked(Filter):
    """A page of documents. `set_`: thresholds under which each document is decided again. They do not affect which documents are on the
    page."""

    set_: Annotated[dict[Name, Number | Literal["off"]], Field(max_length=MOST)] = {}
    order: Name = "place"
    descending: bool = False
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    cursor: Annotated[str, Field(pattern=r"^\d{1,10}$")] | None = None


class Exported(Filter):
    format: Literal["csv", "parquet", "jsonl"]


class OneColumn(Filter):
    column: Name


class Thresholds(Asked):
    stage: StageName
    set_: Annotated[dict[Name, Number | Literal["off"]], Field(max_length=MOST)] = {}


class Changed(Thresholds):
    which: Literal["gained", "lost"]
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class OneDocument(Asked):
    """One document. `set_`: thresholds of the filter stage under which it is decided again. `part`: what to return of it."""

    key: Annotated[str, Field(max_length=60)]
    part: Literal["story", "marks", "page"] = "story"
    set_: Annotated[dict[Name, Number | Literal["off"]], Field(max_length=MOST)] = {}


class LabelsAsked(Asked):
    stage: StageName
    key: Annotated[str, Field(max_length=60)] | None = None


class QueueAsked(Asked):
    """Documents to label. `rule`: for `near` the rule, for `disagree` two; `column`: for `uncertain`, the score."""

    stage: StageName
    kind: Literal["near", "uncertain", "disagree", "random"]
    rule: Annotated[tuple[Name, ...], Field(max_length=2)] = ()
    column: Name | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class AgreementAsked(Asked):
    """`sample`: random, only labels of the unbiased sample; all, every label."""

    stage: StageName
    label: Name
    sample: Literal["random", "all"] = "random"


class LabelGiven(Asked):
    """An action: a label for the document `key`; null removes it."""

    key: Annotated[str, Field(max_length=60)]
    label: Name | None


class NamesGiven(Asked):
    """An action: the names of labels in the order of their keys."""

    names: Annotated[list[str], Field(max_length=MOST)]


class ForkAsked(Asked):
    """An action: a new run with these thresholds of the filter. `name`: of its folder, beside the run's; empty: the next free name."""

    set_: Annotated[dict[Name, Number | Literal["off"]], Field(min_length=1, max_length=MOST)]
    name: NewName = ""


class RunAsked(Asked):
    """An action: the stages of a run that are left, up to `to`. `alarm`: deduplication goes on although an alarm has stopped it."""

    to: StageName
    alarm: bool = False


class Compared(Asked):
    """Two runs by their names."""

    a: Name
    b: Name


class ComparedColumn(Compared):
    stage: StageName
    column: Name


class ComparedDocuments(Compared):
    """Documents that the run `kept_by` keeps and the other drops. `stage` and `dropped_by`: only those that this rule drops."""

    kept_by: Literal["a", "b"]
    stage: StageName | None = None
    dropped_by: Name | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class ComparedText(Compared):
    kept_by: Literal["a", "b"]
    stage: Literal["ingest", "filter", "dedup", "tokens"]
    id: Name


class PlaceAsked(Asked):
    """A document by its id. `stage`: the stage whose report should have it."""

    stage: StageName
    id: Name


Model = TypeVar("Model", bound=Asked)


def read(model: type[Model], parameters: Iterable[tuple[str, str]]) -> Model:
    """Reads the parameters of a request as `model`. Raises BadRequest if one is unknown, given twice, or has a bad value."""
    given: dict[str, Any] = {}
    for name, value in parameters:
        kind, dot, rest = name.partition(".")
        if dot and DYNAMIC.get(kind) in model.model_fields:
            place, key = given.setdefault(DYNAMIC[kind], {}), rest
        elif dot or name in DYNAMIC.values():
            raise BadRequest(f"There is no parameter {shown(name)}.")
        elif name in REPEATED:
            given[name] = (*given.get(name, ()), value)
            continue
        else:
            place, key = given, name
        if key in place:
            raise BadRequest(f"The parameter {shown(name)} is given twice.")
        place[key] = value
    return _checked(lambda: model.model_validate(given))


def read_json(model: type[Model], content: bytes) -> Model:
    """Reads the body of an action as `model`. Raises BadRequest if it is not JSON, or a field is unknown, missing or has a bad value."""
    return _checked(lambda: model.model_validate_json(content))


def _checked(make: Callable[[], Model]) -> Model:
    try:
        return make()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadRequest(_sentence(first)) from error


def _sentence(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    name = shown(".".join(part.removesuffix("_") for part in place))
    if error["type"] == "extra_forbidden":
        return f"There is no parameter {name}."
    if error["type"] == "missing":
        return f"The parameter {name} is missing."
    message = str(error["msg"])
    return f"{name}: {message[:1].lower()}{message[1:]}."


def shown(text: str, limit: int = 60) -> str:
    """Returns a name in quotes for a sentence, cut to `limit`."""
    return repr(text if len(text) <= limit else text[:limit] + "…")
