"""Where the texts of a stage's documents lie: as they came into the stage, in the files of the stage before.

Nothing of a text is kept in memory but where it lies; row groups are read when they are asked for.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.read import DATA_STAGES, Place, RunReader

Positions = npt.NDArray[np.int32]


@dataclass
class Texts:
    """`positions` (rows of the report): the place of each text among those of `stage`, -1 where there is none.

    `groups` says at which place each row group of the stage's documents begins; `count` are all of them.
    """

    reader: RunReader
    stage: str
    positions: Positions
    groups: list[tuple[int, Place]]
    count: int

    def group(self, position: int) -> int:
        """The row group that holds a place."""
        return bisect_right(self.groups, position, key=lambda group: group[0]) - 1

    def end(self, group: int) -> int:
        """The first place behind a row group."""
        return self.groups[group + 1][0] if group + 1 < len(self.groups) else self.count

    def read(self, group: int) -> pa.ChunkedArray | None:
        """The texts of a row group; None where it can't be read."""
        place = self.groups[group][1]
        for _, table in self.reader.groups(self.stage, "data", ["text"], only={(place.shard, place.group)}):
            return table["text"] if "text" in table.column_names else None
        return None

    def of(self, row: int) -> str | None:
        """The text of a row of the report."""
        position = int(self.positions[row])
        if position < 0:
            return None
        begin, place = self.groups[self.group(position)]
        found = self.reader.row(Place(place.stage, place.shard, place.group, position - begin), ["text"])
        text: str | None = found.get("text")
        return text


def texts_before(reader: RunReader, stage: str, ids: pa.ChunkedArray) -> Texts:
    """The texts that came into a stage, by the ids of its report's rows; for `ingest` those that it made."""
    earlier = DATA_STAGES[: DATA_STAGES.index(stage)] if stage in DATA_STAGES else DATA_STAGES
    source = next((name for name in reversed(earlier) if reader.stages[name].outputs("data/")), stage)
    parts, groups, count = [], list[tuple[int, Place]](), 0
    for place, table in reader.groups(source, "data", ["id"]):
        if "id" in table.column_names:
            groups.append((count, place))
            parts.append(table["id"].combine_chunks().cast(pa.string()))
            count += table.num_rows
    if not parts:
        return Texts(reader, source, np.full(len(ids), -1, np.int32), [], 0)
    at = pc.index_in(ids, pa.concat_arrays(parts))
    return Texts(reader, source, pc.fill_null(at, -1).to_numpy().astype(np.int32), groups, count)
