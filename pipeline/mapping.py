"""Files as read-only arrays.

Arrow's maps live on when their file is closed. Python's keep a descriptor open for each file, of which a process may have about a thousand,
so a set of any number of shards can stay mapped only this way.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def map_file(path: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A local file as a read-only array, `[bytes // itemsize]`; raises OSError where it can't be opened or mapped.

    What is cut off the file while it is mapped can't be read any more: the process ends by SIGBUS, as with any map.
    """
    with open(path, "rb"), pa.memory_map(path) as file:  # Python's errors are plainer than Arrow's
        buffer = file.read_buffer()
    return np.frombuffer(buffer, dtype, buffer.size // dtype.itemsize) if buffer.size >= dtype.itemsize else np.zeros(0, dtype)


def address_of(array: npt.NDArray[Any]) -> int:
    """Where an array's first item lies; 0 where it has none, which no array with items has."""
    return int(array.__array_interface__["data"][0]) if array.size else 0
