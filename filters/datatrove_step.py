"""The step `datatrove`: any filter or formatter of datatrove, with columns, a rule and new texts.

A filter sees every document, even one that fails an earlier step. It starts each shard in the state that its constructor left, as in
each of datatrove's tasks. If it changes a document's text, the later steps get the new text.
"""

import copy
import importlib
import inspect
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Self

import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput, short_form
from corpusmill.pipeline.config import Config, parse_json
from corpusmill.pipeline.errors import ConfigError, CorpusmillError


class DatatroveConfig(Config):
    """A class of datatrove (`datatrove.pipeline.filters.RegexFilter`) and the options of its constructor."""

    step: str = Field(description="Import path of the class, with or without `datatrove.` before it.")
    options: dict[str, Any] = Field({}, description="Arguments of its constructor.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return short_form(given, "step", cls)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kind = load_class(self.step)
        if "exclusion_writer" in self.options:
            raise ValueError("options: exclusion_writer can't be used: the report lists the dropped documents and the reasons")
        try:
            inspect.signature(kind).bind(**self.options)
        except TypeError as error:
            known = [name for name in inspect.signature(kind).parameters if name != "exclusion_writer"]
            raise ValueError(f"options: {error} (datatrove's {kind.__name__} has {', '.join(known) or 'none'})") from error
        return self


def load_class(path: str) -> type[Any]:
    """Returns the filter or formatter at a path below `datatrove.`. Raises ValueError with one sentence."""
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.formatters.base import BaseFormatter

    module, _, name = f"datatrove.{path.removeprefix('datatrove.')}".rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"{module}: can't be imported ({error})") from error
    if not inspect.isclass(kind) or not kind.__module__.startswith("datatrove.") or inspect.isabstract(kind):
        raise ValueError(f"{module} has no filter or formatter {name!r} (a class is named as in pipeline.filters.RegexFilter)")
    if not issubclass(kind, BaseFilter | BaseFormatter):
        raise ValueError(f"{module}.{name}: is neither a filter nor a formatter of datatrove, so it can't be a step of the filter stage")
    return kind


class DatatroveStep(Step):
    Config = DatatroveConfig
    rewrites = True  # filters may change texts, too
    sequential = True

    def __init__(self, config: DatatroveConfig):
        from datatrove.pipeline.filters.base_filter import BaseFilter

        super().__init__(config)
        self.kind = load_class(config.step)
        self.is_filter = issubclass(self.kind, BaseFilter)
        self.label = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.kind.__name__).lower()
        self.pristine: Any = None

    @property
    def columns(self) -> dict[str, pa.DataType]:
        if self.is_filter:
            return {f"{self.label}_dropped": pa.int64(), f"{self.label}_reason": pa.string()}
        return {f"{self.label}_changed": pa.int64()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (Rule(self.label, f"{self.label}_dropped", ">", 0),) if self.is_filter else ()

    @property
    def meanings(self) -> Mapping[str, str]:
        return {f"{self.label}_dropped": f"datatrove's {self.kind.__name__} drops it; why, says {self.label}_reason"}

    def setup(self) -> None:
        try:
            self.pristine = self.kind(**self.config.options)
        except Exception as error:
            raise ConfigError(f"datatrove's {self.kind.__name__} can't be made ({type(error).__name__}: {error}).") from error
        self.begin()

    def begin(self, share: float = 1.0) -> None:
        self.step = copy.deepcopy(self.pristine)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        before = batch.text.to_pylist()
        if not self.is_filter:
            texts = [self._attempt(self.step.format, text, id_) for text, id_ in zip(before, _ids(batch))]
            changed = [int(new != old) for new, old in zip(texts, before)]
            return StepOutput({f"{self.label}_changed": changed}, pa.array(texts, pa.large_string()) if any(changed) else None)
        documents = _documents(batch, before)
        results = self._verdicts(documents)
        texts = [document.text for document in documents]
        columns = {
            f"{self.label}_dropped": [int(not kept) for kept, _ in results],
            f"{self.label}_reason": [None if kept else reason for kept, reason in results],
        }
        return StepOutput(columns, pa.array(texts, pa.large_string()) if texts != before else None)

    def _verdicts(self, documents: list[Any]) -> list[tuple[bool, str | None]]:
        from datatrove.pipeline.filters.base_filter import get_filter_result

        results: list[tuple[bool, str | None]] = []
        rest = iter(documents)
        while batch := list(islice(rest, self.step.batch_size)):
            found = self._attempt(self.step.filter_batch, batch, batch[0].id)
            results += [get_filter_result(result) for result in found]
        return results

    def _attempt(self, method: Any, given: Any, document: str) -> Any:
        try:
            return method(given)
        except ImportError as error:
            raise ConfigError(f"datatrove's {self.kind.__name__} lacks a package: {str(error).rstrip('.')}.") from error
        except Exception as error:
            sentence = f"{type(error).__name__}: {str(error).rstrip('.')}"
            raise CorpusmillError(f"datatrove's {self.kind.__name__} failed on the document {document}: {sentence}.") from error


def _ids(batch: DocumentBatch) -> list[str]:
    return batch.documents["id"].to_pylist() if "id" in batch.documents.column_names else [""] * len(batch)


def _documents(batch: DocumentBatch, texts: list[str]) -> list[Any]:
    """Returns datatrove's documents. Their metadata are the columns of the table and the entries of its column `metadata`."""
    from datatrove.data import Document

    table = batch.documents.drop_columns([name for name in ("id", "text") if name in batch.documents.column_names])
    for name in ("language", "language_score"):  # as an earlier step measured them
        if name in batch.values and name not in table.column_names:
            table = table.append_column(name, batch.values[name])
    rows = table.to_pylist() if table.num_columns else [{} for _ in texts]
    documents = []
    for id_, text, row in zip(_ids(batch), texts, rows):
        more = parse_json(row.pop("metadata", None) or "{}")
        documents.append(Document(text=text, id=id_, metadata={**more, **{k: v for k, v in row.items() if v is not None}}))
    return documents
