"""The base class of configuration sections, and their digest, which is part of the identity of a task."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of

#: Marks a field that does not affect the result, so that its change redoes no task: `Field(..., json_schema_extra=INERT)`.
INERT: dict[str, Any] = {"inert": True}


class Config(BaseModel):
    """A section of a recipe: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def deciding(self) -> dict[str, Any]:
        """Returns the values as JSON, without those that do not affect the result (`without_places`)."""
        return self.without_places(self.model_dump(mode="json"))

    @classmethod
    def without_places(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Returns a section's values (JSON) without the paths of files whose content is compared instead. Subclasses override this. The
        values may come from `run.json`, so they are not validated."""
        return values


def resolve_options(schema: type[Config], options: Any, *place: str, context: Any = None) -> dict[str, Any]:
    """Returns the validated options of a step or another part that a recipe names, with all defaults filled in.

    `context` goes to pydantic's validators. Raises a ValidationError whose places begin with `place`.
    """
    try:
        return schema.model_validate({} if options is None else options, context=context).model_dump(mode="json")
    except ValidationError as error:
        raise ValidationError.from_exception_data("options", [_placed(place, e, schema) for e in error.errors()]) from error


def _placed(place: tuple[str, ...], error: Any, schema: type[Config]) -> InitErrorDetails:
    message, given = error["msg"].removeprefix("Value error, "), error["input"]
    if error["type"] == "extra_forbidden":
        message, given = unknown_key(schema, error["loc"]), error["loc"][-1]
    by_validator = error["type"] in ("value_error", "extra_forbidden")  # these messages name what was given
    kind = PydanticCustomError("value_error" if by_validator else "option", "{message}", {"message": message[0].lower() + message[1:]})
    return InitErrorDetails(type=kind, loc=(*place, *error["loc"]), input=given)


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no spaces: equal values give equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def parse_json(content: str | bytes, **options: Any) -> Any:
    """Returns the value of a JSON text, with `options` of `json.loads`. Raises ValueError, also where it nests too deeply to be read."""
    try:
        return json.loads(content, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def digest(value: Any) -> str:
    """Returns the sha256 (hex) of a JSON-able value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def config_digest(config: Config) -> str:
    """Returns the sha256 (hex) of a configuration section with all defaults filled in, without the fields marked INERT."""
    return digest(counting(config))


def stored_digest(schema: type[Config], stored: Any) -> str:
    """Returns the `config_digest` of a resolved section from `run.json`. The section is not validated: that may load the user's own steps
    that a recipe names, and a run may come from a stranger."""
    return digest(_counting_stored(schema, stored) if isinstance(stored, dict) else stored)


def _counting_stored(schema: type[Config], stored: dict[str, Any]) -> dict[str, Any]:
    values = schema.without_places(dict(stored))
    for name, field in schema.model_fields.items():
        inner = next((kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)), None)
        if field.json_schema_extra == INERT:
            values.pop(name, None)
        elif inner and isinstance(values.get(name), dict):
            values[name] = _counting_stored(inner, values[name])
    return values


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def unknown_key(schema: type[BaseModel], place: Sequence[Any], stage: str = "") -> str:
    """Returns the end of a message about an unknown key: `place` is the path to it, of keys and of indexes of lists. A key that stands in
    another section is named with its path. `stage`: what comes before the paths of `schema`."""
    section: Any = schema
    for part in place[:-1]:
        if not isinstance(part, int):
            field = getattr(section, "model_fields", {}).get(part)
            section = _section_in(field.annotation) if field else None
    keys = getattr(section, "model_fields", {})
    if elsewhere := next((path for path in _paths(schema) if path[-1] == place[-1]), None):
        return f"unknown key (did you mean {'.'.join(filter(None, (stage, *elsewhere)))}?)"
    return "unknown key" + (instead_of(str(place[-1]), keys) if keys else "")


def _paths(section: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yields the paths to all keys of a section and of the sections in it."""
    for name, field in section.model_fields.items():
        yield (name,)
        if inner := _section_in(field.annotation):
            yield from ((name, *path) for path in _paths(inner))


def _section_in(kind: Any) -> Any:
    """Returns the section of an annotation, also of `Section | None` and `list[Section]`; None without one."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next(filter(None, map(_section_in, get_args(kind))), None)


def counting(config: Config) -> dict[str, Any]:
    """Returns the fields that affect the result, as JSON."""
    values = config.deciding()
    for name, field in type(config).model_fields.items():
        if field.json_schema_extra == INERT:
            del values[name]
        elif isinstance(value := getattr(config, name), Config):
            values[name] = counting(value)
    return values


def seconds_of(variable: str, default: float, least: float, most: float) -> float:
    """Returns the seconds that an environment variable gives, else `default`. Raises InputError outside of `least` to `most`."""
    value = os.environ.get(variable) or str(default)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        raise InputError(f"{variable}={value}: give seconds from {least:.0f} to {most:.0f}.")
    return seconds


def reason_of(error: Exception) -> str:
    """Returns on one line why a value that was read is not valid. For a ValidationError: its first fault and the place of that."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
