"""Arrow text as the kernels see it: one UTF-8 byte buffer and the offsets of the documents in it."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: What marks the words of the word rule that needs a library. It counts for the code of a task that has this rule (`pipeline/code.py`).
MARKED = {"spacy": "corpusmill.pipeline.text.spacy_marks:mark_tokens"}


def text_buffers(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """`(data, offsets)` of a string column without a copy where it is one `large_string` chunk.

    `data` is uint8 of all bytes, `offsets` int64 of length n + 1: document i is `data[offsets[i]:offsets[i + 1]]`.
    Raises ValueError where a text is null.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # combine_chunks of no chunks, or of more than one array can hold
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        raise ValueError("a text column must not hold nulls")
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string())
    _, offsets, data = column.buffers()
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    where = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return (np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)), where


def text_array(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> pa.Array:
    """The `large_string` array of n texts without a copy: text i is `data[offsets[i]:offsets[i + 1]]`, which must be valid UTF-8."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
