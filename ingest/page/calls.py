# mypy: disallow-untyped-defs=False
"""Calls of C functions inside kernels by their addresses, which, unlike functions of ctypes, leave a kernel to be cached."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WORD = ir.IntType(64)


def _call(builder, arguments):
    address, *rest = arguments
    function = builder.inttoptr(address, ir.FunctionType(WORD, [WORD] * len(rest)).as_pointer())
    return builder.call(function, rest)


@intrinsic
def call_1(typing_context, address, argument):
    """`word function(word)`; int64 all."""
    return types.int64(types.int64, types.int64), lambda context, builder, signature, arguments: _call(builder, arguments)


@intrinsic
def call_2(typing_context, address, first, second):
    """`word function(word, word)`; int64 all."""
    return types.int64(types.int64, types.int64, types.int64), lambda context, builder, signature, arguments: _call(builder, arguments)
