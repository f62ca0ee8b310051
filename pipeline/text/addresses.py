# mypy: disallow-untyped-defs=False
"""Memory inside kernels by address: arrays that belong to nobody there, eight bytes at once, and what the processor is to fetch early."""

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from corpusmill.pipeline.kernel import kernel


@intrinsic
def _pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@kernel(inline="always")
def array_at(address, size, like):
    """The `size` items from a uint64 address on, of the type of the array `like`. Nobody checks that they are there."""
    return carray(_pointer(address), (size,), like.dtype)


@kernel(inline="always")
def matrix_at(address, rows, columns, like):
    """As `array_at`, with two dimensions."""
    return carray(_pointer(address), (rows, columns), like.dtype)


@kernel(inline="always")
def borrowed(array):
    """The same array without counting references to it, which costs two atomic operations in every call that is given the array.

    The caller has to hold on to the array itself. It has to be contiguous.
    """
    return carray(_pointer(array.ctypes.data), array.shape, array.dtype)


@intrinsic
def prefetch(typing_context, address):
    """Asks for the cache line at an address (int64), which need not be there."""

    def generate(context, builder, _, arguments):
        number = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), signature)
        hints = [ir.Constant(number, hint) for hint in (0, 3, 1)]  # to be read, and kept in all caches; data
        builder.call(function, [builder.inttoptr(arguments[0], cgutils.voidptr_t), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def load_eight(typing_context, address):
    """The eight bytes at an address (int64), as one little-endian uint64."""

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
    """Asks for the cache line with that byte of an array, and does not wait for it."""
    prefetch(np.int64(array.ctypes.data) + np.int64(byte))
