# mypy: disallow-untyped-defs=False
"""Arrow text columns as buffers for kernels (UTF-8 bytes, and the offsets of the texts), and memory access by address in kernels."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from corpusmill.pipeline.kernel import kernel


def text_buffers(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns `(data, offsets)` of a string column of n texts, both read-only; without a copy where it is one `large_string` chunk.

    `data` is uint8, all bytes; `offsets` is int64 of length n + 1: text i is `data[offsets[i]:offsets[i + 1]]`.
    Raises ValueError if a text is null.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # there were no chunks, or more bytes than one array can hold
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        raise ValueError("a text column must not hold nulls")
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string())
    _, offsets, data = column.buffers()
    if not len(column):
        return read_only(np.zeros(0, np.uint8)), read_only(np.zeros(1, np.int64))
    where = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return read_only(np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)), read_only(where)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a read-only view. Some of Arrow's buffers can be written, some can't, and a kernel is compiled for each type that it gets."""
    view = array.view()
    view.flags.writeable = False
    return view


def text_array(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> pa.Array:
    """Returns the `large_string` array of n texts, without a copy. Text i is `data[offsets[i]:offsets[i + 1]]`, valid UTF-8."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


@kernel
def longest_text(offsets):
    """Returns the bytes of the longest text."""
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


# ----------------------------------------------------------------------------------------------------
# Memory access by address inside kernels: arrays without reference counts, loads and stores of eight bytes, and prefetching.


@intrinsic
def _pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@kernel(inline="always")
def array_at(address, size, like):
    """Returns the array of `size` items at a uint64 address, with the item type of `like`. The memory is not checked."""
    return carray(_pointer(address), (size,), like.dtype)


@kernel(inline="always")
def matrix_at(address, rows, columns, like):
    """As `array_at`, with two dimensions."""
    return carray(_pointer(address), (rows, columns), like.dtype)


@kernel(inline="always")
def borrowed(array):
    """Returns a view of an array without reference counting, which costs two atomic operations in each call that gets the array.

    The array has to be contiguous, and the caller has to keep it alive.
    """
    return carray(_pointer(array.ctypes.data), array.shape, array.dtype)


@intrinsic
def prefetch(typing_context, address):
    """Prefetches the cache line at an address (int64), which may be invalid."""

    def generate(context, builder, _, arguments):
        number = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), signature)
        hints = [ir.Constant(number, hint) for hint in (0, 3, 1)]  # for reading; into all caches; data
        builder.call(function, [builder.inttoptr(arguments[0], cgutils.voidptr_t), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def load_eight(typing_context, address):
    """Returns the eight bytes at an address (int64) as one little-endian uint64."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


@intrinsic
def store_eight(typing_context, address, value):
    """Writes a uint64 to the eight bytes at an address (int64)."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store(arguments[1], pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@kernel(inline="always")
def prefetch_byte(array, byte):
    """Prefetches the cache line with this byte of an array, without waiting for it."""
    prefetch(np.int64(array.ctypes.data) + np.int64(byte))
