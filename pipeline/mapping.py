"""Files as read-only arrays.

Python's own maps keep a descriptor open for each file, of which a process may have about a thousand. These keep none, so a set of any
number of shards can stay mapped.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_READ, _SHARED, _FAILED = 1, 1, ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _Mapping:
    """A whole file in memory for as long as an array made of it lives."""

    address: int | None = None

    def __init__(self, path: str, dtype: np.dtype[Any]):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.size = os.fstat(descriptor).st_size
            if self.size:
                found = _libc.mmap(None, self.size, _READ, _SHARED, descriptor, 0)
                if found == _FAILED:
                    error = ctypes.get_errno()
                    raise OSError(error, os.strerror(error), path)
                self.address = found
        finally:
            os.close(descriptor)
        shape = (self.size // dtype.itemsize,)
        self.__array_interface__ = {"version": 3, "typestr": dtype.str, "shape": shape, "data": (self.address or 0, True)}

    def __del__(self, unmap: Callable[[int, int], int] = _libc.munmap) -> None:
        if self.address is not None:
            unmap(self.address, self.size)
            self.address = None


def map_file(path: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A local file as a read-only array, `[bytes // itemsize]`; raises OSError where it can't be opened or mapped.

    What is cut off the file while it is mapped can't be read any more: the process ends by SIGBUS, as with any map.
    """
    mapping = _Mapping(path, dtype)
    return np.asarray(mapping) if mapping.address is not None else np.zeros(0, dtype)


def address_of(array: npt.NDArray[Any]) -> int:
    """Where an array's first item lies; 0 where it has none, which no array with items has."""
    return int(array.__array_interface__["data"][0]) if array.size else 0
