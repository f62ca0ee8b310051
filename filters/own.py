"""The decorator for a filter of your own: it declares the columns that a function returns and the rules on them.

    from corpusmill.filters.own import Rule, measures

    @measures({"exclamations": "int64"}, rules=[Rule("too_loud", "exclamations", ">", 20)])
    def loud(documents):
        return {"exclamations": pc.count_substring(documents["text"], "!")}

A recipe names the function by file or module: `- python: loud.py:loud`. See docs/guides/own-filter.md.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmill.filters.own_source import name_of
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput, short_form
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.names import counted

__all__ = ["Declaration", "Rule", "measures"]

Function = TypeVar("Function", bound=Callable[..., Mapping[str, Any]])
Types = Mapping[str, str | pa.DataType]
ATTRIBUTE = "corpusmill_declaration"


@dataclass(frozen=True)
class Declaration:
    """The columns that a function returns, the rules on them, and whether it also returns new texts (under the name `text`)."""

    columns: Mapping[str, pa.DataType]
    rules: tuple[Rule, ...] = ()
    rewrites: bool = False

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.column not in self.columns:
                raise ValueError(f"the rule {rule.name} is on a column {rule.column!r}, which is not declared")


def column_types(columns: Types) -> dict[str, pa.DataType]:
    """Returns the Arrow types by column; a type may be given by name (`float64`, `int64`, `string`, `bool`). Raises ValueError."""
    types = {}
    for name, kind in columns.items():
        try:
            types[name] = pa.type_for_alias(kind) if isinstance(kind, str) else kind
        except ValueError as error:
            raise ValueError(f"the column {name} has a type that Arrow does not know: {kind!r}") from error
    return types


def measures(columns: Types, rules: Iterable[Rule] = (), rewrites: bool = False) -> Callable[[Function], Function]:
    """Declares a function as a step: it takes an Arrow table of documents and returns a mapping with an array for each of `columns`.

    The table has the documents' columns, `text` as the earlier steps left it, and all values that the earlier steps measured. A document's
    values must not depend on other documents. With `rewrites` the mapping also has `text`. Raises ValueError.
    """
    declaration = Declaration(column_types(columns), tuple(rules), rewrites)

    def declare(function: Function) -> Function:
        setattr(function, ATTRIBUTE, declaration)
        return function

    return declare


# ---- The step `python`: loads the function by import path or from a file, and compares its result with the declared columns


class RuleConfig(Config):
    """A rule: a document fails it if `column comparison threshold` is true."""

    name: str
    column: str
    comparison: str
    threshold: float | int | tuple[str, ...]


class PythonConfig(Config):
    """A function, `path/to/file.py:name` (relative to the recipe) or `package.module:name`, and the options for its call.

    In Python the function itself may stand for its name.
    """

    function: str = Field(description="`file.py:name` or `package.module:name`.")
    options: dict[str, Any] = Field({}, description="Keyword arguments of the function.")
    columns: dict[str, str] | None = Field(None, description="Columns and their Arrow types, where the function has no decorator.")
    rules: list[RuleConfig] | None = Field(None, description="Rules on the columns, in place of those that the decorator declares.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        given = short_form({"function": given} if callable(given) else given, "function", cls)
        function = given.get("function") if isinstance(given, Mapping) else None
        return {**given, "function": name_of(function)} if callable(function) else given

    @field_validator("function")
    @classmethod
    def _resolve_file(cls, function: str, info: ValidationInfo) -> str:
        place, colon, name = function.rpartition(":")
        if not colon or not place or not name.isidentifier():
            raise ValueError("expected `path/to/file.py:name` or `package.module:name`")
        if place.endswith(".py"):
            place = str((Path((info.context or {}).get("folder", ".")) / place).resolve())
        return f"{place}:{name}"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if _looking.get():
            return self
        function = load_function(self.function)
        try:
            inspect.signature(function).bind(None, **self.options)
        except TypeError as error:
            raise ValueError(f"options: {error}") from error
        declaration(self, function)
        return self


_looking: ContextVar[bool] = ContextVar("looking", default=False)


class RunsCode(InputError):
    """What was asked would load the code of a run or a recipe, while somebody only looks at it."""


@contextmanager
def looking(only: bool = True) -> Iterator[None]:
    """In this block no function of a recipe is loaded, because the run or recipe may be a stranger's. Without `only`, all are."""
    token = _looking.set(only)
    try:
        yield
    finally:
        _looking.reset(token)


