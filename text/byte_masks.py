# mypy: disallow-untyped-defs=False
"""Classifies 64 bytes at a time inside kernels: letters, digits, spaces and others, as the bits of integers.

The code is LLVM's intermediate language, which becomes a few vector instructions. From a loop, LLVM would not make them.
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
    """Masks of 64 bytes, uint64 each: bit i belongs to byte i. The first five are about ASCII characters alone; `high` marks
    the bytes from 0x80 on, `continuing` those from 0x80 to 0xBF."""

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
    """Returns the number of the lowest bit that is set; 64 where none is."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def highest_bit(typing_context, word):
    """Returns the number of the highest bit that is set. At least one has to be."""

    def generate(context, builder, signature, arguments):
        return builder.sub(ir.Constant(_WORD, 63), builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1)))

    return types.uint64(types.uint64), generate


@kernel(inline="always")
def byte_masks(data, at):
    """Returns the `ByteMasks` of the 64 bytes at `at`. Bounds are not checked."""
    return ByteMasks(*_masks(np.uint64(data.ctypes.data) + np.uint64(at)))
