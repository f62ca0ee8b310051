"""Repeated units are cut from the documents that stay."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.edit import Edit, Editor
from corpusmill.dedup.lines.config import LinesConfig
from corpusmill.dedup.lines.count import CUT, UNIT
from corpusmill.dedup.lines.hosts import COLUMNS, host_keys
from corpusmill.dedup.lines.units import UnitTable, cut_units
from corpusmill.dedup.sections import read_section
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.text.buffers import text_buffers

COUNTS_FOLDER, CUTS_FOLDER = "dedup/lines/counts-", "dedup/lines/cut-"
ONLY, MOSTLY = "only_repeated_lines", "mostly_repeated_lines"


class LineEditor(Editor):
    """Cuts the units that the ranges chose. `piece.inputs` hold the shard's own counts and the list of the answers of all ranges; `params`:
    `shard`."""

    fields = (pa.field("lines_in", pa.int64()), pa.field("lines_cut", pa.int64()), pa.field("line_chars_cut", pa.int64()))

    def __init__(self, config: Any, run: Any):
        super().__init__(config, run)
        self.lines: LinesConfig = config.lines

    def open(self, piece: Piece) -> None:
        paths = input_paths(self.run, piece.inputs)
        own = next(path for path in paths if path.startswith(COUNTS_FOLDER))
        answers = [path for path in paths if path.startswith(CUTS_FOLDER)]
        keys, stays = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for number, path in enumerate(answers):
            cut = read_section(self.run, path, piece.params["shard"], CUT)
            units = read_section(self.run, own, number, UNIT)[cut["place"]]
            keys.append(units["key"])
            stays.append(np.where(cut["stays"] > 0, units["row"].astype(np.int64), -1))
        self.units = UnitTable(np.concatenate(keys), np.concatenate(stays))
        self.hosts: npt.NDArray[np.uint64] | None = None
        if self.lines.scope == "host":
            found = [host_keys(table) for table in iter_tables(self.run, piece.inputs[0].path, COLUMNS)]
            self.hosts = np.concatenate([np.zeros(0, np.uint64), *found])

    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        config = self.lines
        hosts = np.zeros(len(rows), np.uint64) if self.hosts is None else self.hosts[rows]
        new, counts = cut_units(
            *text_buffers(texts), hosts, rows, config.normalisation, config.unit == "paragraph", config.min_chars, self.units
        )
        before, after = (pc.utf8_length(array).to_numpy().astype(np.int64) for array in (texts, new))
        cut, gone = counts[:, 1], before - after
        too_much = (cut > 0) & (gone > config.max_cut * before)
        if too_much.any() and config.beyond == "leave":
            new = pc.if_else(pa.array(too_much), texts, new)
            cut, gone = np.where(too_much, 0, cut), np.where(too_much, 0, gone)
        empty = (cut > 0) & (pc.binary_length(new).to_numpy() == 0)
        dropped = {ONLY: empty}
        if config.beyond == "drop":
            dropped[MOSTLY] = too_much & ~empty
        columns = {"lines_in": pa.array(counts[:, 0]), "lines_cut": pa.array(cut), "line_chars_cut": pa.array(gone)}
        return Edit(new, columns, dropped)