def load_function(path: str) -> Callable[..., Any]:
    """Returns the function that `file.py:name` or `module:name` names. Raises ValueError with one sentence, and RunsCode in `looking`."""
    place, _, name = path.rpartition(":")
    if _looking.get():
        raise RunsCode(
            f"{path}: this step of the recipe is code, and who only looks runs none; "
            "where you trust it, --trust (in Python: trust=True) loads it."
        )
    try:
        module = _module_of_file(place) if place.endswith(".py") else importlib.import_module(place)
    except OSError as error:
        raise ValueError(f"{place}: can't be read ({error.strerror})") from error
    except Exception as error:
        raise ValueError(f"{place}: can't be loaded ({type(error).__name__}: {error}{_line(error, [place])})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{place}: has no function {name!r}")
    loaded: Callable[..., Any] = function
    return loaded


def _module_of_file(path: str) -> Any:
    """Returns the file as a module; loads it again if its content has changed."""
    content = Path(path).read_bytes()
    name = f"corpusmill_own_{hashlib.sha256(path.encode() + content).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(compile(content, path, "exec"), module.__dict__)  # noqa: S102 - the user's own step: to run a recipe is to run it
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _line(error: BaseException, paths: Iterable[str]) -> str:
    """Returns the line of the user's file in which an exception came up, as the end of a message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in paths]
    return f", line {lines[-1]}" if lines else ""


def declaration(config: PythonConfig, function: Callable[..., Any]) -> Declaration:
    """Returns the columns and rules of a function; the recipe's take precedence over the decorator's.

    Raises ValueError if there are no columns.
    """
    declared: Declaration | None = getattr(function, ATTRIBUTE, None)
    if config.columns is None and declared is None:
        raise ValueError(
            f"{config.function}: has no @measures decorator, so the recipe has to name its columns (columns: {{NAME: float64}})"
        )
    columns = column_types(config.columns) if config.columns is not None else dict(declared.columns if declared else {})
    if config.rules is not None:
        rules = tuple(Rule(rule.name, rule.column, rule.comparison, rule.threshold) for rule in config.rules)
    else:
        rules = declared.rules if declared else ()
    return Declaration(columns, rules, declared is not None and declared.rewrites)


class PythonStep(Step):
    Config = PythonConfig

    def __init__(self, config: PythonConfig):
        super().__init__(config)
        self.function = load_function(config.function)
        self.declared = declaration(config, self.function)
        self.label = config.function.rpartition(":")[2]
        self.rewrites = self.declared.rewrites

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return dict(self.declared.columns)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.declared.rules

    def model_files(self) -> list[str]:
        place = self.config.function.rpartition(":")[0]
        file = place if place.endswith(".py") else sys.modules[self.function.__module__].__file__
        return [file] if file else []

    def measure(self, batch: DocumentBatch) -> StepOutput:
        try:
            found = self.function(batch.table(), **self.config.options)
        except Exception as error:
            where = f"{_line(error, self.model_files())}{self._document(batch, type(error))}"
            said = f"{self.config.function}: {type(error).__name__}: {error}{where}"
            raise CorpusmillError(f"{said} (the run's errors.log has the trace).") from error
        if not isinstance(found, Mapping):
            raise CorpusmillError(f"{self.config.function}: has to give a mapping of columns, not {type(found).__name__}.")
        wanted = [*self.declared.columns, *(["text"] if self.rewrites else [])]
        if set(found) != set(wanted):
            raise CorpusmillError(
                f"{self.config.function}: gave the columns {', '.join(map(str, found))}, and declares {', '.join(wanted)}."
            )
        kinds = {**self.declared.columns, "text": pa.large_string()}
        arrays = {name: self._array(name, found[name], kinds[name], len(batch)) for name in wanted}
        text = arrays.pop("text") if self.rewrites else None
        if text is not None and text.null_count:
            raise CorpusmillError(f"{self.config.function}: gave no text (null) for a document.")
        return StepOutput(arrays, text)

    def _document(self, batch: DocumentBatch, kind: type[Exception]) -> str:
        """Returns the first document that raises this exception by itself, as the end of a message; empty where none does."""
        table = batch.table()
        for place, id_ in enumerate(table["id"].to_pylist() if "id" in table.column_names else ()):
            try:
                self.function(table.slice(place, 1), **self.config.options)
            except Exception as error:  # noqa: BLE001 (a user's function may raise anything)
                if type(error) is kind:
                    return f", at the document {id_}"
        return ""

    def _array(self, name: str, values: Any, kind: pa.DataType, documents: int) -> pa.Array:
        try:
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            array = values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
        except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
            raise CorpusmillError(f"{self.config.function}: the column {name} is not {kind} ({error}).") from error
        if len(array) != documents:
            raise CorpusmillError(
                f"{self.config.function}: the column {name} has {counted(len(array), 'value')} for {counted(documents, 'document')}."
            )
        return array
