"""What the step `pii` found of personal data and secrets, by kind: in all documents that came in, and in those that went on."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.report.facts.scan import Batch
from corpusmill.report.read import RunReader

PREFIX = "pii_"

Ints = npt.NDArray[np.int64]


@dataclass
class Found:
    """Of one kind: finds and documents that have any, of all and of those that were kept. `placeholder` stands for it in the text, None
    where it stays; `known` tells whether the recipe says so."""

    column: str
    placeholder: str | None
    known: bool
    finds: int = 0
    documents: int = 0
    kept_finds: int = 0
    kept_documents: int = 0

    @property
    def kind(self) -> str:
        return self.column.removeprefix(PREFIX).replace("_", " ")


@dataclass
class PersonalData:
    """The measure of a filter stage's report: all kinds, and documents with any of them (`touched`, `kept_touched`)."""

    kinds: list[Found] = field(default_factory=list)
    rows: int = 0
    kept: int = 0
    touched: int = 0
    kept_touched: int = 0

    @property
    def columns(self) -> list[str]:
        return ["kept", *(found.column for found in self.kinds)]

    def measure(self, batch: Batch) -> tuple[Ints, list[int]]:
        """(kinds, 4) in the order of `Found`; rows, kept, touched, of these kept."""
        touched = np.zeros(len(batch), bool)
        counts = []
        for found in self.kinds:
            values = np.nan_to_num(batch.floats(found.column)).astype(np.int64)
            touched |= values > 0
            kept = values[batch.kept]
            counts.append([values.sum(), (values > 0).sum(), kept.sum(), (kept > 0).sum()])
        totals = [len(batch), int(batch.kept.sum()), int(touched.sum()), int((touched & batch.kept).sum())]
        return np.array(counts, np.int64).reshape(-1, 4), totals

    def add(self, measured: tuple[Ints, list[int]]) -> None:
        counts, totals = measured
        for found, (finds, documents, kept_finds, kept_documents) in zip(self.kinds, counts.tolist(), strict=True):
            found.finds, found.documents = found.finds + finds, found.documents + documents
            found.kept_finds, found.kept_documents = found.kept_finds + kept_finds, found.kept_documents + kept_documents
        self.rows, self.kept = self.rows + totals[0], self.kept + totals[1]
        self.touched, self.kept_touched = self.touched + totals[2], self.kept_touched + totals[3]


def personal_data(reader: RunReader) -> PersonalData | None:
    """The kinds that the filter stage looked for; None where it looked for none."""
    schema = reader.schema("filter", "report")
    columns = [f.name for f in schema if f.name.startswith(PREFIX) and pa.types.is_integer(f.type)] if schema is not None else []
    if not columns or not reader.is_report("filter"):
        return None
    options = _options(reader)
    kinds = {f"{PREFIX}{name}{plural}": name for name in options for plural in ("s", "")}
    return PersonalData([_found(column, kinds.get(column), options) for column in columns])


def _found(column: str, option: str | None, options: dict[str, Any]) -> Found:
    placeholder = options.get(option) if option else None
    return Found(column, placeholder if isinstance(placeholder, str) else None, option is not None)


def _options(reader: RunReader) -> dict[str, Any]:
    """The step's options in the resolved recipe; empty where it does not have them."""
    steps = reader.settings("filter").get("steps")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and isinstance(step.get("pii"), dict):
            return dict(step["pii"])
    return {}
