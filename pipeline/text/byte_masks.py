# mypy: disallow-untyped-defs=False
"""Sixty-four bytes at a time inside kernels: which of them are letters, digits, spaces, as the bits of integers.

The instructions are written out for LLVM, which makes a handful of vector instructions of them; it does not see them in a loop.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from corpusmill.pipeline.kernel import kernel

BLOCK = 64
_BYTES = ir.VectorType(ir.IntType(8), BLOCK)
_WORD = ir.IntType(64)


class ByteMasks(NamedTuple):
    """uint64 each: bit i is about byte i. Of ASCII alone but for the last two, and `continuing` are the bytes 0x80 to 0xBF."""

    letters: np.uint64
    digits: np.uint64
    spaces: np.uint64
    blanks: np.uint64
    apostrophes: np.uint64
    high: np.uint64
    continuing: np.uint64


def _all(byte):
    return ir.Constant(_BYTES, [byte] * BLOCK)


@intrinsic
def _masks(typing_context, address):
    def generate(context, builder, signature, arguments):
        found = builder.load(builder.inttoptr(arguments[0], _BYTES.as_pointer()), align=1)

        def within(value, low, count):
            return builder.icmp_unsigned("<", builder.sub(value, _all(low)), _all(count))

        blanks = builder.icmp_unsigned("==", found, _all(0x20))
        marked = (
            within(builder.or_(found, _all(0x20)), ord("a"), 26),
            within(found, ord("0"), 10),
            builder.or_(within(found, 9, 5), blanks),
            blanks,
            builder.icmp_unsigned("==", found, _all(ord("'"))),
            builder.icmp_unsigned(">=", found, _all(0x80)),
            within(found, 0x80, 0x40),
        )
        return context.make_tuple(builder, signature.return_type, [builder.bitcast(each, _WORD) for each in marked])

    return types.UniTuple(types.uint64, 7)(types.uint64), generate


@intrinsic
def lowest_bit(typing_context, word):
    """The number of the lowest bit that is set; 64 where none is."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def highest_bit(typing_context, word):
    """The number of the highest bit that is set; some bit has to be."""

    def generate(context, builder, signature, arguments):
        return builder.sub(ir.Constant(_WORD, 63), builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1)))

    return types.uint64(types.uint64), generate


@kernel(inline="always")
def byte_masks(data, at):
    """`ByteMasks` of the 64 bytes at `at`; nobody checks that they are there."""
    return ByteMasks(*_masks(np.uint64(data.ctypes.data) + np.uint64(at)))
