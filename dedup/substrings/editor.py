"""Passages that repeat word for word are cut from the documents that stay."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.edit import Edit, Editor
from corpusmill.dedup.sections import read_section
from corpusmill.dedup.substrings.config import SubstringsConfig
from corpusmill.dedup.substrings.cut import WindowTable, cut_windows
from corpusmill.dedup.substrings.find import CUT, WINDOW
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.text.buffers import text_buffers

WINDOWS_FOLDER, CUTS_FOLDER = "dedup/substrings/windows-", "dedup/substrings/cut-"
ONLY = "only_repeated_substrings"


class SubstringEditor(Editor):
    """Cuts the windows that the ranges chose.

    `piece.inputs` hold the shard's own windows and the list of the answers of all ranges; `piece.params`: `shard`.
    """

    fields = (pa.field("substring_spans", pa.int64()), pa.field("substring_chars_cut", pa.int64()))

    def __init__(self, config: Any, run: Any):
        super().__init__(config, run)
        self.substrings: SubstringsConfig = config.substrings

    def open(self, piece: Piece) -> None:
        paths = input_paths(self.run, piece.inputs)
        own = next(path for path in paths if path.startswith(WINDOWS_FOLDER))
        answers = [path for path in paths if path.startswith(CUTS_FOLDER)]
        keys, rows, words = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for number, path in enumerate(answers):
            cut = read_section(self.run, path, piece.params["shard"], CUT)
            windows = read_section(self.run, own, number, WINDOW)[cut["place"]]
            keys.append(windows["key"])
            for name, places in (("row", rows), ("word", words)):
                places.append(np.where(cut["stays"] > 0, windows[name].astype(np.int64), -1))
        self.windows = WindowTable(np.concatenate(keys), np.concatenate(rows), np.concatenate(words))

    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        new, spans = cut_windows(*text_buffers(texts), rows, self.substrings.tokens, self.windows)
        gone = pc.subtract(pc.utf8_length(texts), pc.utf8_length(new)).cast(pa.int64())
        empty = (spans > 0) & (pc.binary_length(new).to_numpy() == 0)
        return Edit(new, {"substring_spans": pa.array(spans), "substring_chars_cut": gone}, {ONLY: empty})
