# mypy: disallow-untyped-defs=False
"""Arrays inside kernels that lie at an address, and belong to nobody there."""

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def _pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@njit(nogil=True, inline="always")
def array_at(address, size, like):
    """The `size` items from a uint64 address on, of the type of the array `like`. Nobody checks that they are there."""
    return carray(_pointer(address), (size,), like.dtype)


@njit(nogil=True, inline="always")
def borrowed(array):
    """The same array without counting references to it, which costs two atomic operations in every call that is given the array.

    The caller has to hold on to the array itself. It has to be contiguous.
    """
    return carray(_pointer(array.ctypes.data), array.shape, array.dtype)


@intrinsic
def _prefetch(typing_context, address):
    def generate(context, builder, signature, arguments):
        number = ir.IntType(32)
        pointer = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.none(address), generate


@njit(nogil=True, inline="always")
def prefetch(array, byte):
    """Has the cache line with that byte of the array fetched, and does not wait for it."""
    _prefetch(np.uint64(array.ctypes.data) + np.uint64(byte))
