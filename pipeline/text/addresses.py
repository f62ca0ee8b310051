# mypy: disallow-untyped-defs=False
"""Arrays inside kernels that lie at an address, and belong to nobody there."""

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
