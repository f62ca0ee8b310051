"""Languages and crawl files of documents in reports that do not have them: out of the report of another stage, by the documents' ids."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.explore.coding import Coded, Codes, Names
from corpusmill.report.explore.scan import Batch, scan
from corpusmill.report.explore.table import StageTable
from corpusmill.report.read import RunReader

#: What is borrowed: hosts come from URLs, which every report has.
BORROWED = ("language", "source")


class Origins:
    """Remembers what has been read while the reports are loaded: ids and names by stage and column."""

    def __init__(self, reader: RunReader):
        self.reader = reader
        self._known: dict[tuple[str, str], tuple[pa.Array, Codes, Names]] = {}

    def complete(self, table: StageTable) -> None:
        """Gives a table the origins that it lacks; None where no report has them, or none for this document."""
        ids = table.ids().combine_chunks()
        for column in BORROWED:
            if column in table.origins:
                self._known[table.name, column] = ids, table.origins[column], table.names[column]
                continue
            found = self._of_another(table.name, column)
            if found is None:
                table.origins[column] = np.full(table.rows, table.names[column].number(None), np.int32)
                continue
            known, codes, table.names[column] = found
            codes = np.append(codes, table.names[column].number(None)).astype(np.int32)  # the last is for those that are not there
            table.origins[column] = codes[pc.fill_null(pc.index_in(ids, known), -1).to_numpy()]

    def _of_another(self, stage: str, column: str) -> tuple[pa.Array, Codes, Names] | None:
        for other in self.reader.present():
            if (other, column) in self._known:
                return self._known[other, column]
            schema = self.reader.schema(other, "report") if other != stage else None
            if schema is not None and column in schema.names:
                reading = _Reading(column)
                scan(self.reader, other, [reading])
                self._known[other, column] = reading.whole()
                return self._known[other, column]
        return None


class _Reading:
    """The measure (scan.py) that reads the ids of a report and one column of names."""

    def __init__(self, column: str):
        self.column = column
        self.columns: Sequence[str] = ("id", column)
        self.names = Names()
        self.ids: list[pa.Array] = []
        self.codes: list[Codes] = []

    def measure(self, batch: Batch) -> tuple[pa.Array, Coded] | None:
        if set(self.columns) - set(batch.table.column_names):
            return None
        return batch.table["id"].combine_chunks().cast(pa.string()), Coded(batch.table[self.column])

    def add(self, measured: tuple[pa.Array, Coded] | None) -> None:
        if measured is not None:
            self.ids.append(measured[0])
            self.codes.append(self.names.encode(measured[1]))

    def whole(self) -> tuple[pa.Array, Codes, Names]:
        ids = pa.concat_arrays(self.ids) if self.ids else pa.array([], pa.string())
        return ids, np.concatenate(self.codes) if self.codes else np.zeros(0, np.int32), self.names
